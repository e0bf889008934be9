"""timm's classifiers: by name, from the Hub's cache alone. They want timm, as .ci/run has it."""

from pathlib import Path

import pytest
import torch
from weight_files import random_

import linscope_cuda as ls
from linscope_cuda import cli, zoo

timm = pytest.importorskip("timm")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache of the Hub; gives a function that puts a network's weights there."""
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def put(name: str, state) -> Path:
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text("abc")
        file = folder / "snapshots/abc/model.safetensors"
        file.parent.mkdir(parents=True)
        save_file(state, file)
        return file

    return put


def test_weights_are_those_in_the_cache(cache):
    assert zoo.weights_of("timm/resnet18") == "not downloaded"
    with pytest.raises(zoo.FetchError, match=r"timm/resnet18 has no"):
        zoo.load("timm/resnet18")
    state = random_(timm.create_model("resnet18", pretrained=False)).state_dict()
    cache("resnet18", state)
    assert zoo.weights_of("timm/resnet18") == "cached"
    network = zoo.load("timm/resnet18")
    found = network.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert not network.model.training and network.classes[285] == "Egyptian cat"
    assert "a1_in1k" in network.source and "apache-2.0" in network.source


def test_the_preprocessing_is_timms_own(cache):
    from timm.data import create_transform, resolve_data_config

    picture = zoo.photo("cat").image
    for name in ("resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224"):
        network = zoo.load(f"timm/{name}-random")
        transform = create_transform(**resolve_data_config({}, model=network.model))
        found, want = network.preprocess(picture), transform(picture)[None]
        assert found.shape == want.shape and (found - want).abs().max() < 0.03


def test_a_damaged_file_is_refused(cache):
    cache("resnet18", {}).write_bytes(b"nothing")
    with pytest.raises(zoo.FetchError, match="does not hold the weights of timm's resnet18"):
        zoo.load("timm/resnet18")


def test_it_is_its_linear_system():
    network = zoo.load("timm/mobilenetv3_small_100-random")
    op = ls.LinearInterpreter(network.model, network.preprocess(zoo.photo("cat").image))
    assert torch.allclose(op(op.x0), op.output, atol=1e-4)


@pytest.mark.parametrize("name", ["timm/nothing", "timm/nothing-random", "timm/resnet18.nothing"])
def test_unknown_names(name, capsys):
    with pytest.raises(ValueError, match="timm has no model"):
        zoo.load(name)
    assert cli.main(["certify", "--model", name]) == 2
    assert "timm has no model" in capsys.readouterr().err
