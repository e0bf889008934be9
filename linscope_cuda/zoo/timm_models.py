"""timm's classifiers, with the weights that the user has downloaded, or random."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .fetch import FetchError
from .network import Network, imagenet_classes
from .preprocess import Preprocess
from .seeded import RANDOM_SEED, seeded

RANDOM = "-random"
_FILE = "model.safetensors"


def load(name: str) -> Network:
    """The classifier `name` of timm, as "resnet18" or "resnet18.a1_in1k", or "resnet18-random"
    from a seed.

    Weights are those in the Hugging Face Hub's cache, as safetensors; nothing is downloaded. The
    preprocessing is that of the weights. ValueError for an unknown name and for a network whose
    input is no RGB picture, ImportError without timm, FetchError when no weights are there.

    >>> load("resnet18-random").preprocess.size
    (224, 224)
    """
    plain = _known(name)
    timm, config = _timm(), _config(plain)
    channels, _, _ = config["input_size"]
    if channels != 3:
        raise ValueError(f"timm/{plain} wants {config['input_size']}, which is no RGB picture")
    if name.endswith(RANDOM):
        with seeded():
            model = timm.create_model(plain, pretrained=False)
        trained = f"the weights are random (seed {RANDOM_SEED}), nothing here was trained."
        return Network(model.eval(), _preprocess(config), None, f"{plain} of timm; {trained}")
    file = _downloaded(config)
    if file is None:
        raise FetchError(
            f"timm/{plain} has no {_FILE} of {config.get('hf_hub_id')} in the Hugging Face Hub's "
            f'cache; timm.create_model("{plain}", pretrained=True) downloads it once, and '
            f"timm/{plain}{RANDOM} needs none"
        )
    try:
        with seeded():
            overlay = {"file": str(file)}
            model = timm.create_model(plain, pretrained=True, pretrained_cfg_overlay=overlay)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise FetchError(f"{file} does not hold the weights of timm's {plain}") from error
    licence = config.get("license") or "see its model card"
    source = f"{plain} of timm with its weights {config.get('tag')} ({licence})."
    return Network(model.eval(), _preprocess(config), _classes(config), source)


def weights_of(name: str) -> str:
    """Where the weights of classifier `name` are: "cached", "not downloaded" or "random".

    ValueError and ImportError as `load`.
    """
    plain = _known(name)
    if name.endswith(RANDOM):
        return "random"
    return "not downloaded" if _downloaded(_config(plain)) is None else "cached"


def _timm() -> Any:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("timm is not installed, and its networks need it") from error
    return timm


def _known(name: str) -> str:
    """The name less its "-random"."""
    plain = name.removesuffix(RANDOM)
    try:
        known = _timm().get_pretrained_cfg(plain) is not None
    except RuntimeError:  # a tag that the architecture has not
        known = False
    if not known:
        raise ValueError(f"timm has no model {plain!r}; timm.list_models() tells their names")
    return plain


def _config(plain: str) -> dict[str, Any]:
    return _timm().get_pretrained_cfg(plain).to_dict()


def _downloaded(config: dict[str, Any]) -> Path | None:
    from huggingface_hub import (  # pyright: ignore[reportMissingImports]
        try_to_load_from_cache,
    )

    if not (repository := config.get("hf_hub_id")):
        return None
    found = try_to_load_from_cache(repository, _FILE)
    return Path(found) if isinstance(found, str) else None


def _classes(config: dict[str, Any]) -> list[str]:
    count = config["num_classes"]
    in1k = count == 1000 and "in1k" in (config.get("tag") or "")
    return imagenet_classes() if in1k else [f"class {i}" for i in range(count)]


def _preprocess(config: dict[str, Any]) -> Preprocess:
    _, height, width = config["input_size"]
    # timm cuts the centre out of a picture whose shorter side it rounds down.
    crop = height / math.floor(height / config["crop_pct"]) if height == width else None
    known = config["interpolation"] in ("bicubic", "bilinear")
    return Preprocess(
        size=(height, width),
        divisor=255,
        offset=tuple(config["mean"]),
        deviation=tuple(config["std"]),
        crop=crop,
        resampling=config["interpolation"] if known else "bicubic",
    )
