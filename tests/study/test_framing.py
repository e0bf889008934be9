"""Which part of a photo becomes x0: against Pillow's own operations, and what is said of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from linscope_cuda.report import BadInput
from linscope_cuda.study.framing import FITS, cropped, own
from linscope_cuda.zoo import Network
from linscope_cuda.zoo.preprocess import Preprocess

SHAPES = [(451, 300), (97, 311), (64, 64), (300, 20)]


def network(**preprocess) -> Network:
    return Network(nn.Identity(), Preprocess(divisor=255, **preprocess), None, "made for a test")


def photo(width, height):
    drawn = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


def tensor(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("own_size", [None, (40, 40)])
def test_each_way_is_what_pillow_makes(shape, own_size):
    image, made = photo(*shape), network(size=own_size)
    width, height = shape
    side = min(shape)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    scale = 32 / side
    due = {
        "cut": image.resize((32, 32), Image.Resampling.BICUBIC, box=box),
        "stretch": image.resize((32, 32), Image.Resampling.BICUBIC),
        "whole": image.resize((round(width * scale), round(height * scale)), 3),
    }
    for name, fit in FITS.items():
        torch.testing.assert_close(fit(made, image, 32).x0, tensor(due[name]))


@pytest.mark.parametrize(
    ("fit", "shape", "words"),
    [
        ("cut", (451, 300), "the centred 300 x 300 of 451 x 300 pixels, as 32 x 32"),
        ("cut", (64, 64), "all of 64 x 64 pixels, as 32 x 32"),
        ("stretch", (300, 20), "all of 300 x 20 pixels, stretched to 32 x 32"),
        ("whole", (97, 311), "all of 97 x 311 pixels, as 32 x 103"),
    ],
)
def test_what_is_said_of_it(fit, shape, words):
    assert FITS[fit](network(), photo(*shape), 32).words == words


def test_the_network_s_own_preprocessing_is_named_for_what_it_does():
    image = photo(200, 100)
    assert own(network(size=(30, 30)), image, None).words.endswith("stretched to 30 x 30")
    cut = own(network(size=(28, 28), crop=0.875), image, None)
    assert cut.words == "the centred 88 x 88 of 200 x 100 pixels, as 28 x 28"


def test_a_crop_is_that_part():
    image = photo(90, 50)
    part = cropped(image, (10, 20, 30, 25))
    assert np.array_equal(np.asarray(part), np.asarray(image)[20:45, 10:40])
    assert cropped(image, None) is image


@pytest.mark.parametrize("crop", [(61, 0, 30, 20), (0, -1, 30, 20), (0, 0, 7, 20), (0, 31, 9, 20)])
def test_a_crop_outside_is_refused(crop):
    with pytest.raises(BadInput, match="inside of the photo"):
        cropped(photo(90, 50), crop)


def test_a_panorama_too_long_is_refused():
    message = "the whole photo, 300 x 8, is 1200 x 32 pixels at size 32, and 1024 is the most"
    with pytest.raises(BadInput, match=message):
        FITS["whole"](network(), photo(300, 8), 32)
