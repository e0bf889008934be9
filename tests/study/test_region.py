"""Regions against brute force: decisions written down by plain torch, and bisection on them."""

import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from networks import INPUTS, PIECEWISE, Gated, build, example
from place import here
from torch import nn
from torch.overrides import TorchFunctionMode

import linscope_cuda as ls
from linscope_cuda.study.flips import bracket, flips


def pooled(x, *args, **kwargs):
    return F.max_pool2d(x, *args[:5], **kwargs, return_indices=True)[1]


def above(bound=0.0):
    return lambda x, *args, **kwargs: x > bound


def pieces(low, high):
    return lambda x, *args, **kwargs: (x > low).int() + (x >= high).int()


def indices(function):
    return lambda x, *args, **kwargs: function(x, *args, **kwargs)[1]


# What each function decides, from its definition.
DECIDES = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, torch.Tensor.relu_), above()),
    **dict.fromkeys((F.leaky_relu, F.prelu, torch.prelu, torch.abs, torch.Tensor.abs), above()),
    F.relu6: pieces(0, 6),
    F.hardtanh: lambda x, min_val, max_val: pieces(min_val, max_val)(x),
    torch.Tensor.clamp: lambda x, low, high: pieces(low, high)(x),
    F.hardsigmoid: pieces(-3, 3),
    F.softshrink: lambda x, by=0.5: pieces(-by, by)(x),
    F.hardshrink: lambda x, by=0.5: x.abs() > by,
    F.threshold: lambda x, bound, *a: x > bound,
    F.max_pool2d: pooled,
    F.adaptive_max_pool2d: lambda x, size, *a: F.adaptive_max_pool2d(x, size, True)[1],
    F.max_pool1d: lambda x, *a, **named: F.max_pool1d(x, *a, **named, return_indices=True)[1],
    torch.maximum: lambda a, b: a >= b,
    torch.minimum: lambda a, b: a <= b,
    torch.Tensor.gt: lambda a, b: a > b,
    torch.Tensor.le: lambda a, b: a <= b,
    torch.copysign: lambda a, b: b.signbit(),
    **{f: indices(f) for f in (torch.max, torch.min, torch.median, torch.kthvalue)},
    **{f: indices(f) for f in (torch.sort, torch.topk)},
    torch.amax: lambda x, dim, *a: x.max(dim)[1],
    torch.amin: lambda x, dim, *a: x.min(dim)[1],
}


DROPPED = ("inplace", "return_indices")


class Decisions(TorchFunctionMode):
    """What a plain run decides, call by call."""

    def __init__(self):
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():
            if func in DECIDES:
                given = {k: v for k, v in (kwargs or {}).items() if k not in DROPPED}
                self.made.append(DECIDES[func](*args, **given).clone())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def decisions(model, x):
    with Decisions() as seen:
        model(x)
    return seen.made


def same(a, b):
    return all(map(torch.equal, a, b))


def by_bisection(model, x0, d):
    """The first t > 0 at which a decision is another one."""
    frozen = decisions(model, x0)

    def holds(t):
        return same(frozen, decisions(model, x0 + t * d))

    low, high = 0.0, 1e-7
    while holds(high):
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


# ---- Families of networks ----


class Convolutions(nn.Module):
    """Batch norms, overlapping and dilated pools."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, 2), nn.Conv2d(5, 7, 3, padding=1)
        self.norm, self.pool = nn.BatchNorm2d(5), nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.dilated, self.last = nn.MaxPool2d((2, 3), 1, 0, (2, 1)), nn.LazyLinear(4)

    def forward(self, x):
        x = self.pool(torch.relu(self.norm(self.first(x))))
        x = self.dilated(self.second(x).relu_() * 2)
        return self.last(x.flatten(1))


class Branches(nn.Module):
    """Leaky units, a residual, a concatenation, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.same = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up, self.slopes = nn.ConvTranspose2d(12, 4, 3, 2, 1), nn.PReLU(4)

    def forward(self, x):
        x = F.leaky_relu(self.first(x), 0.2)
        x = torch.cat([x, x + F.leaky_relu(self.same(x), -0.1)], 1)
        return self.slopes(self.up(x))[:, :, 1:, 2:]


class Clamped(nn.Module):
    """The family of clamps, hard units and comparisons."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        a, b, c = (layer(x) for layer in self.layers)
        a = F.hardtanh(a, -0.3, 0.4) + F.relu6(20 * b) + F.hardsigmoid(4 * c)
        b = F.softshrink(b, 0.2) + F.hardshrink(c, 0.3) + F.threshold(a, 0.1, 2.0)
        c = torch.where(a > b, c, 0.5 * c) + torch.where(b <= 0.7, a, c)
        c = torch.maximum(a, c) - torch.minimum(b, c) + a.clamp(-1, 2)
        return torch.copysign(torch.ones_like(c), a - 0.1) * c.abs()


class Ranked(nn.Module):
    """Extremes, orders, and pools of other kinds."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.LazyLinear(5)

    def forward(self, x):
        x = self.first(x)
        row = x.flatten(2)
        parts = [torch.max(x, 3)[0], torch.min(x, 2)[0], torch.median(x, 3)[0]]
        parts += [torch.kthvalue(x, 3, 2)[0], torch.amax(x, 1), torch.amin(x, 3)]
        parts += [torch.sort(x, 1)[0], torch.sort(x, 2, descending=True)[0]]
        parts += [torch.topk(row, 3)[0], torch.topk(row, 4, 1, False)[0]]
        parts += [F.adaptive_max_pool2d(x, (3, 2)), F.max_pool1d(row, 3, 2)]
        return self.last(torch.cat([p.flatten(1) for p in parts], 1))


FAMILIES = {
    Convolutions: (3, 14, 11),
    Branches: (3, 7, 6),
    Clamped: (3, 5, 6),
    Ranked: (3, 6, 7),
}


SHAPES = dict(FAMILIES)


def made(kind):
    """A network, x0 and a direction by a seed that is another one in each run."""
    seed = random.SystemRandom().randrange(2**31)
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPES.get(kind) or INPUTS[kind][1:]
    x0, d = (torch.randn(1, *shape, generator=generator, dtype=torch.float64) for _ in "xd")

    class Known(kind):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self(x0.float())  # lazy layers

    model = build(Known if kind in SHAPES else kind, seed)
    return model, here(x0), here(d), seed


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("attempt", range(2))
def test_the_first_flip_is_that_of_bisection(kind, attempt):
    model, x0, d, seed = made(kind)
    op = ls.LinearInterpreter(model, x0)
    found = ls.region(op, d, 4)
    assert found.exact and found.decisions == sum(a.numel() for a in decisions(model, x0)), seed
    for sign, t, units in ((1, found.high, found.ahead), (-1, -found.low, found.behind)):
        want = by_bisection(model, x0, sign * d)
        assert t == pytest.approx(want, rel=1e-8, abs=1e-14), seed
        times = [sign * unit.t for unit in units]
        assert times == pytest.approx(sorted(times), rel=1e-11) and times[0] == pytest.approx(t)
        x = x0 + sign * t * (1 - 1e-7) * d
        assert same(decisions(model, x), decisions(model, x0)), seed
        y = model(x)
        torch.testing.assert_close(op(x), y, rtol=1e-11, atol=1e-11 * y.abs().max().item())
        before, after = (decisions(model, x0 + sign * t * (1 + e) * d) for e in (-1e-7, 1e-7))
        changed = {
            (i, nonzero(at))
            for i, (a, b) in enumerate(zip(before, after, strict=True))
            for at in (a != b).nonzero().tolist()
        }
        named = [(u.entry, nonzero(u.place)) for u in units if abs(u.t) <= t * (1 + 1e-9)]
        assert named[0] in changed, (seed, named, changed)
        if units[0].kind != "order":  # where two change places
            # Others flip at once only because of it: a jump, or a pool of what was all 0.
            others = changed - {*named}
            assert all(entry > named[0][0] for entry, _ in others), (seed, named, changed)


def nonzero(place):
    """A place, however many dimensions of size 1 there are."""
    return tuple(filter(None, place))


def test_a_network_of_torchvision():
    models = pytest.importorskip("torchvision").models
    with torch.random.fork_rng():
        torch.manual_seed(random.SystemRandom().randrange(2**31))
        model = models.squeezenet1_1(weights=None).double().eval()
        x0, d = torch.randn(2, 1, 3, 35, 37, dtype=torch.float64).unbind()
    found = ls.region(ls.LinearInterpreter(model, x0, check=False), d)
    frozen = decisions(model, x0)
    for t, unit in ((found.high, found.ahead[0]), (found.low, found.behind[0])):
        assert same(decisions(model, x0 + (1 - 1e-7) * t * d), frozen)
        others = decisions(model, x0 + (1 + 1e-7) * t * d)
        changed = [i for i, (a, b) in enumerate(zip(frozen, others, strict=True)) if (a != b).any()]
        assert changed[0] == unit.entry
        assert (frozen[unit.entry] != others[unit.entry])[0][unit.place]
        assert dict(model.named_modules())[unit.module].__class__ in (nn.ReLU, nn.MaxPool2d)


class Plain(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def frozen(function, *x0, **options):
    x0 = torch.tensor([x0], dtype=torch.float64)
    return ls.LinearInterpreter(Plain(function), x0, check=False, **options)


def along(function, x0, d, **options):
    found = ls.region(frozen(function, *x0), torch.tensor(d, dtype=torch.float64), **options)
    return found.low, found.high


def test_by_hand():
    inf = math.inf
    assert along(torch.relu, [1, -3, 5], [-2, 1, 1]) == (-5, 0.5)
    # At 0 a ReLU is closed: it opens at once, or not at all.
    assert along(torch.relu, [0, 7], [1, 0]) == (-inf, 0) and along(torch.relu, [0], [-1]) == (
        0,
        inf,
    )
    assert along(torch.relu, [1, 2], [0, 0.5]) == (-4, inf)
    assert along(lambda x: x.clamp(-1, 2), [0.0], [4]) == (-0.25, 0.5)
    assert along(lambda x: x.clamp(-1, 2), [4.0], [1]) == (-2, inf)
    assert along(lambda x: x.clamp(max=2), [0.0], [1]) == (-inf, 2)
    assert along(lambda x: x.clamp(-1, 2), [2.0], [1]) == (0, inf)  # 2 is clamped already
    assert along(lambda x: F.hardshrink(x, 2.0), [1.0], [1]) == (-3, 1)
    assert along(lambda x: F.hardshrink(x, 2.0), [-3.0], [1]) == (-inf, 1)
    assert along(lambda x: F.hardshrink(x, -1.0), [1.0], [1]) == (-inf, inf)
    assert along(lambda x: x.max(1)[0], [3, 1, 2], [0, 1, 2]) == (-inf, 0.5)
    assert along(lambda x: x.max(), [3, 1, 2], [0, 1, 2]) == (-inf, 0.5)
    assert along(lambda x: x.max(), [3, 3, 2], [0, 1, 0]) == (0, 0)  # shared by equals
    assert along(lambda x: x.max(1)[0], [3, 3, 2], [1, 0, 0]) == (0, inf)  # the first is taken
    assert along(lambda x: x.median(1)[0], [1, 5, 3], [1, 0, 0]) == (-inf, 2)
    assert along(lambda x: x.sort(1)[0], [1, 5, 3], [1, 0, 0]) == (-inf, 2)
    assert along(lambda x: x.topk(1)[0], [1, 5, 3], [0, -1, 0]) == (-inf, 2)
    assert along(lambda x: F.max_pool1d(x, 2, 1), [1, 5, 3, 4], [0, 0, 1, 0]) == (-inf, 1)
    # Pixels beside a window are no rivals: of 5 pixels to 3 the last window has two.
    assert along(lambda x: F.adaptive_max_pool1d(x, 3), [9, 1, 2, 5, 4], [1, 0, 0, 0, 0]) == (
        (-8, inf)
    )
    assert along(lambda x: F.max_pool1d(x, 2, 1, 1, 2), [5, 1, 2], [1, 0, 0]) == (-3, inf)
    assert along(lambda x: x.nan_to_num() * 2, [1.0], [1]) == (-inf, inf)
    assert along(lambda x: 3 * x, [1.0], [1]) == (-inf, inf)


def test_what_is_not_a_number_stays():
    """NaN and infinity on the way are no units that flip."""
    bad = torch.tensor([math.nan, math.inf, -math.inf, 0.0])
    for function in (
        lambda x: torch.relu(x + bad),
        lambda x: (x + bad).clamp(-5, 5),
        lambda x: torch.maximum(x + bad, torch.zeros(4)),
        lambda x: F.max_pool1d(torch.cat([x + bad, x], 1), 1),
    ):
        low, high = along(function, [1.0, 1, 1, 1], [0, 0, 0, -1])
        assert low in (-math.inf, -4.0) and high in (1.0, 6.0, math.inf)


def test_a_unit_is_named():
    op = ls.LinearInterpreter(build(PIECEWISE[1]), example(PIECEWISE[1]))
    found = ls.region(op, torch.ones_like(op.x0), 7)
    assert len(found.ahead) == len(found.behind) == 7
    for unit in found.ahead:
        shape = op.tape.entries[unit.entry].sample_shape
        assert len(unit.place) == 3 and all(
            0 <= p < s for p, s in zip(unit.place, shape, strict=True)
        )
        assert unit.kind in ("side", "winner") and unit.module in str(unit)
    assert "exact" in str(found) and "ahead" not in str(found)
    assert found.radius == min(found.high, -found.low)
    # A direction twice as long gets half as far; turned, the sides change places.
    turned = ls.region(op, -2 * torch.ones_like(op.x0))
    assert turned.high == pytest.approx(-found.low / 2) and turned.behind[0].place == (
        found.ahead[0].place
    )


def test_inputs_of_several_samples_and_in_half_precision():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    batch = ls.LinearInterpreter(model, torch.randn(4, 2, 5, 5))
    found = ls.region(batch, torch.randn(4, 2, 5, 5))
    assert len(found.ahead[0].place) == 4  # the sample first
    x0, d = torch.randn(1, 2, 5, 5), torch.randn(1, 2, 5, 5)
    wide, narrow = (
        ls.region(ls.LinearInterpreter(model.to(t), x0.to(t), check=False), d).high
        for t in (torch.float64, torch.bfloat16)
    )
    assert narrow == pytest.approx(wide, rel=1, abs=0.1)


def test_threads_take_turns():
    model, x0, d, _ = made(Branches)
    op = ls.LinearInterpreter(model, x0)
    want = ls.region(op, d)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: ls.region(op, d), range(16))) == [want] * 16


# ---- Measured regions ----


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)

    def forward(self, x):
        return torch.relu(self.norm(self.first(x))) * 2


SHAPES[Normed] = (3, 6, 5)


def test_numbers_make_it_measured():
    model, x0, d, seed = made(Normed)
    op = ls.LinearInterpreter(model, x0)
    found = ls.region(op, d)
    assert not found.exact and "instance_norm in norm" in found.reason, seed
    assert "measured" in str(found)
    # What is expanded under "taylor" has no derivative to go along with, and is no less a number.
    assert ls.region(ls.LinearInterpreter(model, x0, "taylor"), d).reason == found.reason
    for sign, t, units in ((1, found.high, found.ahead), (-1, -found.low, found.behind)):
        assert t == pytest.approx(by_bisection(model, x0, sign * d), rel=1 / 128), seed
        assert t < sign * units[0].t <= t * 1.01 and units[0].function == "relu"
        others = decisions(model, x0 + units[0].t * d)[0] != decisions(model, x0)[0]
        assert others[0][units[0].place], seed


def test_a_rule_of_ones_own_is_measured():
    def bent(x):
        return x * torch.heaviside(x - 1, torch.zeros((), dtype=x.dtype))

    op = frozen(bent, 0.5, 3.0)
    found = ls.region(op, torch.tensor([1.0, -1.0]))
    assert not found.exact and "heaviside" in found.reason
    assert found.high == pytest.approx(0.5, rel=1 / 128) and found.ahead[0].place == (0,)
    ls.register_rule(torch.erfc, lambda freeze, x: torch.where(freeze(lambda x: x > 2, x), x, 1.0))
    found = ls.region(frozen(torch.erfc, 0.5, 3.0), torch.tensor([1.0, -0.5]))
    assert not found.exact and found.high == pytest.approx(1.5, rel=1 / 128)
    assert found.decisions == 2


def test_numbers_that_the_direction_does_not_reach_are_no_hindrance():
    op = frozen(lambda x: torch.relu(x[:, :1]) + torch.sigmoid(x[:, 1:]), 2.0, 3.0)
    assert ls.region(op, torch.tensor([-1.0, 0.0])).high == 2
    assert not ls.region(op, torch.tensor([-1.0, 0.1])).exact


def test_a_network_without_decisions_of_several():
    op = ls.LinearInterpreter(build(Gated), example(Gated))
    found = ls.region(op, torch.ones_like(op.x0))
    assert (found.low, found.high, found.decisions) == (-math.inf, math.inf, 0)
    assert not found.exact and ls.drift(op, torch.ones_like(op.x0)).share.isnan().all()


def test_the_bracket():
    for edge in (0.3, 1e-6, 1e-14):
        low, high = bracket(lambda t, edge=edge: t < edge, 1.0, 10)
        assert low < edge <= high <= low * (1 + 2**-10)
    assert bracket(lambda t: True, 2.0) == (2.0, math.inf)
    assert bracket(lambda t: t == 0, 1.0)[0] == bracket(lambda t: False, 1.0)[0] == 0


# ---- Drift ----


@pytest.mark.parametrize("kind", [*FAMILIES, Normed, Gated])
def test_drift_is_what_one_computes(kind):
    model, x0, d, _seed = made(kind)
    op = ls.LinearInterpreter(model, x0)
    ts = [0.0, -0.3, 1e-3, 2.0]
    told = []
    found = ls.drift(op, d[0], ts, progress=told.append)
    assert told == pytest.approx([0.25, 0.5, 0.75, 1])
    counted = decisions(model, x0) if kind is not Gated else []
    assert sum(found.decisions) == sum(a.numel() for a in counted)
    assert found.flipped.shape == (4, len(op.tape)) == (4, len(found.names))
    for t, error, change, flipped in zip(ts, found.error, found.change, found.flipped, strict=True):
        x = x0 + t * d
        want = (model(x) - op(x)).norm()
        torch.testing.assert_close(error, want, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(change, (abs(t) * op.filter(d)).norm(), rtol=1e-9, atol=0)
        others = decisions(model, x) if counted else []
        each = [int((a != b).sum()) for a, b in zip(counted, others, strict=True)]
        assert [n for n, of in zip(flipped.tolist(), found.decisions, strict=True) if of] == each
    assert found.relative[0] == 0 and torch.equal(
        found.relative[1:], (found.error / found.change)[1:]
    )


def test_no_drift_within_the_region():
    model, x0, d, _seed = made(Branches)
    op = ls.LinearInterpreter(model, x0)
    t = ls.region(op, d).high
    inside = ls.drift(op, d, [0.9 * t, 0.999 * t])
    assert inside.flipped.sum() == 0 and inside.error.max() < 1e-13 * op.output.norm()
    beyond = ls.drift(op, d, [1e4 * t])
    assert beyond.flipped.sum() > 0 and beyond.share.item() > 0
    assert beyond.error.item() > 1e-9 * op.output.norm()


# ---- What is refused ----


@pytest.mark.parametrize("function", [ls.region, ls.drift])
def test_what_is_no_direction(function):
    op = frozen(torch.relu, 1.0, 2.0)
    for direction, words in (
        (torch.zeros(2), "was given zeros"),
        (torch.ones(3), r"shape \(1, 2\), was given \(3,\)"),
        (torch.tensor([1.0, math.nan]), "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=words):
            function(op, direction)
    with pytest.raises(ValueError, match="does not keep"):
        function(frozen(torch.relu, 1.0, storage="none"), torch.ones(1))
    with pytest.raises(TypeError, match="wants a LinearInterpreter"):
        function(ls.MatrixOperator(torch.eye(2)), torch.ones(2))


def test_other_wrong_arguments():
    op = frozen(lambda x: torch.relu(1e200 * x), 1.0)  # of float64
    with pytest.raises(ValueError, match="1 unit or more"):
        ls.region(op, torch.ones(1), 0)
    with pytest.raises(ValueError, match="positive number"):
        ls.region(op, torch.ones(1), most=-1.0)
    with pytest.raises(ValueError, match=r"too large: numbers overflow in torch\.\S*relu"):
        ls.region(op, torch.full((1,), 1e300, dtype=torch.float64))
    with pytest.raises(ValueError, match="finite numbers as ts"):
        ls.drift(op, torch.ones(1), [math.inf])


def test_another_path_is_no_flip():
    op = frozen(lambda x: torch.relu(x) if (x > 0).all() else x.sigmoid(), 1.0)
    assert ls.region(op, torch.tensor([-2.0])).high == 0.5
    with pytest.raises(ls.TapeMismatch, match="path depends on its input"):
        flips(op, torch.tensor([[-1.0]]))
