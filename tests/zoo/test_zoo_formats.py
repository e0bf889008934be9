"""The zoo's weight files: each published format read back into the network it was made from."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import weight_files
from torch import Tensor, nn

from linscope_cuda.zoo import formats, networks, published
from linscope_cuda.zoo.onnx_file import onnx_tensors

State = dict[str, Tensor]


def same(model: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    return all(torch.allclose(ours[k], theirs[k], rtol=tolerance, atol=0) for k in ours)


def keras_kernel(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0).contiguous()


# ---- Networks ----


def test_efficientnet_lite0_is_read_in_the_order_of_its_layers():
    model = weight_files.random_(networks.EfficientNetLite0())
    renamed = {f"_layer.{i}": v for i, v in enumerate(model.state_dict().values())}
    assert same(model, published.efficientnet_lite0(weight_files.of_torch(renamed)))


def test_squeezenet_is_read_from_keras():
    model = weight_files.random_(networks.SqueezeNet())
    arrays: State = {}
    for module, dataset in published._squeezenet_layers(networks.SqueezeNet()).items():
        arrays[f"{dataset}_W:0"] = keras_kernel(model.get_parameter(f"{module}.weight").data)
        arrays[f"{dataset}_b:0"] = model.get_parameter(f"{module}.bias").data
    assert same(model, published.squeezenet1_1(weight_files.of_keras(arrays)))


def test_hed_is_read_from_keras():
    model = weight_files.random_(networks.HED())
    arrays: State = {}

    def put(layer: str, module: nn.Module) -> None:
        assert isinstance(module, nn.Conv2d) and module.bias is not None
        arrays[f"{layer}/vars/0"] = keras_kernel(module.weight.data)
        arrays[f"{layer}/vars/1"] = module.bias.data

    for i, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        block = [m for m in model.blocks[i - 1] if isinstance(m, nn.Conv2d)]
        assert len(block) == convolutions
        for j, module in enumerate(block):
            put(f"block{i}/layers/" + ("conv2d" if j == 0 else f"conv2d_{j}"), module)
        put(f"dsn{i}", model.sides[i - 1])
    put("fuse", model.fuse)
    assert same(model, published.hed(weight_files.of_keras(arrays)))


def test_upconv7_is_read_from_ncnn():
    model = weight_files.random_(networks.UpConv7())
    layers = []
    for module in model:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is not None
            weight = module.weight.data
            if isinstance(module, nn.ConvTranspose2d):
                weight = weight.transpose(0, 1)
            layers.append((weight, module.bias.data))
    assert same(model, published.upconv7(weight_files.of_ncnn(layers)), tolerance=1e-3)


def test_cyclegan_vintage_is_read_with_its_publishers_names():
    model = weight_files.random_(networks.CycleGAN(affine=True))
    state = {k.replace(".conv_block.", ".block."): v for k, v in model.state_dict().items()}
    assert same(model, published.cyclegan_vintage(weight_files.of_torch(state)))


@pytest.mark.parametrize("style", [0, 25])
def test_style26_takes_the_norms_of_one_style(style: int):
    model = weight_files.random_(networks.StyleTransfer())
    layers = ["contract.0", "contract.1", "contract.2"]
    layers += [f"res.{i}.{j}" for i in range(6) for j in (0, 1)]
    layers += ["expand.0", "expand.1", "expand.2"]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.InstanceNorm2d)]
    tensors: State = {}
    for layer, convolution, norm in zip(layers, convolutions, norms, strict=True):
        tensors[f"{layer}.w"] = convolution.weight.data
        for part, values in (("gamma", norm.weight), ("beta", norm.bias)):
            tensors[f"{layer}.norm.{part}"] = torch.zeros(26, len(values))
            tensors[f"{layer}.norm.{part}"][style] = values.data
    assert same(model, published.style26(weight_files.of_onnx(tensors), style))


# ---- Architectures ----


def test_upconv7_doubles_any_size():
    assert networks.UpConv7()(torch.rand(2, 3, 5, 8)).shape == (2, 3, 10, 16)


def test_upconv7_needs_no_more_than_its_margin():
    """The pixel in the middle of the output depends on a window of 15 input pixels, not on more."""
    model = networks.UpConv7().double()
    x = torch.rand(1, 3, 31, 31, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0, 0, 30, 30], x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 0 < rows.min() >= 15 - 7 and rows.max() <= 15 + 7


def test_hed_keeps_odd_sizes_and_gives_probabilities():
    with torch.no_grad():
        y = networks.HED()(torch.rand(1, 3, 33, 47) * 255 - 100)
        # Keras pools with "same": the last row and column of an odd size count.
        pooled = networks.HED().blocks[1](torch.rand(1, 64, 33, 47))
    assert y.shape == (1, 1, 33, 47) and pooled.shape == (1, 128, 17, 24)
    assert y.min() >= 0 and y.max() <= 1


def test_hed_has_the_size_of_the_published_network():
    with torch.device("meta"):
        model = networks.HED()
    assert sum(p.numel() for p in model.parameters()) == 14_716_171


def test_style_transfer_keeps_the_shape():
    y = networks.StyleTransfer()(torch.rand(1, 3, 36, 20))
    assert y.shape == (1, 3, 36, 20)
    assert y.min() > 0 and y.max() < 1


# ---- Formats ----


def test_torch_state_does_not_execute_code():
    class Evil:
        def __reduce__(self):
            return pytest.fail, ("code of the file was executed",)

    for data in (pickle.dumps(Evil(), protocol=2), weight_files.of_torch({"weight": Evil()})):
        with pytest.raises(ValueError, match=r"no file of tensors that torch\.save wrote"):
            formats.torch_state(data)


@pytest.mark.parametrize("data", [b"", b"some words\n", b"PK\x03\x04 half an archive"])
def test_torch_state_refuses_what_is_no_such_file(data: bytes):
    with pytest.raises(ValueError, match=r"no file of tensors that torch\.save wrote"):
        formats.torch_state(data)


def test_torch_state_refuses_other_things_than_tensors():
    with pytest.raises(ValueError, match="no tensors by name: its keys are epoch"):
        formats.torch_state(weight_files.of_torch({"epoch": 3}))


def test_keras_arrays_refuses_what_is_no_such_file():
    with pytest.raises(ValueError, match="no whole HDF5 file"):
        formats.keras_arrays(b"some words")


SHAPES = [(2, 3, 3, 3), (5, 1, 1, 1)]
NCNN = weight_files.of_ncnn([(torch.ones(s), torch.ones(s[0])) for s in SHAPES])


def test_ncnn_layers_reads_padded_halves_and_whole_biases():
    weight, bias = torch.rand(5, 1, 1, 1).half().float(), torch.rand(5)
    data = weight_files.of_ncnn([(weight, bias)])
    assert len(data) == 4 + 12 + 20
    ((got, got_bias),) = formats.ncnn_layers(data, [(5, 1, 1, 1)])
    assert torch.equal(got, weight) and torch.equal(got_bias, bias)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NCNN[1:], "no float16 weights at byte 0"),
        (NCNN[:-1], "ends within its weights"),
        (NCNN[:40], "ends within its weights"),
        (NCNN + b"\0", "goes on after its 2 layers"),
        (b"", "no float16 weights at byte 0"),
    ],
)
def test_ncnn_layers_refuses_another_file(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        formats.ncnn_layers(data, SHAPES)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_onnx_tensors_reads_every_float_tensor(raw: bool):
    tensors = {"a.w": torch.rand(2, 300, 1), "b": torch.rand(3), "scalar": torch.tensor(2.5)}
    found = onnx_tensors(weight_files.of_onnx({**tensors, "sizes": torch.tensor([1, 2])}, raw))
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_onnx_tensors_agrees_with_the_onnx_package(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    array = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    tensor = onnx.numpy_helper.from_array(array, "weight")
    graph = onnx.helper.make_graph([], "graph", [], [], [tensor])
    data = onnx.helper.make_model(graph).SerializeToString()
    assert np.array_equal(onnx_tensors(data)["weight"].numpy(), array)


WHOLE = weight_files.of_onnx({"weight": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds float32 tensors"),
        (weight_files.of_onnx({"sizes": torch.tensor([1])}), "holds float32 tensors"),
        (WHOLE[:-1], "no whole ONNX file: it ends within a field"),
        (WHOLE[:1], "no whole ONNX file"),
        (b"some words", "no whole ONNX file"),
        (WHOLE.replace(b"\x0a\x02\x02\x03", b"\x0a\x02\x02\x04"), "24 bytes for the shape"),
    ],
)
def test_onnx_tensors_refuses_another_file(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        onnx_tensors(data)
