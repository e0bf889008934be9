"""`linscope fields`, `linscope sweep` and `linscope svd`: what they write, print and refuse."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import in_zoo, network, refused, tiny
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.cli.terminal import with_bars
from linscope_cuda.report.panels import Panel, sheet
from linscope_cuda.zoo import Network

ROOT = Path(__file__).parents[2]
SWEEP = sys.modules["linscope_cuda.study.sweep"]  # ls.sweep is the function


def edges() -> Network:
    torch.manual_seed(6)
    return network(nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU()))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, tiny=tiny, edges=edges)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


QUICK = ["--model", "tiny", "--size", "16", "--dtype", "float64"]


def operator(policy="paper"):
    made, cat = tiny(), ls.zoo.photo("cat").image
    square = cat.resize((16, 16), Image.Resampling.BICUBIC, box=(75.5, 0, 375.5, 300))
    x0 = made.preprocess(square).double()
    return ls.LinearInterpreter(made.model.double(), x0, policy)


def run(capsys, *arguments):
    assert cli.main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size


# ---- fields ----


@pytest.mark.parametrize("command", [["fields", "--pixel", "4,9"], ["svd", "-k", "1"]])
def test_an_output_of_zeros(here, capsys, monkeypatch, command):
    def black() -> Network:
        picture = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU())
        for p in picture.parameters():
            nn.init.constant_(p, -1)
        return network(picture)

    in_zoo(monkeypatch, black=black)
    assert cli.main([*command, "--model", "black", "--size", "16"]) == 0
    assert "y = 0" in capsys.readouterr().out


def test_fields_by_three_policies(here, capsys):
    policies = ["paper", "centered", "taylor"]
    chosen = [option for policy in policies for option in ("--policy", policy)]
    found = run(capsys, "fields", *QUICK, *chosen, "--pixel", "4,9", "--json", "--within", "4")
    assert [one["system"] for one in found["systems"]] == [f"tiny, {p}" for p in policies]
    for one, policy in zip(found["systems"], policies, strict=True):
        field = ls.fields(operator(policy), (4, 9), within=4)
        for kind in ("receptive", "projective"):
            expected = getattr(field, kind)
            assert one[kind]["probe"] == list(expected.pixel)
            assert one[kind]["energy"] == pytest.approx(expected.energy.sum().item())
            assert one[kind]["away"] == pytest.approx(expected.away.item(), abs=1e-12)
            assert one[kind]["radius"] == pytest.approx(expected.radius.item())
            assert one[kind]["support"] == [list(ends) for ends in expected.support]
    away = [one["receptive"]["away"] for one in found["systems"]]
    assert away[0] == 0 < away[1]  # with its mean frozen the network is local
    wide, high = size_of(here / found["picture"])
    assert wide > 6 * 400 and high > 3 * 400
    assert sorted(p.name for p in here.iterdir()) == ["linscope-fields", "note.txt"]


def test_fields_at_an_output_pixel_and_of_one_channel(capsys):
    options = ["--at", "output", "--pixel", "31,2", "--channel", "1"]
    found = run(capsys, "fields", *QUICK, *options, "--json", "--out", "new")
    row = operator().rows([(1, 31, 2)])
    one = found["systems"][0]
    assert one["receptive"]["energy"] == pytest.approx(row.square().sum().item())
    assert one["projective"]["probe"] == [15, 1]


def test_fields_choose_a_pixel_and_say_what_they_found(capsys):
    assert cli.main(["fields", *QUICK, "--out", "new"]) == 0
    out = capsys.readouterr().out
    assert "tiny on chelsea: |r| / |y| =" in out and "90% of the energy within" in out
    assert "the network lets through" in out
    assert out.rstrip().endswith(f"picture: {os.path.join('new', 'fields.png')}")


def test_a_network_of_one_output_channel(capsys):
    found = run(capsys, "fields", "--model", "edges", "--size", "16", "--json")
    assert found["systems"][0]["output_shape"] == [1, 16, 16]


# ---- sweep ----


def test_sweep_and_going_on(here, capsys, monkeypatch):
    pytest.importorskip("zarr")
    options = ["sweep", *QUICK, "--kind", "columns", "--stride", "5", "--no-values", "--json"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(SWEEP, "_SUMMARY_BLOCK", 4)
    monkeypatch.setenv("RANK", "1")
    first = run(capsys, *options)
    assert not first["complete"] and first["picture"] is None
    assert first["blocks_done"] == 1 and first["blocks"] == 3
    assert [p.name for p in (here / "linscope-sweep").iterdir()] == ["columns.zarr"]
    monkeypatch.setenv("RANK", "0")
    found = run(capsys, *options)
    assert found["complete"] and found["pixels"] == 9
    places = [(c, i, j) for i in (2, 7, 12) for j in (2, 7, 12) for c in range(3)]
    energy = operator().columns(places).square().sum().item()
    assert found["energy"] == pytest.approx(energy)
    assert min(size_of(here / found["picture"])) > 3 * 300


def test_sweep_prints_where_it_is(capsys):
    pytest.importorskip("zarr")
    assert cli.main(["sweep", *QUICK, "--stride", "8"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 blocks are in linscope-sweep" in out and "rows.png" in out
    assert "linscope: 16 pixels, " in err and "about 1 second\n" in err  # told beforehand
    assert cli.main(["sweep", *QUICK, "--stride", "8"]) == 0
    assert "about" not in capsys.readouterr().err  # nothing is left


def test_a_killed_command_goes_on(here, capsys):
    pytest.importorskip("zarr")
    code = """
        import os, pathlib, signal, sys
        sys.path.insert(0, TESTS)
        from commands import cli, tiny, weights
        sys.modules["linscope_cuda.study.sweep"]._SUMMARY_BLOCK = 4
        weights.NETWORKS["tiny"] = tiny
        rename = pathlib.Path.replace
        def once(self, target):
            if "/energy/c/2" in str(target):
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)
        pathlib.Path.replace = once
        cli.main(sys.argv[1:])
    """
    options = ["sweep", *QUICK, "--stride", "8", "--no-values", "--json"]
    text = "\n".join(line[8:] for line in code.splitlines())
    text = text.replace("TESTS", repr(str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", text, *options], env=environment)
    assert done.returncode == -9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SWEEP, "_SUMMARY_BLOCK", 4)
        found = run(capsys, *options)
    assert found["complete"] and found["blocks"] == 4
    assert not list(here.rglob("*.partial"))


# ---- svd ----


def test_svd_equals_a_dense_one(here, capsys):
    found = run(capsys, "svd", *QUICK, "-k", "3", "--compare", "--json", "--out", "new")
    one = found["systems"][0]
    sigmas = torch.linalg.svdvals(operator().todense())
    for i, (sigma, error) in enumerate(zip(one["sigma"], one["error"], strict=True)):
        assert abs(sigma - sigmas[i].item()) <= error + 1e-12
    assert [type(proven) for proven in one["proven"]] == [bool] * 3
    assert one["converged"] and list(one["passes"]) == ["lanczos", "paper", "paper-literal"]
    shares = (sigmas[:3].square().cumsum(0) / sigmas.square().sum()).tolist()
    assert one["energy_shares"] == pytest.approx(shares, rel=0.2)
    names = ["convergence.png", "energy.png", "sigma.png", "triplets.png"]
    assert found["files"] == names == sorted(p.name for p in (here / "new").iterdir())
    for name in names:
        assert min(size_of(here / "new" / name)) > 400


def test_svd_for_certain(here, capsys):
    plain, sure = (
        run(capsys, "svd", *QUICK, "-k", "3", "--json", "--out", f"new{len(more)}", *more)
        for more in ([], ["--certain"])
    )
    assert not plain["systems"][0]["certain"] and not all(plain["systems"][0]["proven"])
    (found,) = sure["systems"]
    assert found["certain"] and all(found["proven"])
    sigmas = torch.linalg.svdvals(operator().todense())[:3].tolist()
    for sigma, true, error in zip(found["sigma"], sigmas, found["error"], strict=True):
        assert abs(sigma - true) <= error


def test_svd_s_text_marks_estimates():
    hidden = " (est.: right unless a value hid from the search)"
    assert with_bars([5.0, 4.0], [1e-6, 2e-5], [True, True]) == "5 +- 1e-06, 4 +- 2e-05"
    text = with_bars([5.0, 4.0], [1e-6, 2e-5], [True, False])
    assert text == f"5 +- 1e-06, 4 +- 2e-05 est.{hidden}"


def test_two_networks_side_by_side(here, capsys):
    models = ["--model", "tiny", "--model", "edges"]
    assert cli.main(["svd", *models, "--size", "16", "-k", "1", "--out", "new"]) == 0
    out = capsys.readouterr().out
    assert "tiny on chelsea" in out and "edges on chelsea" in out
    assert sorted(p.name for p in (here / "new").iterdir()) == [
        "energy-1.png", "energy-2.png", "sigma-1.png", "sigma-2.png", "triplets.png",
    ]  # fmt: skip
    one = run(capsys, "svd", *QUICK, "-k", "1", "--json", "--out", "one")
    two = size_of(here / "new" / "triplets.png")
    single = size_of(here / "one" / one["files"][-1])
    assert two[0] == single[0] and two[1] > 1.8 * single[1]


def test_a_checkpoint_is_gone_on_with(here, capsys):
    options = ["svd", *QUICK, "-k", "2", "--checkpoint", "state", "--json"]
    first, again = run(capsys, *options), run(capsys, *options)
    assert first["systems"][0]["sigma"] == again["systems"][0]["sigma"]
    assert (here / "state").is_file()
    assert cli.main(["svd", *QUICK, "-k", "3", "--checkpoint", "state", "--out", "new"]) == 2
    assert "is of another call: its k is 2, 3 is wanted" in capsys.readouterr().err
    assert not (here / "new").exists()


# ---- what is refused ----

BAD = {
    "second model unknown": (["svd", "--model", "nope"], "there is no network 'nope'"),
    "pixel outside the output": (
        ["fields", "--at", "output", "--pixel", "32,0"],
        "outside the 32 x 32 output",
    ),
    "channel": (["fields", "--channel", "3"], "channels wants"),
    "share": (["fields", "--share", "0"], "share wants"),
    "within": (["sweep", "--within", "-2"], "within wants 0 pixels or more"),
    "stride": (["sweep", "--stride", "0"], "stride wants 1 or more, was given 0"),
    "k too small": (["svd", "-k", "0"], "k wants 1 ... 16 triplets, was given 0"),
    "k too large": (["svd", "-k", "17"], "was given 17"),
    "two states": (
        ["svd", "--policy", "paper", "--policy", "taylor", "--checkpoint", "state"],
        "several were given",
    ),
    "no checkpoint": (["svd", "--checkpoint", "note.txt"], "checkpoint 'note.txt' is damaged"),
    "checkpoint in a file": (["svd", "--checkpoint", "note.txt/a"], "checkpoint wants a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_of_a_command_s_own(case, here, capsys):
    (command, *options), message = BAD[case]
    assert message in refused([command, *QUICK, *options], here, capsys)


def test_another_sweep_in_the_same_place_is_refused(here, capsys):
    pytest.importorskip("zarr")
    assert cli.main(["sweep", *QUICK, "--stride", "16"]) == 0
    before = {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}
    assert cli.main(["sweep", *QUICK, "--stride", "16", "--policy", "centered"]) == 2
    assert "is of another operator" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}


def test_without_zarr(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert cli.main(["sweep", *QUICK]) == 2
    assert "pip install 'linscope_cuda[sweep]'" in capsys.readouterr().err


@pytest.mark.parametrize("module", [cli.fields, cli.svd])
def test_ctrl_c_leaves_nothing(module, here, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish", interrupt)
    command = module.COMMAND.name
    assert cli.main([command, *QUICK, *(["-k", "1"] if command == "svd" else [])]) == 130
    assert [p.name for p in here.iterdir()] == ["note.txt"]


# ---- sheets ----


def pixels(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


def test_signed_maps_are_white_at_zero_blue_below_and_red_above():
    picture = pixels(sheet([[Panel(torch.tensor([[-2.0, 0.0, 1.0]]), "", "signed")]], ""))
    line = [picture.getpixel((x, 76 + 50 + 66)) for x in range(96 + 3, 96 + 397)]
    (r, _, b), (white, *_), (red, _, blue) = line[60], line[200], line[330]
    assert b > 2 * r and white > 240 and red > 2 * blue


def test_energy_maps_take_zeros_and_what_is_not_done():
    energy = torch.zeros(4, 4, dtype=torch.float64)
    sheet([[Panel(energy, "", "energy")]], "nothing")
    energy[0, 0], energy[1, 1] = 3.0, float("nan")
    sheet([[Panel(energy, "", "energy"), None], [None, Panel(energy, "", "positive")]], "some")


def test_sheets_draw_pixels_as_squares_of_one_colour():
    values = torch.tensor([[0.0, 1.0]]).repeat(150, 75)
    picture = pixels(sheet([[Panel(values, "", "positive")]], ""))
    line = {picture.getpixel((x, 76 + 50 + 200)) for x in range(96 + 5, 96 + 395)}
    assert len(line) == 2


def test_a_sheet_is_as_large_as_its_panels():
    one = Panel(torch.rand(3, 10, 20), "a")
    single, double = pixels(sheet([[one]], "")), pixels(sheet([[one, one], [None, one]], ""))
    assert double.width > 1.8 * single.width and double.height > 1.7 * single.height
