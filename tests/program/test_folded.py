"""Scales of channels go into the convolution before them, where nobody else reads it."""

import pytest
import torch
import torch.nn.functional as F
from lines import columns, traced

import linscope_cuda.operators.functions as ops
from linscope_cuda.program import Program
from linscope_cuda.program.folded import folded

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


WEIGHT, GROUPED = random(6, 4, 2, 2), random(6, 2, 2, 2)
LINE, TURNED = random(6, 4, 2), random(4, 6, 2, 2)
SCALE, MEAN, VARIANCE, OTHER = random(6), random(6), random(6) ** 2 + 0.1, random(6)
PICTURE, ROW = (1, 4, 3, 4), (1, 4, 5)
ON = random(*PICTURE)  # what decides


def norm(h):
    return F.batch_norm(h, MEAN, VARIANCE, SCALE, OTHER)


def read_twice(x):
    h = F.conv2d(x, WEIGHT)
    return norm(h) + h


def wide_norm(x):
    return F.batch_norm(x, MEAN[:4], VARIANCE[:4], SCALE[:4], OTHER[:4])


def rectified(h):
    return ops.relu_frozen(h, ops.relu_scope(ON[:, :, : h.shape[2], : h.shape[3]].contiguous())[1])


def pooled(x):
    _, winners = ops.max_pool2d_scope(ON, 1, 2, 1)
    return F.conv2d(ops.max_pool2d_frozen(rectified(wide_norm(x)), winners, 2, 1), WEIGHT)


def next_read_twice(h):
    return F.conv2d(h, WEIGHT) + h[:, :1, 1:, 1:]


def scaled_twice(x):
    return norm(norm(F.conv2d(x, WEIGHT, OTHER)))


# A function, its input's shape, and how many convolutions and scales it is left with.
CASES = {
    "a norm": (PICTURE, lambda x: norm(F.conv2d(x, WEIGHT)), 1, 0),
    "a bias and a norm": (PICTURE, lambda x: norm(F.conv2d(x, WEIGHT, OTHER, 2, 1)), 1, 0),
    "of a row": (ROW, lambda x: norm(F.conv1d(x, LINE)), 1, 0),
    "in groups": (PICTURE, lambda x: norm(F.conv2d(x, GROUPED, groups=2)), 1, 0),
    "transposed": (PICTURE, lambda x: norm(F.conv_transpose2d(x, TURNED, None, 2)), 1, 0),
    "transposed in groups": (
        PICTURE,
        lambda x: norm(F.conv_transpose2d(x, TURNED[:, :3], groups=2)),
        1,
        1,
    ),
    "two norms": (PICTURE, scaled_twice, 1, 0),
    "a scale by hand": (PICTURE, lambda x: F.conv2d(x, WEIGHT) * SCALE.view(6, 1, 1), 1, 0),
    "a scale of pixels": (PICTURE, lambda x: F.conv2d(x, WEIGHT) * SCALE[:3], 1, 1),
    "a scale of some pixels": (PICTURE, lambda x: F.conv2d(x, WEIGHT) * SCALE[:2, None], 1, 1),
    "a number": (PICTURE, lambda x: F.conv2d(x, WEIGHT) * 3, 1, 1),
    "read twice": (PICTURE, read_twice, 1, 1),
    "into the next": (PICTURE, lambda x: F.conv2d(rectified(wide_norm(x)), WEIGHT), 1, 0),
    "into the next, past a pool": (PICTURE, pooled, 1, 0),
    "into the next, transposed": (
        PICTURE,
        lambda x: F.conv_transpose2d(wide_norm(x), TURNED, groups=2),
        1,
        0,
    ),
    "into the next, in groups": (
        PICTURE,
        lambda x: F.conv2d(wide_norm(x), GROUPED, groups=2),
        1,
        1,
    ),
    "into none, read twice": (PICTURE, lambda x: next_read_twice(wide_norm(x)), 1, 1),
    "into none, read twice later": (
        PICTURE,
        lambda x: next_read_twice(rectified(wide_norm(x))),
        1,
        1,
    ),
    "into none, added": (PICTURE, lambda x: F.conv2d(wide_norm(x) + x, WEIGHT), 1, 1),
    "a norm of a norm into the next": (
        PICTURE,
        lambda x: F.conv2d(rectified(wide_norm(wide_norm(x))), WEIGHT),
        1,
        0,
    ),
    "two convolutions": (
        PICTURE,
        lambda x: norm(F.conv2d(norm(F.conv2d(x, WEIGHT))[:, :4], WEIGHT)),
        2,
        0,
    ),
}


def count(line, name):
    return sum(s.function.overloadpacket == getattr(torch.ops.aten, name) for s in line.steps)


@pytest.mark.parametrize("name", CASES)
def test_a_scale_is_folded_into_the_weights(name):
    shape, function, convolutions, scales = CASES[name]
    x = random(*shape)
    line, _ = traced(function, x)
    weights = [t.clone() for t in line.constants()]
    plain, fold = Program(line), Program(line, fold=True)
    assert count(fold.linear.line, "convolution") == convolutions
    assert count(fold.linear.line, "mul") == scales
    want = columns(plain.linear, shape)
    torch.testing.assert_close(columns(fold.linear, shape), want, rtol=1e-13, atol=1e-13)
    y = fold.linear(x)
    torch.testing.assert_close(columns(fold.T, y.shape), want.T, rtol=1e-13, atol=1e-13)
    xs = torch.cat([x, 2 * x, random(*shape)])
    torch.testing.assert_close(fold.linear(xs), plain.linear(xs), rtol=1e-13, atol=1e-13)
    assert torch.equal(fold(x), plain(x))  # F x + r is left as it is
    assert all(map(torch.equal, line.constants(), weights))


def test_a_convolution_that_is_the_answer_stays():
    line, _ = traced(lambda x: F.conv2d(x, WEIGHT), random(*PICTURE))
    assert len(folded(line).steps) == 1


def test_weights_are_rounded_once():
    x, w, scale = random(*ROW).float(), LINE.float(), SCALE.float()
    line, _ = traced(lambda x: F.conv1d(x, w) * scale.view(6, 1), x)
    (step,) = folded(line).steps
    assert torch.equal(step.args[1], (w.double() * scale.double().view(6, 1, 1)).float())
