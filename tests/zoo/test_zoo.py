"""The zoo: fetching and its failures, photos, architectures, and the networks' quality."""

import dataclasses
import errno
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
import weight_files
from PIL import Image
from torch import nn

from linscope_cuda import zoo
from linscope_cuda.zoo import fetch, networks, published, trained, weights
from linscope_cuda.zoo.images import to_rgb
from linscope_cuda.zoo.network import imagenet_classes
from linscope_cuda.zoo.preprocess import Preprocess

MEMBER = "made_up/weights.bin"
WHEEL_FILE = "made_up-1.0-py3-none-any.whl"


def make_wheel(
    path: Path, requires: str = ">=3", member: str = MEMBER, content: bytes = b"forty-two"
) -> fetch.Wheel:
    info = "made_up-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Python: {requires}\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel_of(path)


def wheel_of(path: Path) -> fetch.Wheel:
    return fetch.Wheel("made-up", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LINSCOPE_CACHE", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder that stands for the package index, holding one made-up wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder / WHEEL_FILE)
    return folder


class FakePip:
    """Takes the place of subprocess.run: copies what the folder `index` holds, and counts."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self.calls: list[list[str]] = []
        self.environment: dict[str, str] = {}
        self.failure: Exception | None = None
        self.stderr = ""

    def __call__(
        self, command: list[str], env: dict[str, str], **_: object
    ) -> subprocess.CompletedProcess:
        self.calls.append(command)
        self.environment = env
        if self.failure is not None:
            raise self.failure
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        target = Path(command[command.index("--dest") + 1])
        for path in self.index.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, index: Path) -> FakePip:
    fake = FakePip(index)
    monkeypatch.setattr(fetch.subprocess, "run", fake)
    return fake


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_fetch_asks_pip_once_and_then_reads_the_cache(cache: Path, index: Path, pip: FakePip):
    wheel = wheel_of(index / WHEEL_FILE)
    assert wheel.read(MEMBER) == b"forty-two"
    assert left_in(cache) == [WHEEL_FILE]
    pip.failure = AssertionError("pip must not run again")
    assert wheel.read(MEMBER) == b"forty-two"
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "made-up==1.0"} <= set(command)
    # The user's own configuration decides where packages come from.
    assert not [word for word in command if "index" in word or "://" in word]


def test_fetch_resumes_as_often_as_the_user_says(
    cache: Path, index: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PIP_RESUME_RETRIES", raising=False)
    wheel = wheel_of(index / WHEEL_FILE)
    wheel.fetch()
    assert int(pip.environment["PIP_RESUME_RETRIES"]) > 0
    assert pip.environment["PATH"] == os.environ["PATH"]
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    wheel.path.unlink()
    wheel.fetch()
    assert pip.environment["PIP_RESUME_RETRIES"] == "0"


def test_fetch_refuses_a_wrong_digest_and_leaves_nothing(cache: Path, index: Path, pip: FakePip):
    wanted = "0" * 64
    with pytest.raises(zoo.FetchError, match=f"refused: its SHA-256 is .*{wanted} is wanted"):
        fetch.Wheel("made-up", "1.0", WHEEL_FILE, wanted).fetch()
    assert len(pip.calls) == 1
    assert left_in(cache) == []


def test_fetch_replaces_a_damaged_file_in_the_cache(cache: Path, index: Path, pip: FakePip):
    wheel = wheel_of(index / WHEEL_FILE)
    cache.mkdir()
    (cache / WHEEL_FILE).write_bytes((index / WHEEL_FILE).read_bytes()[:-10])
    assert wheel.read(MEMBER) == b"forty-two"
    assert len(pip.calls) == 1
    assert left_in(cache) == [WHEEL_FILE]


def test_fetch_refuses_another_file_than_the_pinned_one(cache: Path, index: Path, pip: FakePip):
    wheel = wheel_of(index / WHEEL_FILE)
    (index / WHEEL_FILE).rename(index / "made_up-1.0.tar.gz")
    with pytest.raises(zoo.FetchError, match=r"left \['made_up-1.0.tar.gz'\]"):
        wheel.fetch()
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("WARNING: retrying\nERROR: No matching distribution\nWARNING: old pip\n", "within reach"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space", "No space"),
    ],
)
def test_fetch_says_what_pip_said(
    cache: Path, index: Path, pip: FakePip, stderr: str, message: str
):
    pip.stderr = stderr
    with pytest.raises(zoo.FetchError, match=f"could not download made-up==1.0: .*{message}") as e:
        wheel_of(index / WHEEL_FILE).fetch()
    assert "\n" not in str(e.value)
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (subprocess.TimeoutExpired("pip", 900), "did not download made-up==1.0 within"),
        (FileNotFoundError("no such interpreter"), "could not be run .*no such interpreter"),
    ],
)
def test_fetch_says_that_pip_did_not_run(
    cache: Path, index: Path, pip: FakePip, failure: Exception, message: str
):
    pip.failure = failure
    with pytest.raises(zoo.FetchError, match=message):
        wheel_of(index / WHEEL_FILE).fetch()
    assert left_in(cache) == []


def test_fetch_says_that_the_disk_is_full(
    cache: Path, index: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
):
    def full(**options: object) -> None:
        assert options["dir"] == cache, "the last step must be a rename within one file system"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(zoo.FetchError, match=r"LINSCOPE_CACHE chooses another.*No space left"):
        wheel_of(index / WHEEL_FILE).fetch()


def test_fetch_says_that_the_cache_is_no_folder(cache: Path, index: Path, pip: FakePip):
    cache.write_text("a file")
    with pytest.raises(zoo.FetchError, match=f"cache folder {cache} "):
        wheel_of(index / WHEEL_FILE).fetch()
    assert pip.calls == []


def test_two_fetches_at_once_give_one_whole_file(
    cache: Path, index: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
):
    both_downloaded = threading.Barrier(2, timeout=60)

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        done = pip(command, **options)
        both_downloaded.wait()
        return done

    monkeypatch.setattr(fetch.subprocess, "run", run)
    wheel = wheel_of(index / WHEEL_FILE)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: wheel.read(MEMBER), range(2))) == [b"forty-two"] * 2
    assert left_in(cache) == [WHEEL_FILE]


def test_read_refuses_what_is_no_archive(cache: Path, index: Path, pip: FakePip):
    (index / WHEEL_FILE).write_bytes(b"not a zip file")
    with pytest.raises(zoo.FetchError, match=f"{WHEEL_FILE} is not an archive that holds {MEMBER}"):
        wheel_of(index / WHEEL_FILE).read(MEMBER)


def test_read_refuses_a_missing_member(cache: Path, index: Path, pip: FakePip):
    with pytest.raises(zoo.FetchError, match=r"is not an archive that holds other\.bin"):
        wheel_of(index / WHEEL_FILE).read("other.bin")


def test_pip_itself_fetches_from_the_index_of_the_user(
    cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    wheel = wheel_of(index / WHEEL_FILE)
    assert wheel.read(MEMBER) == b"forty-two"
    assert left_in(cache) == [WHEEL_FILE]
    missing = fetch.Wheel("made-up", "2.0", WHEEL_FILE.replace("1.0", "2.0"), wheel.sha256)
    with pytest.raises(zoo.FetchError, match=r"could not download made-up==2\.0: No matching"):
        missing.fetch()
    assert left_in(cache) == [WHEEL_FILE]


@pytest.mark.parametrize(
    ("file", "requires"),
    [("made_up-1.0-cp36-none-win_arm64.whl", ">=3"), ("made_up-1.0-py3-none-any.whl", "<3.7")],
)
def test_pip_fetches_a_wheel_of_another_machine_or_python(
    cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch, file: str, requires: str
):
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    (index / WHEEL_FILE).unlink()
    wheel = make_wheel(index / file, requires)
    assert wheel.read(MEMBER) == b"forty-two"


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LINSCOPE_CACHE", "~/mine")
    assert fetch.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("LINSCOPE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch.cache_folder() == tmp_path / "xdg" / "linscope_cuda"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert fetch.cache_folder() == tmp_path / ".cache" / "linscope_cuda"


def test_skimage_photos_are_rgb_and_named():
    photos = zoo.photos("skimage")
    names = [photo.name for photo in photos]
    assert {"astronaut", "chelsea", "coffee", "rocket"} <= set(names)
    assert len(set(names)) == len(names)
    assert {photo.image.mode for photo in photos} == {"RGB"}
    assert {photo.label for photo in photos} == {None}


def test_cat_is_chelsea():
    cat, chelsea = zoo.photo("cat"), zoo.photo("chelsea")
    assert cat.name == "chelsea" and cat.image.size == (451, 300)
    assert cat.image.tobytes() == chelsea.image.tobytes()


def test_photos_refuses_an_unknown_set():
    with pytest.raises(ValueError, match="no photos 'flickr'; the sets are skimage, imagenet20"):
        zoo.photos("flickr")


def test_photo_applies_the_orientation_of_the_camera(tmp_path: Path):
    image = Image.new("RGB", (3, 2), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    photo = zoo.photo(tmp_path / "turned.png")
    assert photo.image.size == (2, 3)
    assert photo.image.getpixel((1, 0)) == (255, 0, 0)
    assert (photo.label, photo.name) == (None, "turned")


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 3)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (1, 1), (0, 51)), (204, 204, 204)),
        (Image.new("L", (1, 1), 7), (7, 7, 7)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (palette_with_transparency(), (10, 20, 30)),
        (Image.fromarray(np.full((1, 1), 250 * 257, np.uint16)), (250, 250, 250)),
        (Image.fromarray(np.full((1, 1), 250 * 257, np.int32)), (250, 250, 250)),
        (Image.fromarray(np.full((1, 1), 0.2, np.float32)), (51, 51, 51)),
        (Image.fromarray(np.full((1, 1), 51, np.float32)), (51, 51, 51)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_to_rgb_keeps_the_visible_colour(image: Image.Image, pixel: tuple[int, int, int]):
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert rgb.getpixel((0, 0)) == pixel


def test_photo_reads_sixteen_bit_and_palette_files(tmp_path: Path):
    Image.fromarray(np.full((2, 2), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert zoo.photo(str(tmp_path / "deep.png")).image.getpixel((0, 0)) == (255, 255, 255)
    palette_with_transparency().save(tmp_path / "palette.gif")
    assert zoo.photo(str(tmp_path / "palette.gif")).image.getpixel((0, 0)) == (10, 20, 30)


def test_photo_says_that_there_is_no_such_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png' is neither .* \(cat, astronaut"):
        zoo.photo(tmp_path / "gone.png")
    # A path object is a path, whatever names the zoo has.
    with pytest.raises(FileNotFoundError, match="'cat' is neither"):
        zoo.photo(Path("cat"))


def test_photo_refuses_a_folder(tmp_path: Path):
    with pytest.raises(ValueError, match=f"'{tmp_path}' is a folder"):
        zoo.photo(tmp_path)


@pytest.mark.parametrize("content", [b"", b"some words\n"], ids=["empty", "text"])
def test_photo_refuses_a_file_that_is_no_image(tmp_path: Path, content: bytes):
    (tmp_path / "words.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"words.jpg' is not an image that Pillow can read"):
        zoo.photo(tmp_path / "words.jpg")


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp"])
def test_photo_refuses_a_truncated_image(tmp_path: Path, extension: str):
    path = tmp_path / f"half.{extension}"
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"half.{extension}' is not a whole image"):
        zoo.photo(path)


def test_preprocess_orders_scales_and_shifts():
    image = Image.new("RGB", (5, 4), (10, 20, 30))
    x = Preprocess(size=(2, 3), order="BGR", divisor=2, offset=(1.0, 2.0, 3.0))(image)
    assert x.shape == (1, 3, 2, 3) and x.dtype == torch.float32
    assert x[0, :, 1, 2].tolist() == [14.0, 8.0, 2.0]


def test_preprocess_keeps_the_picture_upright():
    image = Image.new("RGB", (3, 2), "black")
    image.putpixel((2, 0), (0, 255, 0))
    x = Preprocess(divisor=255)(image)
    assert x.nonzero().tolist() == [[0, 1, 0, 2]]


def test_preprocess_says_what_it_is():
    assert repr(zoo.load("cyclegan-random").preprocess) == (
        "Preprocess: RGB in [-1, 1], at the picture's own size"
    )
    unit = Preprocess(divisor=255)
    assert repr(unit) == "Preprocess: RGB in [0, 1], at the picture's own size"
    squeezenet = Preprocess(size=(227, 227), order="BGR", offset=(103.939, 116.779, 123.68))
    assert repr(squeezenet) == (
        "Preprocess: BGR in [0, 255] minus (103.939, 116.779, 123.68), "
        "stretched to 227 x 227 (bicubic)"
    )


def test_preprocess_refuses_an_unknown_order():
    with pytest.raises(ValueError, match="not 'rgb'"):
        Preprocess(order="rgb")


def test_preprocess_takes_pictures_only():
    with pytest.raises(TypeError, match="takes a PIL image, not ndarray"):
        Preprocess()(np.zeros((2, 2, 3)))  # type: ignore[arg-type]


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_squeezenet_has_the_keys_and_shapes_of_torchvision():
    fires = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
    fires |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
    shapes = {"features.0": (64, 3, 3, 3), "classifier.1": (1000, 512, 1, 1)}
    for k, (inputs, squeeze, expand) in fires.items():
        shapes[f"features.{k}.squeeze"] = (squeeze, inputs, 1, 1)
        shapes[f"features.{k}.expand1x1"] = (expand, squeeze, 1, 1)
        shapes[f"features.{k}.expand3x3"] = (expand, squeeze, 3, 3)
    state = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    model = networks.SqueezeNet()
    model.load_state_dict(state)
    assert parameter_count(model) == 1_235_496


def test_squeezenet_computes_what_torchvision_does():
    models = pytest.importorskip("torchvision.models")
    theirs = models.squeezenet1_1().eval()
    ours = networks.SqueezeNet().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 70, 65, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("scale", "keys"),
    [(2, {"tail.0.0"}), (3, {"tail.0.0"}), (4, {"tail.0.0", "tail.0.2"})],
)
def test_edsr_has_the_keys_of_its_authors(scale: int, keys: set[str]):
    model = networks.EDSR(blocks=2, features=8, scale=scale)
    expected = keys | {"sub_mean", "head.0", "body.2", "tail.1", "add_mean"}
    expected |= {f"body.{block}.body.{layer}" for block in (0, 1) for layer in (0, 2)}
    assert {key.rpartition(".")[0] for key in model.state_dict()} == expected
    assert model(torch.zeros(1, 3, 5, 6)).shape == (1, 3, 5 * scale, 6 * scale)


def test_edsr_has_the_size_of_the_published_models():
    with torch.device("meta"):
        assert parameter_count(networks.EDSR.baseline(scale=2)) == 1_369_859
        assert parameter_count(networks.EDSR()) == 43_089_923


def test_edsr_scales_its_residuals_and_shifts_the_mean_back():
    model = networks.EDSR(blocks=1, features=4, scale=2, residual_scale=0.5).eval()
    block = model.body[0]
    assert isinstance(block, networks.EDSRBlock)
    x = torch.randn(1, 4, 5, 5)
    assert torch.allclose(block(x), x + 0.5 * block.body(x))
    picture = torch.rand(1, 3, 4, 4) * 255
    assert torch.allclose(model.add_mean(model.sub_mean(picture)), picture, atol=1e-4)
    mean = torch.tensor(networks.DIV2K_MEAN) * 255
    assert torch.allclose(model.sub_mean(mean.view(1, 3, 1, 1)), torch.zeros(1), atol=1e-4)


def test_edsr_refuses_a_scale_nobody_published():
    with pytest.raises(ValueError, match="3 or a power of two from 2 on, not 6"):
        networks.EDSR(blocks=1, features=4, scale=6)


@pytest.mark.parametrize("affine", [False, True])
def test_cyclegan_has_the_keys_of_its_authors(affine: bool):
    with torch.device("meta"):
        model = networks.CycleGAN(affine=affine)
        default = networks.CycleGAN()
    convolutions = {f"model.{k}" for k in (1, 4, 7, 19, 22, 26)}
    convolutions |= {f"model.{k}.conv_block.{j}" for k in range(10, 19) for j in (1, 5)}
    norms = {f"model.{k}" for k in (2, 5, 8, 20, 23)}
    norms |= {f"model.{k}.conv_block.{j}" for k in range(10, 19) for j in (2, 6)}
    expected = convolutions | norms if affine else convolutions
    assert {key.rpartition(".")[0] for key in model.state_dict()} == expected
    assert parameter_count(default) == 11_378_179


def test_cyclegan_keeps_the_shape_and_the_range():
    x = torch.rand(1, 3, 20, 24) * 2 - 1
    y = networks.CycleGAN(blocks=1, features=4)(x)
    assert y.shape == x.shape and y.abs().max() <= 1


@pytest.mark.parametrize(("scale", "channels"), [(3, 3), (2, 1)])
def test_pixelshuffle4_enlarges(scale: int, channels: int):
    model = networks.PixelShuffle4(scale, channels)
    assert model(torch.rand(2, channels, 5, 4)).shape == (2, channels, 5 * scale, 4 * scale)


def test_load_refuses_an_unknown_name():
    assert {"pixelshuffle4_x3", "squeezenet1_1"} <= set(zoo.names())
    with pytest.raises(ValueError, match=r"no network 'vgg'; the zoo has pixelshuffle4_x3, squee"):
        zoo.load("vgg")


RANDOM = [name for name in zoo.names() if name.endswith("-random")]


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "edsr_x4-random"])
def test_random_networks_repeat_and_leave_the_generator_alone(name: str):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = zoo.load(name)
    assert torch.equal(torch.rand(3), expected)
    second = zoo.load(name)
    assert "weights are random" in first.source
    assert not any(module.training for module in first.model.modules())
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    x = first.preprocess(zoo.photo("cat").image.resize((32, 24)))
    assert torch.isfinite(first.model(x)).all()


def test_imagenet_classes_are_in_order():
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert (classes[0], classes[285], classes[999]) == ("tench", "Egyptian cat", "toilet tissue")
    categories = pytest.importorskip("torchvision.models._meta")._IMAGENET_CATEGORIES
    assert classes == categories


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "outputs", "first", "last"),
    [(8, 3, 2, 4, 9, 4), (7, 3, 2, 4, 4, 4), (7, 5, 1, 7, 9, 9), (1, 5, 2, 1, 1, 1)],
)
def test_same_padding_is_that_of_tensorflow(size, kernel, stride, outputs, first, last):
    """First and last: how many pixels the windows in the two corners see."""
    layer = networks.SameConv2d(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    y = layer(torch.ones(1, 1, size, size))
    assert y.shape == (1, 1, outputs, outputs)
    assert (y[0, 0, 0, 0], y[0, 0, -1, -1]) == (first, last)


@pytest.mark.parametrize("style", ["26", "-1", "07", "monet"])
def test_style26_refuses_an_unknown_style(style: str):
    with pytest.raises(ValueError, match=f"style26 has the styles 0 ... 25, not '{style}'"):
        zoo.load(f"style26/{style}")


def test_every_trained_network_says_its_licence():
    for name, network in trained.TRAINED.items():
        assert "licence)." in network.source, name
        wheel = network.wheel
        assert f"{wheel.project} {wheel.version} " in network.source, name
        assert wheel.file.startswith(f"{wheel.project.replace('-', '_')}-{wheel.version}-"), name


def test_a_trained_network_is_fetched_once_and_then_offline(
    cache: Path, index: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
):
    model = weight_files.random_(networks.CycleGAN(affine=True))
    content = weight_files.of_torch(model.state_dict())
    entry = trained.TRAINED["cyclegan_vintage"]
    wheel = make_wheel(index / WHEEL_FILE, member=entry.member, content=content)
    monkeypatch.setitem(
        weights.NETWORKS, "cyclegan_vintage", dataclasses.replace(entry, wheel=wheel)
    )
    assert zoo.weights_of("cyclegan_vintage") == "not fetched yet"
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = zoo.load("cyclegan_vintage")
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers have moved"
    assert not first.model.training and first.source == entry.source
    assert all(torch.equal(v, first.model.state_dict()[k]) for k, v in model.state_dict().items())
    assert zoo.weights_of("cyclegan_vintage") == "cached"
    pip.failure = AssertionError("pip must not run again")
    zoo.load("cyclegan_vintage")


def test_weights_of_says_where_they_are(cache: Path):
    assert zoo.weights_of("pixelshuffle4_x3") == "bundled"
    assert zoo.weights_of("cyclegan-random") == "random"
    assert {zoo.weights_of(name) for name in trained.TRAINED} == {"not fetched yet"}
    cache.mkdir()
    trained.TRAINED["hed"].wheel.path.write_bytes(b"")
    assert zoo.weights_of("hed") == "cached"
    assert zoo.weights_of("squeezenet1_1") == "not fetched yet"
    with pytest.raises(ValueError, match="no network 'vgg'; the zoo has pixelshuffle4_x3"):
        zoo.weights_of("vgg")


def test_efficientnet_lite0_has_the_size_of_the_published_model():
    with torch.device("meta"):
        model = networks.EfficientNetLite0()
    assert parameter_count(model) == 4_652_008
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 49


def test_squeezenet_reads_every_layer_of_the_keras_file():
    layers = published._squeezenet_layers(networks.SqueezeNet())
    assert layers["features.3.squeeze"] == "fire2/squeeze1x1/fire2/squeeze1x1"
    assert layers["features.12.expand3x3"] == "fire9/expand3x3/fire9/expand3x3"
    assert len(layers) == len(set(layers.values())) == 26


def psnr(picture: np.ndarray, truth: np.ndarray, border: int) -> float:
    error = picture.astype(np.float64) - truth.astype(np.float64)
    error = error[border:-border, border:-border]
    return 10 * math.log10(255**2 / np.mean(error**2))


def enlarged_psnr(network: zoo.Network, photo: str, scale: int) -> tuple[float, float]:
    """PSNR of a photo shrunk and enlarged again: by the network, and by bicubic interpolation."""
    image = zoo.photo(photo).image
    image = image.crop((0, 0, image.width // scale * scale, image.height // scale * scale))
    size = image.width // scale, image.height // scale
    low = image.resize(size, Image.Resampling.BICUBIC)
    bicubic = low.resize(image.size, Image.Resampling.BICUBIC)
    with torch.no_grad():
        y = network.model(network.preprocess(low))[0].permute(1, 2, 0)
    enlarged, truth = y.mul(255).round().clamp(0, 255).numpy(), np.asarray(image)
    return psnr(enlarged, truth, border=scale), psnr(np.asarray(bicubic), truth, border=scale)


def training_record() -> dict:
    path = Path(weights.__file__).parent / "data" / "pixelshuffle4_x3.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["training"])


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_bundled_network_beats_bicubic_as_recorded(name: str, pip: FakePip):
    pip.failure = AssertionError("the bundled network needs no network access")
    network = zoo.load("pixelshuffle4_x3")
    assert network.classes is None and not network.model.training
    ours, theirs = enlarged_psnr(network, name, scale=3)
    figures = training_record()["held_out"][name]
    assert ours > theirs + 0.5
    assert ours == pytest.approx(figures["network_db"], abs=0.02)
    assert theirs == pytest.approx(figures["bicubic_db"], abs=0.02)


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "right"), [("squeezenet1_1", (13, 20)), ("efficientnet_lite0", (17, 20))]
)
def test_classifiers_recognise_the_imagenet_photos(name: str, right: tuple[int, int]):
    network = zoo.load(name)
    assert not network.model.training and network.classes is not None
    first, within_five = 0, 0
    for photo in zoo.photos("imagenet20"):
        with torch.no_grad():
            best = network.model(network.preprocess(photo.image))[0].topk(5).indices.tolist()
        first += best[0] == photo.label
        within_five += photo.label in best
    assert (first, within_five) == right
    scores = network.model(network.preprocess(zoo.photo("cat").image))
    assert network.classes[int(scores.argmax())] == "Egyptian cat"


@pytest.mark.network
@pytest.mark.parametrize(
    ("photo", "decibels"),
    [("cat", (35.1, 33.8)), ("astronaut", (33.8, 30.2)), ("coffee", (31.6, 29.1))],
)
def test_upconv7_beats_bicubic(photo: str, decibels: tuple[float, float]):
    found = enlarged_psnr(zoo.load("upconv7_photo"), photo, scale=2)
    assert found == pytest.approx(decibels, abs=0.05)


@pytest.mark.network
def test_hed_finds_the_edges_and_not_the_flat_parts():
    network = zoo.load("hed")
    image = Image.new("RGB", (64, 64), (200, 180, 160))
    image.paste((30, 60, 90), (0, 0, 32, 64))
    with torch.no_grad():
        edges = network.model(network.preprocess(image))[0, 0]
    assert edges[16:48, 30:34].amax(1).min() > 0.7
    assert edges[16:48, 8:20].max() < 0.2 and edges[16:48, 44:56].max() < 0.2


@pytest.mark.network
@pytest.mark.parametrize("photo", ["astronaut", "cat"])
def test_cyclegan_vintage_lifts_the_blacks_and_keeps_the_picture(photo: str):
    network = zoo.load("cyclegan_vintage")
    x = network.preprocess(zoo.photo(photo).image.resize((128, 128)))
    with torch.no_grad():
        y = network.model(x)
    assert y.quantile(0.01) > x.quantile(0.01) + 0.1
    assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] > 0.95


@pytest.mark.network
def test_style26_computes_what_onnxruntime_does():
    runtime = pytest.importorskip("onnxruntime")
    trained_ = trained.TRAINED["style26"]
    session = runtime.InferenceSession(
        trained_.wheel.read(trained_.member), providers=["CPUExecutionProvider"]
    )
    for style in range(26):
        network = zoo.load(f"style26/{style}")
        x = network.preprocess(zoo.photo("astronaut").image.resize((64, 64)))
        chosen = np.eye(26, dtype=np.float32)[style]
        (theirs,) = session.run(None, {"image": x.numpy(), "style_weights": chosen})
        with torch.no_grad():
            assert np.abs(network.model(x).numpy() - theirs).max() < 4e-5


@pytest.mark.network
def test_imagenet_photos_carry_their_labels():
    photos = zoo.photos("imagenet20")
    assert len(photos) == 20
    assert {photo.image.mode for photo in photos} == {"RGB"}
    assert (photos[0].name, photos[0].label) == ("imagenet_00_243", 243)
    assert zoo.photo("imagenet_15_99").label == 99
