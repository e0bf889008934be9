"""What is said where F x0 and r do not look like y, on which scales they are shown, and numbers."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import report
from linscope_cuda.report import pictures
from linscope_cuda.report.digits import percent, significant
from linscope_cuda.report.explained import explained
from linscope_cuda.study.shown import shown
from linscope_cuda.zoo import Network
from linscope_cuda.zoo.preprocess import Preprocess


def normalising() -> Network:
    """The mean that its norm subtracts is large, and so is the constant it becomes."""
    torch.manual_seed(11)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)
    )
    with torch.no_grad():
        model[0].weight.abs_()
    return Network(model.eval(), Preprocess(divisor=255), None, "made for a test")


def tour(policy="paper", made=None, **options):
    image = ls.zoo.photo("cat").image
    return report.explore(
        made or normalising(), image, size=16, k=1, policy=policy, command="linscope it", **options
    )


def caption(found, name):
    return next(p.caption for p in report.gallery(found) if p.name == name)


def test_a_policy_is_named_that_was_measured_to_help():
    found = tour()
    assert found.residual_ratio > 1 and found.advice
    op = ls.LinearInterpreter(normalising().model, found.x0[None], found.advice.policy)
    ratio = (op.residual.norm() / op.output.norm()).item()
    assert found.advice.ratio == pytest.approx(ratio) and ratio < 0.9 * found.residual_ratio
    said = explained(found)
    assert f"Try --policy {found.advice.policy}" in said and percent(ratio) in said
    assert said in report.page(found, list(report.gallery(found)))
    low, high = shown(found.filtered, found.preprocess, 3).ends or (0, 0)
    values = found.filtered.flatten().sort().values
    assert low <= values[len(values) // 50] and high >= values[-len(values) // 50]
    assert "on a scale of its own, from " in caption(found, "filtered")


def test_no_policy_is_named_where_none_helps():
    layer = nn.Conv2d(3, 3, 1)
    made = Network(nn.Sequential(layer, nn.ReLU()).eval(), Preprocess(divisor=255), None, "made")
    negative = -torch.eye(3)[:, :, None, None]
    with torch.no_grad():
        layer.weight.copy_(negative), layer.bias.fill_(0.9)
    found = tour(made=made)
    assert found.residual_ratio > 1.05 and not found.advice
    assert "No other policy" in explained(found)
    with torch.no_grad():
        layer.weight.copy_(-negative), layer.bias.zero_()
    assert explained(tour(made=made)) == ""


def test_a_derivative_that_vanishes_along_the_input_is_explained():
    found = tour("taylor")
    assert found.filtered_ratio < 0.05
    assert "next to nothing" in explained(found) and "--policy centered" in explained(found)


def test_outputs_of_any_number_of_channels_are_drawn():
    for channels, said in ((1, "from "), (5, "the mean over 5 channels")):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Softplus())
        found = tour(made=Network(model.eval(), Preprocess(divisor=255), None, "made"))
        assert said in caption(found, "output")
        assert found.row.probe[0] == channels // 2


def test_colours_are_kept_where_they_show_the_values():
    within = torch.rand(3, 20, 20)
    assert shown(within, Preprocess(), 3).ends == (
        pytest.approx(0, abs=0.1),
        pytest.approx(1, abs=0.1),
    )
    kept = shown(within, Preprocess(divisor=255, order="BGR"), 3)
    assert kept.ends is None and torch.equal(kept.picture, within.flip(0))
    wide = shown(40 * within - 20, Preprocess(divisor=255), 3)
    assert wide.ends and wide.ends[0] < -19 and wide.ends[1] > 19
    assert 0.4 < wide.picture.clamp(0, 1).mean() < 0.6


def test_a_row_covers_the_photo_where_it_is_large():
    values = torch.zeros(16, 16)
    values[3, 4], values[8, 9] = 2.0, -2.0
    drawn = pictures.over(torch.full((3, 16, 16), 0.5), values, "", "")
    png = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    zoom = pictures.SIDE // 16
    left, top = pictures._LEFT, pictures._TOP + pictures._TITLE
    middle = [png[top + i * zoom + zoom // 2, left + j * zoom + zoom // 2] for i, j in
              ((3, 4), (8, 9), (0, 0))]  # fmt: skip
    red, blue, ground = middle
    assert red[0] > red[2] + 80 and blue[2] > blue[0] + 80
    assert np.ptp(ground) <= 2 and 150 < ground[0] < 230


def test_the_foot_names_the_command_and_links_to_the_paper():
    found = tour()
    page = report.page(found, list(report.gallery(found)))
    assert "by <code>linscope it</code>" in page
    assert '<a href="https://arxiv.org/abs/1908.05168">' in page


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0000123, 4, "1.230e-05"), (32.1234, 4, "32.12"), (-0.04, 3, "-0.0400"), (0.0, 3, "0"),
        (1234567.0, 3, "1.23e+06"), (999.96, 4, "1000.0"), (math.inf, 3, "inf"),
        (5e-324, 3, "4.94e-324"),
    ],
)  # fmt: skip
def test_significant_digits(value, digits, text):
    assert significant(value, digits) == text


@pytest.mark.parametrize("value", np.geomspace(1e-9, 1e5, 29))
def test_no_number_is_shown_as_a_zero(value):
    assert float(significant(value, 3)) == pytest.approx(value, rel=6e-3)
    assert float(percent(value).removesuffix(" %")) == pytest.approx(100 * value, rel=6e-2)
