"""Architectures of the zoo as plain modules, one family a file."""

from .cyclegan import CycleGAN, CycleGANBlock
from .edsr import DIV2K_MEAN, EDSR, EDSRBlock, MeanShift
from .efficientnet import EfficientNetLite0, SameConv2d
from .pixelshuffle import PixelShuffle4
from .squeezenet import Fire, SqueezeNet

__all__ = [
    "DIV2K_MEAN",
    "EDSR",
    "CycleGAN",
    "CycleGANBlock",
    "EDSRBlock",
    "EfficientNetLite0",
    "Fire",
    "MeanShift",
    "PixelShuffle4",
    "SameConv2d",
    "SqueezeNet",
]
