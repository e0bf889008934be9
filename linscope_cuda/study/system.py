"""A network frozen on a photo, with the names under which pictures show it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from ..frozen.certificate import CertificateError
from ..frozen.interpreter import LinearInterpreter
from ..frozen.program_file import FrozenProgram, load
from ..zoo import Network
from ..zoo.preprocess import Preprocess, rgb
from .errors import BadInput
from .euclidean import norm
from .framing import Fit, Framed, cut, own
from .photos import freezable, interpreter, plain, scores
from .shown import Shown, shown


@dataclass(frozen=True, eq=False)
class System:
    """y = F x + r of a network on a photo; `name` is what pictures call it, and `framing` says what
    became of the photo.
    """

    name: str
    op: LinearInterpreter | FrozenProgram
    preprocess: Preprocess
    framing: str = ""

    @property
    def input(self) -> Tensor:
        """x0 as a photo (3, H, W) in 0..1."""
        return rgb(self.op.x0[0].cpu(), self.preprocess)

    @property
    def output(self) -> Tensor:
        """y as a photo."""
        return self.shown(self.op.output[0].cpu())

    def shown(self, y: Tensor) -> Tensor:
        """An output (C, H, W) as a picture."""
        return self.as_shown(y).picture

    def as_shown(self, y: Tensor) -> Shown:
        """Likewise, with what must be said of it."""
        return shown(y, self.preprocess, self.op.input_shape[0])

    @property
    def residual_share(self) -> float | None:
        """|r| / |y|, which an output of zeros has not."""
        whole = norm(self.op.output)
        return norm(self.op.residual) / whole if whole else None

    @property
    def facts(self) -> dict[str, object]:
        """Sizes, and how y = F x0 + r is made up, as JSON's types."""
        op = self.op
        filtered, whole = norm(op.filter(op.x0)), norm(op.output)
        return {
            "system": self.name,
            "input_shape": list(op.input_shape),
            "output_shape": list(op.output_shape),
            "norm_filtered_over_output": filtered / whole if whole else None,
            "norm_residual_over_output": self.residual_share,
        }


def share_in_words(residual: float | None) -> str:
    """|r| / |y| as it is printed."""
    return "y = 0" if residual is None else f"|r| / |y| = {residual:.4g}"


@dataclass(frozen=True)
class Kind:
    """What sort of network is wanted: how a photo becomes x0, what f(x0) must be, and how it is
    frozen, each in the words of `study.photos`.
    """

    fit: Fit
    require: Callable[[nn.Module, Tensor, str], Tensor]
    freeze: Callable[[nn.Module, Tensor, str, str], LinearInterpreter]
    pictures: bool = False  # whether x0 and f(x0) are shown


def _picture(model: nn.Module, x0: Tensor, name: str) -> Tensor:
    y = plain(model, x0, name)
    if y.dim() != 4:
        raise BadInput(
            f"{name} makes {tuple(y.shape[1:])} of {tuple(x0.shape[1:])}, and a network that makes "
            "a picture is wanted"
        )
    return y


def _unproven(model: nn.Module, x0: Tensor, name: str, policy: str) -> LinearInterpreter:
    with freezable(name):
        try:
            return LinearInterpreter(model, x0, policy)  # names what cannot be frozen
        except CertificateError:
            return LinearInterpreter(model, x0, policy, check=False)


def _either_framed(network: Network, image: Image.Image, size: int | None) -> Framed:
    return (own if network.classes else cut)(network, image, size)


def _either(model: nn.Module, x0: Tensor, name: str) -> Tensor:
    y = plain(model, x0, name)
    if y.dim() not in (2, 4):
        raise BadInput(
            f"{name} makes {tuple(y.shape[1:])} of {tuple(x0.shape[1:])}, and a network that makes "
            "a picture or scores is wanted"
        )
    return y


PICTURES = Kind(cut, _picture, interpreter, pictures=True)
SCORES = Kind(own, scores, interpreter)
# Pictures or scores, each in the way of the commands that want them.
EITHER = Kind(_either_framed, _either, interpreter, pictures=True)
# Any network, also one that is not linear when frozen: that is what is to be measured.
UNPROVEN = Kind(cut, plain, _unproven)


def frozen(
    network: Network,
    image: Image.Image,
    name: str,
    policy: str = "paper",
    size: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kind: Kind = PICTURES,
) -> System:
    """The system of a network on the photo, of which networks that make pictures, or any, get the
    centred part as in `explore`, and classifiers what their own preprocessing makes of it.

    BadInput if the photo or `size` is out of range, if the network cannot take the picture, is not
    of the kind, or cannot be frozen.

    frozen(zoo.load("cyclegan_vintage"), zoo.photo("cat").image, "vintage", "centered", size=64).op
    """
    preprocess, x0, framing = kind.fit(network, image, size)
    x0 = x0.to(device, dtype)
    model = copy.deepcopy(network.model).to(device, dtype)  # a network may be frozen more than once
    kind.require(model, x0, name)
    return System(name, kind.freeze(model, x0, name, policy), preprocess, framing)


def loaded(path: str | os.PathLike, device: str = "cpu", kind: Kind = PICTURES) -> System:
    """The system in a file that `op.save` wrote, whose pictures go from x0's least to its most.

    BadInput for what is no such file, and for a network that is not of the kind.

    loaded("cat.linscope").op
    """
    try:
        op = load(path, device)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    picture = op.x0.dim() == op.output.dim() == 4 and op.input_shape[0] in (1, 3)
    if kind.pictures and not picture:
        shapes = f"{op.input_shape} -> {op.output_shape}"
        raise BadInput(f"{path} holds {shapes}, and one from a picture to a picture is wanted")
    return System(op.model, op, from_least_to_most(op.x0))


def from_least_to_most(x0: Tensor) -> Preprocess:
    """The preprocessing by which x0's least number is black and its most white.

    from_least_to_most(op.x0)
    """
    low, high = x0.min().item(), x0.max().item()
    return Preprocess(divisor=255 / ((high - low) or 1.0), offset=(-low, -low, -low))
