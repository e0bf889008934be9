"""Every network of the zoo by name: bundled, fetched once, or random from a seed."""

from collections.abc import Callable

import safetensors.torch
from torch import nn

from .network import Network, data
from .networks import EDSR, CycleGAN, PixelShuffle4
from .preprocess import Preprocess
from .seeded import RANDOM_SEED, seeded
from .trained import TRAINED


def _pixelshuffle4_x3() -> Network:
    with seeded():
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
    with seeded():
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
