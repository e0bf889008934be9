"""torchvision's image classifiers, with the weights that the user has downloaded, or random."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .fetch import FetchError
from .network import Network
from .preprocess import Preprocess
from .seeded import RANDOM_SEED, seeded

RANDOM = "-random"


def load(name: str) -> Network:
    """The classifier `name` of torchvision, as "resnet18", or "resnet18-random" from a seed.

    Weights are those in torch.hub's folder, the recommended ones first; nothing is downloaded.
    The preprocessing and the classes are those of the weights. ValueError for an unknown name,
    ImportError without torchvision, FetchError when no weights are there or a digest differs.

    >>> load("resnet18-random").preprocess.size
    (224, 224)
    """
    plain = _known(name)
    if name.endswith(RANDOM):
        with seeded():
            model = _models().get_model(plain, weights=None)
        source = (
            f"{plain} of torchvision; the weights are random (seed {RANDOM_SEED}), nothing here "
            "was trained."
        )
        return Network(model.eval(), _preprocess(_weights(plain)[0]), None, source)
    weights = _downloaded(plain)
    if weights is None:
        raise FetchError(
            f"torchvision/{plain} has no weights in {_folder()}, where torchvision puts them; "
            f'torchvision.models.{plain}(weights="DEFAULT") downloads them once, and '
            f"torchvision/{plain}{RANDOM} needs none"
        )
    return Network(
        _read(plain, weights).eval(),
        _preprocess(weights),
        list(weights.meta["categories"]),
        f"{plain} of torchvision with its weights {weights.name}, trained on ImageNet "
        "(BSD-3-Clause licence of torchvision).",
    )


def weights_of(name: str) -> str:
    """Where the weights of classifier `name` are: "cached", "not downloaded" or "random".

    ValueError and ImportError as `load`.
    """
    plain = _known(name)
    if name.endswith(RANDOM):
        return "random"
    return "not downloaded" if _downloaded(plain) is None else "cached"


def _models() -> Any:
    try:
        import torchvision.models
    except ImportError as error:
        raise ImportError("torchvision is not installed, and its networks need it") from error
    return torchvision.models


def _known(name: str) -> str:
    """The name less its "-random"."""
    plain, known = name.removesuffix(RANDOM), _models().list_models(module=_models())
    if plain not in known:
        raise ValueError(
            f"torchvision has no image classifier {plain!r}; it has {', '.join(known)}"
        )
    return plain


def _weights(name: str) -> list[Any]:
    """Every set of weights that classifies, the recommended one first."""
    kinds = _models().get_model_weights(name)
    return [kinds.DEFAULT] + [
        w for w in kinds if w is not kinds.DEFAULT and w.meta["categories"] is not None
    ]


def _folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _file(weights: Any) -> Path:
    return _folder() / weights.url.rpartition("/")[2]


def _downloaded(name: str) -> Any:
    return next((w for w in _weights(name) if _file(w).is_file()), None)


def _read(name: str, weights: Any) -> nn.Module:
    path = _file(weights)
    prefix = path.stem.rpartition("-")[2]  # how torch.hub names files: name-digest.pth
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(prefix):
        raise FetchError(f"{path} was refused: its SHA-256 is {digest}, and {prefix}... is wanted")
    try:
        with _tensors_only(), seeded():
            return _models().get_model(name, weights=weights)
    except (pickle.UnpicklingError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise FetchError(f"{path} does not hold the weights of torchvision's {name}") from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Has torch.load refuse to execute code: torchvision's builders do not ask for that.

    They read the file themselves, and differently for each network (old key names, inputs
    normalised anew), so we let them.
    """
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _preprocess(weights: Any) -> Preprocess:
    transforms = weights.transforms()
    (size,), (shorter,) = transforms.crop_size, transforms.resize_size
    return Preprocess(
        size=(size, size),
        divisor=255,
        offset=tuple(transforms.mean),
        deviation=tuple(transforms.std),
        crop=size / shorter,
        resampling=transforms.interpolation.value,
    )
