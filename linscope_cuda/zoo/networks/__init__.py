"""Architectures of the zoo as plain modules, one family a file."""

from .cyclegan import CycleGAN, CycleGANBlock
from .edsr import DIV2K_MEAN, EDSR, EDSRBlock, MeanShift
from .efficientnet import EfficientNetLite0, SameConv2d
from .hed import HED
from .pixelshuffle import PixelShuffle4
from .squeezenet import Fire, SqueezeNet
from .style import StyleTransfer
from .upconv7 import UpConv7

__all__ = [
    "DIV2K_MEAN",
    "EDSR",
    "HED",
    "CycleGAN",
    "CycleGANBlock",
    "EDSRBlock",
    "EfficientNetLite0",
    "Fire",
    "MeanShift",
    "PixelShuffle4",
    "SameConv2d",
    "SqueezeNet",
    "StyleTransfer",
    "UpConv7",
]
