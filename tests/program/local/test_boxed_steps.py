"""Lines in boxes, against the whole matrix: every step, every place."""

import random
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from place import here
from torch import nn

import linscope_cuda as ls
from linscope_cuda.program.local import Local
from linscope_cuda.program.local.box import sizes
from linscope_cuda.program.local.colouring import Colouring

SIZES = {1: (23,), 2: (11, 12), 3: (7, 6, 5)}


def weights(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return here(torch.randn(shape, generator=generator, dtype=torch.float64))


class Between(nn.Module):
    """A function between two convolutions with a ReLU, where their channels allow."""

    def __init__(self, function, dims):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.first, self.last = conv(2, 4, 3, padding=1), conv(4, 2, 3, padding=1)
        self.function = function

    def forward(self, x):
        h = self.function(F.relu(self.first(x)))
        same = h.dim() == x.dim() and h.shape[1] == 4
        return self.last(h) if same else h


PICTURES = {
    "nothing": lambda h: h,
    "leaky": lambda h: F.leaky_relu(h - 0.2, 0.1),
    "prelu": lambda h: F.prelu(h - 0.3, weights(4)),
    "relu6": lambda h: F.relu6(9 * h),
    "silu": lambda h: F.silu(h),
    "gelu": lambda h: F.gelu(h),
    "abs": lambda h: (h - 0.1).abs(),
    "maximum": lambda h: torch.maximum(h, h.flip(2)),
    "constants": lambda h: h * weights(4, 1, 1) + weights(11, 12) * h,
    "zeros around": lambda h: F.pad(h, (1, 2, -1, 3)),
    "reflect": lambda h: F.pad(h, (1, 2, 3, 1), mode="reflect"),
    "replicate": lambda h: F.pad(h, (1, 2, 3, 1), mode="replicate"),
    "circular": lambda h: F.pad(h, (1, 2, 3, 1), mode="circular"),
    "roll": lambda h: h.roll((1, -2), (2, 3)),
    "flip": lambda h: h.flip(3),
    "crop": lambda h: h[:, :, 1:-1, ::2],
    "rows": lambda h: torch.stack([h[:, :, 3], h[:, :, 1], h[:, :, 7]], 2),
    "chosen": lambda h: h.index_select(3, torch.tensor([4, 1, 1, 9], device=h.device)),
    "average": lambda h: F.avg_pool2d(h, 3, 2, 1, ceil_mode=True),
    "average of some": lambda h: F.avg_pool2d(h, (2, 3), (2, 1), (1, 1), False, False, 5),
    "adaptive": lambda h: F.adaptive_avg_pool2d(h, (3, 5)),
    "max": lambda h: F.max_pool2d(h, 3, 2, 1, 1, True),
    "dilated max": lambda h: F.max_pool2d(h, (3, 2), 1, (1, 0), (2, 1)),
    "nearest": lambda h: F.interpolate(h, size=(13, 17)),
    "exact": lambda h: F.interpolate(h, size=(7, 17), mode="nearest-exact"),
    "bilinear": lambda h: F.interpolate(h, scale_factor=1.5, mode="bilinear"),
    "corners": lambda h: F.interpolate(h, size=(5, 21), mode="bilinear", align_corners=True),
    "bicubic": lambda h: F.interpolate(h, scale_factor=1.7, mode="bicubic"),
    "antialias": lambda h: F.interpolate(h, scale_factor=0.6, mode="bilinear", antialias=True),
    "larger": lambda h: F.pixel_shuffle(h, 2),
    "smaller": lambda h: F.pixel_unshuffle(h[..., :-1, :], 2),
    "channels": lambda h: F.channel_shuffle(h, 2),
    "parts": lambda h: torch.cat([h[:, :1].relu(), torch.ones_like(h[:, :2]), 2 * h[:, 2:3]], 1),
    "stack": lambda h: torch.stack([h, 2 * h.relu()], 2).flatten(1, 2),
    "moved": lambda h: h + F.pad(h, (2, 0, 0, 0))[..., :-2],
    "strided": lambda h: F.conv2d(h, weights(4, 4, 2, 2), stride=3),
    "grouped": lambda h: F.conv2d(h, weights(4, 1, 3, 2), stride=(2, 1), groups=4, dilation=(1, 3)),
    "half": lambda h: F.conv2d(h, weights(4, 2, 3, 3), padding=(2, 0), groups=2),
    "transposed": lambda h: F.conv_transpose2d(
        h, weights(4, 4, 3, 2), None, (2, 3), (1, 0), (1, 2), 1, (2, 1)
    ),
    "transposed groups": lambda h: F.conv_transpose2d(h, weights(4, 2, 3, 2), stride=2, groups=2),
    "norm": lambda h: F.instance_norm(h),
    "layer norm": lambda h: F.layer_norm(h.movedim(1, 3), (4,)).movedim(3, 1),
    "response norm": lambda h: F.local_response_norm(h, 3),
    "linear": lambda h: F.linear(h.movedim(1, 3), weights(4, 4)).movedim(3, 1),
    "adaptive max": lambda h: F.adaptive_max_pool2d(h, (5, 4)),
    "unpool": lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2),
    "row mean": lambda h: h + h.mean(3, keepdim=True),
    "mean": lambda h: h - h.mean((2, 3), keepdim=True),
    "sum": lambda h: h.sum(1, keepdim=True) * weights(1, 4, 1, 1),
    "flat": lambda h: h.flatten(1) @ weights(4 * 11 * 12, 5),
    "unfold": lambda h: F.fold(F.unfold(h, 3, padding=1), (11, 12), 3, padding=1),
    "in lines": lambda h: F.max_pool1d(h.flatten(2), 2, 2),
    "another shape": lambda h: h.transpose(1, 3).reshape(1, 12, -1),
    "attention": lambda h: F.scaled_dot_product_attention(*[h.flatten(2).mT] * 3),
}
SIGNALS = {
    "linear": lambda h: F.interpolate(h, scale_factor=2, mode="linear"),
    "nearest": lambda h: F.interpolate(h, size=17),
    "average": lambda h: F.avg_pool1d(h, 2),
    "max": lambda h: F.max_pool1d(h, 3, 2, 1),
    "adaptive": lambda h: F.adaptive_avg_pool1d(h, 5),
    "reflect": lambda h: F.pad(h, (2, 3), mode="reflect"),
    "replicate": lambda h: F.pad(h, (2, 3), mode="replicate"),
    "circular": lambda h: F.pad(h, (2, 3), mode="circular"),
    "transposed": lambda h: F.conv_transpose1d(h, weights(4, 4, 3), stride=2),
}
VOLUMES = {
    "trilinear": lambda h: F.interpolate(h, scale_factor=2, mode="trilinear"),
    "nearest": lambda h: F.interpolate(h, size=(7, 5, 8)),
    "average": lambda h: F.avg_pool3d(h, 2),
    "max": lambda h: F.max_pool3d(h, 2),
    "adaptive": lambda h: F.adaptive_avg_pool3d(h, (2, 3, 4)),
    "reflect": lambda h: F.pad(h, (1, 1, 1, 1, 1, 2), mode="reflect"),
    "replicate": lambda h: F.pad(h, (1, 1, 1, 1, 1, 1), mode="replicate"),
    "circular": lambda h: F.pad(h, (1, 1, 1, 1, 1, 1), mode="circular"),
    "transposed": lambda h: F.conv_transpose3d(h, weights(4, 4, 2, 2, 2), stride=2),
    "norm": lambda h: F.instance_norm(h),
}
CASES = [
    *((2, name, f, p) for name, f in PICTURES.items() for p in ("paper", "taylor")),
    *((1, name, f, "paper") for name, f in SIGNALS.items()),
    *((3, name, f, "paper") for name, f in VOLUMES.items()),
]


def interpreter(function, dims, policy="paper", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = here(Between(function, dims).double().eval().requires_grad_(False))
    x0 = weights(1, 2, *SIZES[dims], seed=seed + 1)
    return ls.LinearInterpreter(model, x0, policy, check=False)


def dense(op):
    """F by full products of all unit vectors."""
    n = op.shape[1]
    units = torch.eye(n, dtype=op.dtype, device=op.device).reshape(n, *op.input_shape)
    return op.source.filter(units, 2**40).reshape(n, -1).T


def sides(op):
    """Both products as lines, with their matrices: (line, matrix, shape of probes, of answers)."""
    F = dense(op)
    return [
        (op.program.linear.line, F, op.input_shape, op.output_shape),
        (op.program.T.line, F.T, op.output_shape, op.input_shape),
    ]


def close(got, wanted, scale):
    assert (got - wanted).abs().max() <= 1e-14 * scale


@pytest.mark.parametrize(
    ("dims", "function", "policy"),
    [pytest.param(d, f, p, id=f"{d}-{name}-{p}") for d, name, f, p in CASES],
)
def test_every_box_holds_what_the_matrix_does(dims, function, policy):
    op = interpreter(function, dims, policy)
    rng = random.Random(0)
    for line, matrix, given, made in sides(op):
        local, alike = Local(line), {}
        for _ in range(8):
            place = tuple(rng.randrange(n) for n in given)
            width = [min(2, n - i) for i, n in zip(place[1:], given[1:], strict=True)]
            spread = rng.random() < 0.3
            box = ((0, 1), (0, given[0])) + tuple(
                (i, i + (w if spread else 1)) for i, w in zip(place[1:], width, strict=True)
            )
            plan = local.plan(box)
            alike.setdefault(plan.key, []).append(plan)
        scale = matrix.abs().max()
        for plans in alike.values():
            size = sizes(plans[0].given)[1:]
            x = torch.randn(len(plans), 3, *size, dtype=torch.float64, device=op.device)
            answers = local.run(plans, x) if plans[0].box else None
            for i, plan in enumerate(plans):
                probe = x.new_zeros(3, *given)
                probe[(slice(None), *[slice(*b) for b in plan.given[1:]])] = x[i]
                got = x.new_zeros(3, *made)
                if plan.box is not None:
                    got[(slice(None), *[slice(*b) for b in plan.box[1:]])] = answers[i]
                close(got.flatten(1), probe.flatten(1) @ matrix.T, scale * probe.abs().sum())


@pytest.mark.parametrize("name", PICTURES)
def test_colours_give_the_whole_matrix(name):
    op = interpreter(PICTURES[name], 2)
    for line, matrix, *_ in sides(op):
        colouring, like = Colouring(Local(line)), matrix[:0]
        got = torch.zeros_like(matrix)
        filled = torch.zeros_like(matrix, dtype=torch.int64)
        for part in colouring.columns(line_of_several(line), like):
            for c, values in enumerate(part.values):
                columns = part.columns + c * part.stride
                got[part.rows, columns] = values
                # Its number among the columns that a row may have.
                filled[part.rows, columns] = part.rank + 1
        close(got, matrix, matrix.abs().max())
        counts = colouring.counts.to(op.device)
        for channel in filled.chunk(colouring.channels, 1):
            for row, count in zip(channel, counts, strict=True):
                assert torch.equal(row[row > 0], torch.arange(1, count + 1, device=row.device))


def line_of_several(line):
    return lambda x: torch.cat([line(one) for one in x.split(1)])


def test_colours_are_as_many_as_the_field_has_places():
    """However large the picture."""
    for size in (20, 40):
        model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 3))
        op = ls.LinearInterpreter(model.eval(), torch.randn(1, 3, size, size + 3), check=False)
        columns = Colouring(Local(op.program.linear.line))
        assert len(columns) == 7 * 7 * 3
        assert len(Colouring(Local(op.program.T.line))) == 7 * 7 * 4


def around(t):
    """The smallest box around what is not zero."""
    at = t.nonzero()
    if not len(at):
        return ((0, 0),) * t.dim()
    return tuple(zip(at.amin(0).tolist(), (at.amax(0) + 1).tolist(), strict=True))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_support_is_exact_for_positive_weights(dims, seed):
    rng = random.Random(seed)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    layers, channels = [], [2, *(rng.choice([2, 4]) for _ in range(3))]
    for a, b in pairwise(channels):
        kernel = rng.choice([1, 2, 3])
        kind = rng.choice([conv, conv, transposed])
        stride = rng.randint(1, kernel)
        options = {"padding": rng.randint(0, kernel // 2), "groups": rng.choice([1, 2])}
        if kind is conv and stride == 1:
            options["dilation"] = rng.choice([1, 2])
        layers.append(kind(a, b, kernel, stride, bias=False, **options))
    model = here(nn.Sequential(*layers).double().eval())
    for weight in model.parameters():
        nn.init.uniform_(weight, 0.5, 1.5)
    x0 = weights(1, 2, *[n + 4 for n in SIZES[dims]])
    op = ls.LinearInterpreter(model, x0, check=False)
    matrix = dense(op)
    for name, of, answer in (
        ("columns", matrix.T, op.output_shape),
        ("rows", matrix, op.input_shape),
    ):
        for k in rng.sample(range(len(of)), min(12, len(of))):
            (box,) = op.support(**{name: [k]})
            assert box == around(of[k].reshape(answer))


def test_plans_at_equal_distances_from_the_border_run_together():
    op = interpreter(PICTURES["nothing"], 2)
    local = Local(op.program.linear.line)
    keys = {
        (i, j): local.plan(((0, 1), (0, 2), (i, i + 1), (j, j + 1))).key
        for i in range(11)
        for j in range(12)
    }
    assert len({keys[i, j] for i in range(2, 9) for j in range(2, 10)}) == 1
    assert len(set(keys.values())) == 5 * 5


@pytest.mark.parametrize(
    ("dims", "function", "most"),
    [
        (2, PICTURES["linear"], 5 * 5),
        (2, PICTURES["channels"], 5 * 5),
        (3, VOLUMES["max"], 27),
    ],
)
def test_places_in_a_row_stay_places(dims, function, most):
    op = interpreter(function, dims)
    middle = tuple(n // 2 for n in SIZES[dims])
    (box,) = op.support(columns=[(0, *middle)])
    assert torch.Size(sizes(box)[1:]).numel() <= most


def test_a_mean_reaches_everything_from_there_on_and_only_there():
    op = interpreter(PICTURES["mean"], 2)
    local = Local(op.program.linear.line)
    plan = local.plan(((0, 1), (0, 2), (5, 6), (6, 7)))
    boxes = [sizes(part.box) for part in plan.parts]
    assert boxes[0] == [1, 4, 3, 3] and boxes[-1] == [1, 2, 11, 12]


def test_long_signals_take_no_matrix():
    """100,000 samples: a matrix of one dimension would take 80 GB."""

    class Signal(nn.Module):
        def forward(self, x):
            h = F.relu(F.conv1d(F.pad(x, (4, 4), mode="reflect"), weights(2, 1, 5)))
            h = F.interpolate(h[..., 3:-2].roll(7, 2), scale_factor=2)
            return F.avg_pool1d(F.conv1d(h, weights(1, 2, 3)), 2)

    op = ls.LinearInterpreter(here(Signal().eval()), weights(1, 1, 100_000), check=False)
    k = 50_000
    [(box, values)] = op.boxes(columns=[k])
    unit = torch.zeros(1, 1, 100_000, dtype=torch.float64, device=op.device)
    unit[0, 0, k] = 1
    whole = op.program.linear(unit)[0]
    close(values, whole[tuple(slice(*b) for b in box)], whole.abs().max())
    assert (whole != 0).sum() == (values != 0).sum() > 3
    assert box[1][1] - box[1][0] < 20
