"""From the bytes of each published weight file to our network: what the file calls its layers."""

from torch import nn

from .formats import State, keras_arrays, keras_kernel, ncnn_layers, torch_state
from .networks import HED, CycleGAN, EfficientNetLite0, Fire, SqueezeNet, StyleTransfer, UpConv7
from .onnx_file import onnx_tensors

STYLES = 26  # of style26


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


def squeezenet1_1(data: bytes) -> SqueezeNet:
    model, arrays = SqueezeNet(), keras_arrays(data)
    state: State = {}
    for module, dataset in _squeezenet_layers(model).items():
        state[f"{module}.weight"] = keras_kernel(arrays[f"{dataset}_W:0"])
        state[f"{module}.bias"] = arrays[f"{dataset}_b:0"]
    model.load_state_dict(state)
    return model


def efficientnet_lite0(data: bytes) -> EfficientNetLite0:
    model, published = EfficientNetLite0(), torch_state(data)
    # Both list the layers in the order in which they run; the names differ.
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model


def upconv7(data: bytes) -> UpConv7:
    model = UpConv7()
    names = _names(model, nn.Conv2d) + _names(model, nn.ConvTranspose2d)
    shapes = [tuple(model.get_parameter(f"{name}.weight").shape) for name in names]
    # ncnn keeps the weight of the transposed convolution, the last layer, as (out, in, h, w).
    shapes[-1] = (shapes[-1][1], shapes[-1][0], *shapes[-1][2:])
    state: State = {}
    for name, (weight, bias) in zip(names, ncnn_layers(data, shapes), strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    last = f"{names[-1]}.weight"
    state[last] = state[last].transpose(0, 1).contiguous()
    model.load_state_dict(state)
    return model


def cyclegan_vintage(data: bytes) -> CycleGAN:
    model = CycleGAN(affine=True)
    model.load_state_dict(
        {key.replace(".block.", ".conv_block."): v for key, v in torch_state(data).items()}
    )
    return model


def style26(data: bytes, style: int) -> StyleTransfer:
    """The network with the scales and shifts of one style."""
    model, tensors = StyleTransfer(), onnx_tensors(data)
    layers = [f"contract.{i}" for i in range(3)]
    layers += [f"res.{i}.{j}" for i in range(6) for j in range(2)]
    layers += [f"expand.{i}" for i in range(3)]
    norms = _names(model, nn.InstanceNorm2d)
    state: State = {}
    for layer, convolution, norm in zip(layers, _names(model, nn.Conv2d), norms, strict=True):
        state[f"{convolution}.weight"] = tensors[f"{layer}.w"]
        state[f"{norm}.weight"] = tensors[f"{layer}.norm.gamma"][style]
        state[f"{norm}.bias"] = tensors[f"{layer}.norm.beta"][style]
    model.load_state_dict(state)
    return model


def hed(data: bytes) -> HED:
    model, arrays = HED(), keras_arrays(data)
    state: State = {}

    def put(module: str, layer: str) -> None:
        state[f"{module}.weight"] = keras_kernel(arrays[f"{layer}/vars/0"])
        state[f"{module}.bias"] = arrays[f"{layer}/vars/1"]

    for i, block in enumerate(model.blocks):
        for j, name in enumerate(_names(block, nn.Conv2d)):
            put(f"blocks.{i}.{name}", f"block{i + 1}/layers/conv2d" + (f"_{j}" if j else ""))
        put(f"sides.{i}", f"dsn{i + 1}")
    put("fuse", "fuse")
    model.load_state_dict(state)
    return model


def _names(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    """Names of the modules of a kind, in the order in which they run."""
    return [name for name, module in model.named_modules() if isinstance(module, kind)]
