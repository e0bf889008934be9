"""From a network and a photo to a linear system, and what is said where one of them will not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor, nn

from ..capture.tape import TapeMismatch
from ..frozen.certificate import CertificateError
from ..frozen.interpreter import LinearInterpreter
from ..rules import UnscopedOperation
from ..zoo import Network
from .errors import BadInput

SIZES = (16, 1024)  # below, nothing can be recognised; above, a page takes hours
DEFAULT_SIZE = 48  # of a network that takes any size
SCORES_SIZE = 224  # of such a network that gives scores
MOST_TRIPLETS = 16
SMALLEST_PHOTO = 8


def require_photo(image: Image.Image, name: str = "the photo") -> None:
    """BadInput unless there is enough of a picture to look at.

    require_photo(zoo.photo("cat").image)
    """
    if min(image.size) < SMALLEST_PHOTO:
        raise BadInput(
            f"{name} is {image.width} x {image.height} pixels, and {SMALLEST_PHOTO} x "
            f"{SMALLEST_PHOTO} or more are wanted"
        )


def require_size(size: int | None) -> None:
    """BadInput for a side of the input out of range; None is the network's own.

    require_size(64)
    """
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise BadInput(f"size wants {SIZES[0]} ... {SIZES[1]} pixels, was given {size}")


def require_triplets(k: int) -> None:
    """BadInput for a number of singular triplets out of range.

    require_triplets(6)
    """
    if not 1 <= k <= MOST_TRIPLETS:
        raise BadInput(f"k wants 1 ... {MOST_TRIPLETS} triplets, was given {k}")


def resized(network: Network, size: int | None) -> Network:
    """The classifier whose preprocessing makes every photo `size` pixels square, in its own way;
    None: the network's own size, or 224. BadInput for a size out of range.

    resized(zoo.load("squeezenet1_1"), 96).preprocess
    """
    require_size(size)
    own = network.preprocess.size or (SCORES_SIZE, SCORES_SIZE)
    preprocess = dataclasses.replace(network.preprocess, size=(size, size) if size else own)
    return dataclasses.replace(network, preprocess=preprocess)


@torch.no_grad()
def plain(model: nn.Module, x0: Tensor, name: str) -> Tensor:
    """f(x0) of the network as it is; BadInput if it cannot take x0, or gives no tensor.

    plain(network.model, x0, "mine").shape
    """
    size = f"{x0.shape[2]} x {x0.shape[3]}"
    try:
        y = model(x0)
    except Exception as error:  # the network may be anybody's
        if out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"{name} cannot take {size} pixels, another size is wanted ({reason})"
        ) from error
    if not isinstance(y, Tensor) or y.dim() < 2 or len(y) != 1:
        found = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise BadInput(f"{name} gives {found}, and one tensor (1, ...) is wanted")
    return y


def scores(model: nn.Module, x0: Tensor, name: str) -> Tensor:
    """`plain` of a classifier, (1, classes); BadInput for a network that is none.

    scores(network.model, x0, "mine").argmax()
    """
    y = plain(model, x0, name)
    if y.dim() != 2:
        raise BadInput(f"{name} gives no scores, (1, classes), and a classifier is wanted")
    return y


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what went wrong; torch has no exception of its own for it on the CPU.

    out_of_memory(MemoryError())
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextmanager
def freezable(name: str) -> Iterator[None]:
    """BadInput, with the reason, in place of what LinearInterpreter says of a network.

    with freezable("mine"): ls.fgsm(model, x0, [])
    """
    try:
        yield
    except (UnscopedOperation, CertificateError, TapeMismatch, TypeError, ValueError) as error:
        raise BadInput(f"{name} cannot be frozen: {error}") from error


def interpreter(
    model: nn.Module, x0: Tensor, name: str, policy: str = "paper", check: bool = True
) -> LinearInterpreter:
    """The network frozen for x0; BadInput if it cannot be.

    interpreter(model, x0, "mine", "taylor")
    """
    with freezable(name):
        return LinearInterpreter(model, x0, policy, check=check)
