"""The benchmarks run, compare equal things, and count what the paper counts."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from linscope_cuda.operators.table import OPERATORS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import page  # noqa: E402
from benchmarks.__main__ import BENCHMARKS  # noqa: E402


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the whole set leaves in its file, run quickly."""
    out = tmp_path_factory.mktemp("whole") / "quick.json"
    done = run("--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert not list(out.parent.glob("*.part"))
    return out


@pytest.fixture(scope="module")
def results(whole):
    return json.loads(whole.read_text())


def test_every_way_gives_the_same_products_and_table_1_is_the_papers(results):
    storage = {row["network"].split(",")[0]: row for row in results["storage"]}
    papers = [storage[n] for n in ("VGG-19", "CycleGAN-9", "EDSR 32x256 x4")]
    assert [row["as in Table 1 GB"] for row in papers] == [
        pytest.approx(v, abs=0.05) for v in (58.0, 90.1, 4147.2)
    ]
    tape = [row["tape MB"] * 1e6 / 2**20 for row in papers]
    assert tape[0] <= 3.4 and tape[1] <= 3.7 and tape[2] <= 128
    assert all(row["tape MB"] < row["autograd MB"] / 10 for row in results["storage"])
    ways = {name: {row["way"] for row in results[name]} for name in ("ways", "dfv")}
    assert {"plain", "tape", "doubled batch", "autograd", "torch.func.linearize"} <= ways["ways"]
    assert {"plain", "tape", "doubled batch", "DFV in memory", "DFV on disk"} == ways["dfv"]
    measured = {row["kernel"] for row in results["kernels"]}
    assert measured == {name for name, operator in OPERATORS.items() if not operator.in_place}


def test_peers_are_compared_on_every_network_and_where_it_is_smooth_for_both_freezes(results):
    from benchmarks.peers import NETWORKS, SMALLER

    rows = {(row["network"].split(",")[0], row["way"]): row for row in results["peers"]}
    expected = {(name.split(",")[0], "tape") for name in SMALLER}
    if not find_spec("torchvision"):
        expected.remove(("ShuffleNet v2 x0.5", "tape"))
    assert rows.keys() == expected | {("CycleGAN-1", "tape of Taylor")}
    for row in results["peers"]:
        assert row["differs by"] < 1e-4
        assert all(value > 0 for column, value in row.items() if "/" in column)
    new = "MobileNet v2, ShuffleNet v2 x0.5, DenseNet-121, ResNet-18, EfficientNet-B0"
    names = {name.split(",")[0] for name in NETWORKS}
    assert {*new.split(", "), "PixelShuffle-4 x3", "VGG-19", "SqueezeNet 1.1"} <= names


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_batch_norms_hand_signals_on(name):
    from benchmarks.networks import torchvision

    pytest.importorskip("torchvision", reason="the networks are its")
    model, x0 = torchvision(name, 64).make()
    sizes = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, y: sizes.append(float(y.std())))
    assert 0.1 < float(model(x0).std()) < 10 and not model.training
    assert len(sizes) > 40 and min(sizes) > 0.2 and max(sizes) < 5


def test_one_network_is_found_by_its_name():
    from benchmarks.networks import NoSuchNetwork, chosen
    from benchmarks.peers import NETWORKS

    assert list(chosen(NETWORKS, "mobilenet")) == ["MobileNet v2, 224x224"]
    assert chosen(NETWORKS, "") == NETWORKS
    with pytest.raises(NoSuchNetwork, match="'alexnet'; there are SqueezeNet"):
        chosen(NETWORKS, "alexnet")
    done = run("peers", "--quick", "--network", "pixelshuffle")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("24x24") == 1 and "SqueezeNet" not in done.stdout


def test_memory_and_scaling(results):
    assert {"tape", "DFV on disk", "autograd"} <= {row["way"] for row in results["memory"]}
    assert {row["probes"] for row in results["memory"]} == {1, 8}
    (fitting,) = results["fits"]
    pixels = [value for column, value in fitting.items() if "GB" in column]
    assert len(pixels) == 3 and pixels == sorted(pixels)
    assert {row["what"].split()[0] for row in results["scaling"]} == {
        "pixels",
        "probes",
        "threads",
        "triplets",
        "photos",
    }


def test_the_page_shows_every_benchmark_with_its_command_and_machine(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", whole.parent)
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(page, "PICTURES", tmp_path / "pictures")
    assert page.main() == 0
    text = (tmp_path / "benchmarks.md").read_text()
    results = json.loads(whole.read_text())
    # Without a browser there is nothing to say of the explorer, without a GPU of its calls.
    shown = sum(bool(results.get(name)) for name in BENCHMARKS)
    assert shown >= len(BENCHMARKS) - 2
    assert text.count(f"python -m benchmarks --quick --json {whole}") == shown
    assert text.count(results["machine"]["processor"]) == shown
    assert set(re.findall(r"\(pictures/(.*?)\)", text)) == {"ways-quick.png", "scaling-quick.png"}
    assert (tmp_path / "pictures" / "ways-quick.png").read_bytes().startswith(b"\x89PNG")
    for row in results["svd"]:
        assert f"| {row['network']} | {row['method']} | {row['samples']} |" in text
    for row in results["peers"]:
        line = rf"\| {row['network']} \| {row['way']} \|.* {row['differs by']:.3g} \|"
        assert re.search(line, text)
    assert "construction / forward | differs by |" in text and "| spread |" not in text
    tape = next(r for r in results["ways"] if r["way"] == "tape" and r["product"] == "transpose")
    line = [line for line in text.splitlines() if line.startswith("| tape |")][1]
    assert line.startswith(f"| tape | {tape['over plain']:.3g} |")


def test_without_results_there_is_no_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    assert page.main() == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.count("\n") == 1


def test_memory_is_that_of_a_fresh_process():
    from benchmarks.memory import in_a_fresh_process, reset, resident

    assert in_a_fresh_process(_takes, 100) - in_a_fresh_process(_takes, 0) >= 90e6
    before = resident()
    reset()
    assert resident("VmHWM") <= before + 50e6


def _takes(megabytes):
    from benchmarks.memory import reset, resident

    reset()
    before = resident()
    torch.ones(megabytes * 250_000)
    return resident("VmHWM") - before


def test_recorded_activations_give_the_same_filter():
    from networks import PIECEWISE, Gated, build, example

    import linscope_cuda as ls
    from benchmarks.dfv import DFV

    for kind in (*PIECEWISE, Gated):
        dfv, op = DFV(build(kind), example(kind)), ls.LinearInterpreter(build(kind), example(kind))
        torch.testing.assert_close(dfv.todense(), op.todense(), rtol=1e-10, atol=1e-13)
        assert dfv.dottest() < 1e-12
        assert dfv.nbytes > (8 if kind in PIECEWISE else 0) * op.tape.nbytes


def test_singular_values_and_what_they_cost(results):
    rows = {row["method"]: row for row in results["svd"]}
    ours = {"lanczos", "lanczos, certain", "paper", "paper-literal"}
    scipys = {"scipy svds", "scipy svds, loosest tol", "scipy svds, PROPACK"}
    torchs = {"torch.svd_lowrank", "torch.svd_lowrank, 32 iterations", "torch.lobpcg"}
    assert set(rows) == ours | scipys | torchs
    assert rows["lanczos"]["in sequence"] <= rows["paper"]["in sequence"] / 5
    assert rows["lanczos"]["samples"] < rows["paper"]["samples"]
    assert rows["lanczos"]["differs by"] <= 2e-6
    for peer in ("scipy svds", "scipy svds, PROPACK", "torch.svd_lowrank, 32 iterations"):
        assert rows[peer]["differs by"] <= 1e-5
    assert rows["torch.lobpcg"]["differs by"] <= 1e-4


def test_products_are_counted_alike_whoever_asks_for_them():
    from networks import Image, build, example

    import linscope_cuda as ls
    from benchmarks.as_tensor import AsTensor
    from benchmarks.svd import Counter

    op = ls.LinearInterpreter(build(Image), example(Image))
    counter = Counter(op, op.dtype)
    found = ls.svd(counter, 2, progress=False)
    assert (counter.samples, counter.batches) == (found.passes, found.sequential)
    counter.reset()
    torch.manual_seed(0)
    S = torch.svd_lowrank(AsTensor(counter), 4, 20)[1]
    assert counter.samples == 4 * counter.batches == 4 * (2 + 2 * 20)
    torch.testing.assert_close(S[:2], found.S, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "no benchmark 'speed'"),
        (
            ["storage", "--network", "VGG"],
            "--network is for peers, ways, dfv, memory, not",
        ),
        (["memory", "--network", "AlexNet"], "memory: no network is called 'AlexNet'"),
        (["storage", "--device", "gpu"], "there is no device 'gpu'"),
        (["storage", "--device", "meta"], "there is no device 'meta'"),
    ],
)
def test_bad_input(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run("kernels", "--device", "cuda")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "cuda cannot be used: torch" in done.stderr


@pytest.mark.cuda
def test_kernels_on_cuda():
    done = run("kernels", "--quick", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert "of a copy" in done.stdout and "times compiled" in done.stdout
