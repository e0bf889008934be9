"""Convolutions to few channels in blocks of pixels: the same function, in float32 on the CPU."""

import pytest
import torch
import torch.nn.functional as F
from lines import traced

from linscope_cuda.program import Program
from linscope_cuda.program.packed import packed

GENERATOR = torch.Generator().manual_seed(0)
aten = torch.ops.aten


def random(*shape):
    return torch.randn(shape, generator=GENERATOR)


# Channels, kernel, stride, padding, dilation, and the picture.
PLAIN = {
    "3x3": (3, (3, 3), 1, 1, 1, (40, 44)),
    "7x7, an odd picture": (3, (7, 7), 1, 3, 1, (39, 41)),
    "unpadded": (1, (5, 5), 1, 0, 1, (41, 40)),
    "5 by 3": (2, (5, 3), 1, (1, 2), 1, (40, 44)),
    "much padded": (3, (3, 3), 1, 4, 1, (40, 37)),
    "by 2": (3, (5, 5), 2, 1, 1, (81, 84)),
}
TRANSPOSED = {
    "3x3": (3, (3, 3), 1, 1, 0, (40, 44)),
    "7x7 by 2": (3, (7, 7), 2, 3, 1, (20, 22)),
    "7x7 by 2, odd": (3, (7, 7), 2, 3, 0, (20, 23)),
    "11x11 by 4": (3, (11, 11), 4, 2, 1, (13, 12)),
    "3x3 by 2, unpadded": (3, (3, 3), 2, 0, 0, (20, 21)),
    "4x4 by 2": (3, (4, 4), 2, 1, 0, (20, 21)),
    "5 by 7, much padded": (3, (5, 7), 2, (4, 5), 1, (30, 31)),
}


def in_doubles(function, x):
    """What float32 is to give, but for rounding."""
    return function(x.double()).float()


def same(line, function, x):
    """The packed line gives the function's answer; how many convolutions it has with more channels
    than the answer.
    """
    want = in_doubles(function, x)
    quick = packed(line)
    y = quick(x)
    assert y.shape == want.shape
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5 * want.abs().max().item())
    convolutions = [s for s in quick.steps if s.function is aten.convolution.default]
    return sum(s.output.shape[1] > want.shape[1] for s in convolutions)


@pytest.mark.parametrize("name", PLAIN)
def test_a_convolution_to_few_channels(name):
    channels, kernel, stride, padding, dilation, size = PLAIN[name]
    weight, x = random(channels, 8, *kernel), random(1, 8, *size)

    def function(x):
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, dilation)

    assert same(traced(function, x)[0], function, x) == 1


@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_transposed_convolution_to_few_channels(name):
    channels, kernel, stride, padding, extra, size = TRANSPOSED[name]
    weight, x = random(8, channels, *kernel), random(1, 8, *size)

    def function(x):
        return F.conv_transpose2d(x, weight.to(x.dtype), None, stride, padding, extra)

    assert same(traced(function, x)[0], function, x) == 1


# What is left as it is: to many channels, of small pictures, of one pixel, in groups, with a bias,
# of two strides, spread out.
LEFT = {
    "many": lambda x, w: F.conv2d(x, w(8, 8, 3, 3), padding=1),
    "small": lambda x, w: F.conv2d(x[:, :, :9], w(3, 8, 3, 3), padding=1),
    "pixels": lambda x, w: F.conv2d(x, w(3, 8, 1, 1)),
    "groups": lambda x, w: F.conv2d(x, w(4, 4, 3, 3), groups=2),
    "bias": lambda x, w: F.conv2d(x, w(3, 8, 3, 3), torch.ones(3, dtype=x.dtype)),
    "two strides": lambda x, w: F.conv_transpose2d(x, w(8, 3, 3, 3), stride=(2, 3)),
    "spread out": lambda x, w: F.conv2d(x, w(3, 8, 3, 3), dilation=3),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_gains_nothing_is_left(name):
    weights = {}

    def of(x):
        def weight(*shape):
            if shape not in weights:
                weights[shape] = random(*shape)
            return weights[shape].to(x.dtype)

        return LEFT[name](x, weight)

    x = random(1, 8, 40, 44)
    assert same(traced(of, x)[0], of, x) == 0


def near(found, want):
    return (found - want).norm() < 1e-6 * want.norm()


def test_doubles_are_left():
    weight, x = random(3, 8, 3, 3).double(), random(1, 8, 40, 44).double()
    line, y = traced(lambda x: F.conv2d(x, weight, padding=1), x)
    assert torch.equal(packed(line)(x), y)


def test_a_program_packs_what_it_runs():
    first, last = random(8, 3, 7, 7), random(3, 8, 5, 5)

    def function(x):
        hidden = F.conv2d(x, first.to(x.dtype), stride=2, padding=3)
        return F.conv2d(hidden, last.to(x.dtype), padding=2)

    x = random(4, 3, 80, 88)
    line, _ = traced(function, x[:1])
    plain, quick = Program(line), Program(line, fold=True)
    u = function(x)
    for batch in (slice(1), slice(4)):
        assert near(quick.linear(x[batch]), plain.linear(x[batch]))
        assert near(quick.T(u[batch]), plain.T(u[batch]))
    assert not torch.equal(quick.T(u[:1]), plain.T(u[:1]))  # by another way
    assert torch.equal(quick.T.T.line(x[:1]), plain.linear.line(x[:1]))
    weights = first.nbytes + last.nbytes
    assert plain.nbytes == weights < quick.nbytes
