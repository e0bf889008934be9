"""ls.fields against the rows and columns of a dense F, radii and masses against plain loops."""

import math

import pytest
import torch
from networks import Gated, build, example
from torch import nn

import linscope_cuda as ls
from linscope_cuda.study.fields import counterpart, distances, reach


class Enlarging(nn.Module):
    """Twice as high, three times as wide."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 3, (2, 3), stride=(2, 3))

    def forward(self, x):
        return self.up(torch.relu(self.conv(x)))


@pytest.fixture
def op():
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randn(1, 2, 6, 5, generator=generator, dtype=torch.float64)
    return ls.LinearInterpreter(build(Enlarging), x0)


def rows_and_columns(op):
    """F as (C, H, W, c, h, w)."""
    return op.todense().reshape(*op.output_shape, *op.input_shape)


def test_each_channel_is_a_row_and_a_column(op):
    F = rows_and_columns(op)
    found = ls.fields(op, (2, 3), channels="each")
    # The centre of input pixel (2, 3) lies between output pixels 4 and 5, and in column 10.
    assert found.receptive.pixel == (5, 10) and found.projective.pixel == (2, 3)
    torch.testing.assert_close(found.receptive.values, F[:, 5, 10])
    torch.testing.assert_close(found.projective.values, F[..., 2, 3].movedim(-1, 0))
    torch.testing.assert_close(found.receptive.energy, F[:, 5, 10].square().sum(1))


def test_sum_probes_all_channels_at_once_and_a_list_some(op):
    F = rows_and_columns(op)
    found = ls.fields(op, (5, 10), at="output")
    assert found.projective.pixel == (2, 3)
    torch.testing.assert_close(found.receptive.values, F[:, 5, 10].sum(0, keepdim=True))
    torch.testing.assert_close(found.projective.values, F[..., 2, 3].sum(-1)[None])
    some = ls.fields(op, (2, 3), channels=[1, 0])
    torch.testing.assert_close(some.receptive.values, F[[1, 0], 5, 10])


def plain_reach(op, field, share, within):
    """The definition, in loops."""
    shape = field.energy.shape[1:]
    unit = [a / b for a, b in zip(shape, op.input_shape[1:], strict=True)]
    results = []
    for energy in field.energy:
        listed = []
        for i in range(shape[0]):
            for j in range(shape[1]):
                down, right = (i - field.centre[0]) / unit[0], (j - field.centre[1]) / unit[1]
                listed.append((math.hypot(down, right), energy[i, j].item()))
        total = sum(e for _, e in listed)
        radius = min(
            d for d, _ in listed if sum(e for near, e in listed if near <= d) >= share * total
        )
        results.append((radius, sum(e for d, e in listed if d > within) / total))
    return torch.tensor(results, dtype=torch.float64).T


@pytest.mark.parametrize("end", ["receptive", "projective"])
@pytest.mark.parametrize("pixel", [(0, 0), (2, 3), (5, 4)])
def test_radius_and_mass_away_are_their_definitions(op, end, pixel):
    field = getattr(ls.fields(op, pixel, channels="each", share=0.8, within=0.7), end)
    radius, away = plain_reach(op, field, 0.8, 0.7)
    torch.testing.assert_close(field.radius, radius)
    torch.testing.assert_close(field.away, away)
    assert ((away > 0) & (away < 1)).all() and field.within == 0.7


def test_corresponding_centres_lie_at_the_same_place(op):
    assert counterpart(op, "projective", (0, 0)) == (0.5, 1.0)
    assert counterpart(op, "receptive", (0, 1)) == (-0.25, 0.0)
    assert distances(op, "projective", (0, 0))[0, 1] == 0.25  # half an output row up
    assert distances(op, "receptive", (0, 1))[0, 2] == math.hypot(0.25, 2)


def test_identity_lies_on_the_diagonal():
    op = ls.MatrixOperator(torch.eye(18, dtype=torch.float64), (2, 3, 3), (2, 3, 3))
    found = ls.fields(op, (1, 2), channels="each", within=0)
    for field in (found.receptive, found.projective):
        assert field.radius.tolist() == field.away.tolist() == [0, 0]


def test_a_copy_from_elsewhere_lies_away_from_it():
    F = torch.eye(25, dtype=torch.float64)
    F[12, 0] = 2.0  # output (2, 2) also takes from (0, 0), four times the energy
    found = ls.fields(ls.MatrixOperator(F, (1, 5, 5), (1, 5, 5)), (2, 2), within=1)
    assert found.receptive.away.item() == pytest.approx(0.8)
    assert found.receptive.radius.item() == pytest.approx(math.sqrt(8))
    assert found.projective.away.item() == 0


def test_nothing_has_no_radius():
    op = ls.MatrixOperator(torch.zeros(9, 9), (1, 3, 3), (1, 3, 3))
    found = ls.fields(op, (0, 0)).receptive
    assert found.radius.isnan().all() and found.away.isnan().all()


def test_all_of_the_energy_ends_where_the_field_does():
    energy = torch.tensor([[[0.0, 3.0, 1e-300, 0.0]]])
    distance = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    assert reach(energy.double(), distance, 1.0, 5.0)[0].item() == 1.0  # 1e-300 is lost in 3
    assert reach(energy.double().clamp(max=1), distance, 0.5, 5.0)[0].item() == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel": (6, 0)}, "pixel 6,0 lies outside the 6 x 5 input"),
        ({"pixel": (0, -6)}, "pixel 0,-6 lies outside the 6 x 5 input"),
        ({"channels": [-4]}, "list of 0 ... 2"),
        ({"pixel": (12, 0), "at": "output"}, "outside the 12 x 15 output"),
        ({"at": "middle"}, 'at wants "input" or "output", was given \'middle\''),
        ({"channels": "all"}, 'channels wants "sum", "each"'),
        ({"channels": [3]}, "channels wants"),
        ({"share": 0}, "share wants"),
        ({"share": 1.1}, "share wants"),
        ({"within": -1}, "within wants"),
        ({"within": math.nan}, "within wants"),
    ],
)
def test_wrong_arguments_cost_no_pass(op, options, message):
    before = op.passes
    with pytest.raises(ValueError, match=message):
        ls.fields(op, **{"pixel": (0, 0), **options})
    assert op.passes == before


def test_a_network_without_pictures_is_refused():
    op = ls.LinearInterpreter(build(Gated), example(Gated))
    with pytest.raises(ValueError, match=r"makes \(4,\) of \(6,\)"):
        ls.fields(op, (0, 0))


def test_a_network_tells_its_theoretical_field():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 2, 2, 2)
    )
    op = ls.LinearInterpreter(model.eval(), torch.randn(1, 3, 12, 13), check=False)
    for channels in ("sum", "each", [1]):
        found = ls.fields(op, (5, 6), channels=channels)
        assert found.receptive.support == ((4, 7), (5, 8))  # of the output pixel 11, 13
        assert found.projective.support == ((8, 14), (10, 16))
    assert (
        ls.fields(ls.MatrixOperator(torch.eye(9), (1, 3, 3), (1, 3, 3)), (1, 1)).receptive.support
        is None
    )


@pytest.mark.parametrize("at", ["input", "output"])
def test_negative_pixels_and_channels_count_from_the_end(at, op):
    shape = op.input_shape if at == "input" else op.output_shape
    pixel = shape[1] - 2, shape[2] - 1
    want, got = ls.fields(op, pixel, at, [1]), ls.fields(op, (-2, -1), at, [-1])
    for end in ("receptive", "projective"):
        one, other = getattr(want, end), getattr(got, end)
        assert one.pixel == other.pixel and one.centre == other.centre
    torch.testing.assert_close(got.projective.values, want.projective.values)
    output_pixel = got.receptive.pixel
    torch.testing.assert_close(got.receptive.values, op.rows([(2, *output_pixel)]))
