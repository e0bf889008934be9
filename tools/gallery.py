"""Makes every picture of README.md and docs/: runs the commands of the table and places what they
draw in docs/pictures.

python tools/gallery.py                  # all
python tools/gallery.py --only fields    # the pictures of one command, or of several
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Entry:
    """A command, and the pictures taken from it: name in docs/pictures -> file that it writes."""

    command: str
    pictures: dict[str, str]


# Photos are scikit-image's, which may be shown here; ImageNet's may not.
GALLERY = {
    "tour": Entry(
        "linscope tour",
        {
            f"{name}.png": f"pictures/{name}.png"
            for name in (
                *("input", "output", "residual", "row-close", "column-close"),
                *("triplet-1-input", "triplet-1-output"),
            )
        },
    ),
    "ledger": Entry(
        "linscope ledger --photos imagenet20 --fgsm 2 8",
        {"ledger-squeezenet.png": "ledger.png", "fgsm-squeezenet.png": "ledger-fgsm-8.png"},
    ),
    "inside": Entry(
        "linscope ledger --image cat --of features.9",
        {"ledger-inside.png": "ledger.png"},
    ),
    "inside-control": Entry(
        "linscope ledger --model torchvision/squeezenet1_1-random --image cat --size 227 "
        "--fit stretch --of features.9",
        {"ledger-inside-random.png": "ledger.png"},
    ),
    "batch-norm": Entry(
        "linscope ledger --photos imagenet20 --model efficientnet_lite0",
        {"ledger-efficientnet.png": "ledger.png"},
    ),
    "votes": Entry(
        "linscope votes --image cat",
        {"votes-squeezenet.png": "votes.png"},
    ),
    "convergence": Entry(
        "linscope svd --compare -k 3",
        {"convergence.png": "convergence.png"},
    ),
    "super-resolution": Entry(
        "linscope svd --model upconv7_photo -k 10",
        {"svd-upconv7.png": "triplets.png"},
    ),
    "two-networks": Entry(
        "linscope svd --model pixelshuffle4_x3 --model upconv7_photo -k 2",
        {"svd-two-networks.png": "triplets.png"},
    ),
    "fields": Entry(
        "linscope fields --pixel 20,22",
        {"fields-pixelshuffle4.png": "fields.png"},
    ),
    "zoo-fields": Entry(
        "linscope fields --model pixelshuffle4_x3 --model upconv7_photo --model style26 --size 192",
        {"fields-zoo.png": "fields.png"},
    ),
    "cyclegan-fields": Entry(
        "linscope fields --model cyclegan_vintage --size 128 --pixel 55,60 "
        "--policy paper --policy centered --policy taylor",
        {"fields-cyclegan.png": "fields.png"},
    ),
    "cyclegan-svd": Entry(
        "linscope svd --model cyclegan_vintage --size 64 -k 2 "
        "--policy paper --policy centered --policy taylor",
        {"svd-cyclegan.png": "triplets.png"},
    ),
    "cyclegan-rows": Entry(
        "linscope sweep --model cyclegan_vintage --size 128 --stride 16 --no-values "
        "--policy taylor",
        {"rows-cyclegan.png": "rows.png"},
    ),
    "all-rows": Entry(
        "linscope sweep --model upconv7_photo --size 32 --no-values",
        {"rows-upconv7.png": "rows.png"},
    ),
    "controls": Entry(
        "linscope controls",
        {"controls-squeezenet.png": "controls.png"},
    ),
    "region": Entry(
        "linscope region",
        {"region-pixelshuffle4.png": "region.png"},
    ),
    "region-classifier": Entry(
        "linscope region --model squeezenet1_1",
        {"region-squeezenet.png": "region.png"},
    ),
    "region-measured": Entry(
        "linscope region --model cyclegan_vintage --policy taylor",
        {"region-cyclegan.png": "region.png"},
    ),
}


def small(png: bytes) -> bytes:
    """The picture in 256 colours; ValueError if it takes more than `MOST_BYTES` even so."""
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    buffer = io.BytesIO()
    # Of Pillow's palettes the one whose worst colour is nearest: a map's rare blues stay blue.
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    palette.save(buffer, "png", optimize=True)
    if buffer.tell() > MOST_BYTES:
        raise ValueError(f"a picture of {picture.size} takes {buffer.tell()} bytes, too many")
    return buffer.getvalue()


def make(entry: Entry, folder: Path) -> None:
    """Runs the command in `folder`, then places its pictures; each is the old one or the new."""
    from linscope_cuda import cli

    log = io.StringIO()
    with contextlib.redirect_stdout(log):
        code = cli.main([*shlex.split(entry.command)[1:], "--out", str(folder)])
    if code:
        raise SystemExit(f"gallery: {entry.command!r} ended with {code}")
    drawn = {name: small((folder / file).read_bytes()) for name, file in entry.pictures.items()}
    PICTURES.mkdir(exist_ok=True)
    for name, png in drawn.items():
        aside = PICTURES / f".{name}.part"
        aside.write_bytes(png)
        os.replace(aside, PICTURES / name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="gallery", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GALLERY, metavar="NAME", default=[*GALLERY])
    chosen = parser.parse_args().only
    sys.path.insert(0, str(ROOT))
    with tqdm(chosen, bar_format="{n}/{total} {desc} {elapsed}") as bar:
        for name in bar:
            bar.set_description_str(GALLERY[name].command)
            with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
                make(GALLERY[name], Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
