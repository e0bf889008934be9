"""Views and writes, as functions of values: what is traced once is the function of any input."""

import pytest
import torch
from line_fuzz import compiled, constant, flat, mask, source
from lines import columns, traced, units

from linscope_cuda.program import Program
from linscope_cuda.program.tracer import Tracer, Untraceable

SHAPE = (1, 3, 4)


def inputs(count, seed=0, shape=SHAPE):
    """Whole numbers: all that is made of them here is exact, in whatever order it is summed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (count, *shape[1:]), generator=generator).double()


def check(function, shape=SHAPE):
    """The traced line is the function: on other inputs, in batches, taken apart and transposed."""
    x = inputs(1, 1, shape)
    line, y = traced(function, x)
    assert torch.equal(y, function(x)), "tracing changes the function"
    constants = [c.clone() for c in line.constants()]
    xs = inputs(3, 2, shape)
    want = torch.cat([function(x[None]) for x in xs])
    kept = xs.clone()
    for _ in range(2):  # a run leaves no trace
        assert torch.equal(torch.cat([line(x[None]) for x in xs]), want), "the line"
    program = Program(line)
    assert torch.equal(torch.cat([program(x[None]) for x in xs]), want), "the simplified line"
    for _ in range(2):  # made, and kept
        assert torch.equal(program(xs), want), "three samples"
    assert torch.equal(xs, kept)

    r = function(torch.zeros(shape, dtype=x.dtype))
    J = columns(lambda e: function(e) - r, shape)
    assert torch.equal(columns(program.linear, shape), J), "A"
    us = units(y.shape)
    rows = torch.stack([program.T(u).flatten() for u in us])
    assert torch.equal(rows, J), "the transpose"
    assert torch.equal(program.T(us.flatten(0, 1)).reshape(J.shape), J), "the transpose of a batch"
    assert all(map(torch.equal, line.constants(), constants)), "constants are written over"


def buffer(*shape):
    return constant(*(shape or SHAPE))


def wrote(view, *write):
    """A function that writes 2 and some of x into a view of what x was, and sees all of it."""

    def function(x):
        base = x * 1
        part = view(base)
        part.mul_(2)
        part.add_(1)
        return flat(base, part)

    return function


VIEWS = {
    "a slice": lambda t: t[:, 1:],
    "a slice from behind": lambda t: t[:, :, -3:-1],
    "every second": lambda t: t[..., ::2],
    "every third from the second": lambda t: t[:, :, 1::3],
    "beyond the end": lambda t: t[:, 1:99],
    "nothing": lambda t: t[:, 2:2],
    "all": lambda t: t[:],
    "one": lambda t: t[:, 1],
    "the last": lambda t: t[..., -1],
    "one entry": lambda t: t[0, 1, 2],
    "select": lambda t: t.select(1, -2),
    "narrow": lambda t: t.narrow(2, 1, 2),
    "diagonal": lambda t: t.diagonal(0, 1, 2),
    "a diagonal above": lambda t: t.diagonal(1, 1, 2),
    "a diagonal below, backwards": lambda t: t.diagonal(-1, -1, 1),
    "transpose": lambda t: t.transpose(1, 2),
    "mT": lambda t: t.mT,
    "permute": lambda t: t.permute(2, 0, 1),
    "permute back": lambda t: t.permute(-1, 0, -2),
    "t": lambda t: t[0].t(),
    "movedim": lambda t: t.movedim(0, -1),
    "view": lambda t: t.view(2, 6),
    "view as another": lambda t: t.view_as(torch.empty(12)),
    "flatten": lambda t: t.flatten(),
    "unflatten": lambda t: t.unflatten(2, (2, 2)),
    "reshape": lambda t: t.reshape(4, 3),
    "unsqueeze": lambda t: t.unsqueeze(1),
    "None": lambda t: t[:, None, 1:],
    "squeeze": lambda t: t.squeeze(0),
    "squeeze all": lambda t: t[:, :1].squeeze(),
    "squeeze some": lambda t: t.squeeze((0, 1)),
    "detach": lambda t: t.detach(),
    "unbind": lambda t: t.unbind(1)[2],
    "split": lambda t: t.split(3, 2)[1],
    "split with sizes": lambda t: t.split([1, 2], 1)[1],
    "split from behind": lambda t: t.split(2, -1)[1],
    "chunk": lambda t: t.chunk(2, 1)[0],
    "tensor_split": lambda t: t.tensor_split([1, 2], 2)[1],
    "hsplit": lambda t: t.hsplit(3)[1],
    "as_strided": lambda t: t.as_strided((2, 2), (4, 2), 1),
    "as_strided as it is": lambda t: t.as_strided((3, 4), (4, 1)),
    "as_strided of a part, beyond it": lambda t: t[:, 1:].as_strided((2, 3), (4, 1), 1),
    "unfold without overlap": lambda t: t.unfold(2, 2, 2),
    "unfold with gaps": lambda t: t.unfold(1, 1, 2),
    "real": lambda t: torch.view_as_complex(t.view(1, 3, 2, 2)).real,
    "views of views": lambda t: t.permute(2, 0, 1)[1:].transpose(0, 2)[:, 0],
    "a slice of a slice": lambda t: t[:, :, 1:][:, :, ::2][:, 1:],
    "a diagonal of a diagonal's rows": lambda t: t.view(3, 2, 2).diagonal(0, 1, 2)[1:].t(),
    "a view of a permuted one": lambda t: t.permute(0, 2, 1).unsqueeze(1)[..., 1:].squeeze(1),
    "a reshape of a part": lambda t: t[:, 1:].view(8)[3:],
    "a row, wrapped and turned": lambda t: t.view(-1)[2:10].view(2, 4).mT[1:3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_written_into_a_view_is_in_what_it_shows(name):
    check(wrote(VIEWS[name]))


@pytest.mark.parametrize("name", VIEWS)
def test_what_a_view_shows_is_what_was_written_elsewhere(name):
    def function(x):
        base = x * 1
        before = VIEWS[name](base)
        kept = before.clone()
        base[:, :2].mul_(3)
        base[..., 1:3] += 1
        base.view(-1)[5:8] = buffer(3)
        return flat(before, kept, base)

    check(function)


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_written_into_a_buffer_or_into_its_views_depends_on_the_input(name):
    def function(x):
        canvas = buffer()
        before, other = VIEWS[name](canvas), canvas.flatten()
        part = VIEWS[name](x * 1)
        before.copy_(part)
        other[3:5] += 1
        return flat(x, canvas, before, other)

    check(function)


def in_place(*names):
    """What changes a tensor's shape, before and after its entries are written."""

    def function(x):
        h = x * 1
        row = h[:, 1]
        for name, *arguments in names:
            getattr(h, name)(*arguments)
            h[..., 0] += 1
            row.mul_(2)
        return flat(h.reshape(-1), row, x)

    return function


RESHAPED = {
    "unsqueeze_": in_place(["unsqueeze_", 1]),
    "squeeze_": in_place(["squeeze_"]),
    "squeeze_ of one": in_place(["squeeze_", 0]),
    "transpose_": in_place(["transpose_", 1, 2]),
    "swapaxes_": in_place(["swapaxes_", 0, 2]),
    "squeeze_ and t_": in_place(["squeeze_"], ["t_"]),
    "there and back": in_place(["transpose_", 1, 2], ["unsqueeze_", -1], ["swapdims_", 2, 1]),
    "as_strided_": in_place(["as_strided_", (2, 4), (4, 1), 4]),
    "as_strided_ twice": in_place(["as_strided_", (2, 2), (5, 1), 1], ["t_"]),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_shapes_that_change_in_place(name):
    check(RESHAPED[name])


HALF, PLACES, WHERE = torch.tensor(0.5).double(), torch.tensor([2, 0]), mask(torch.empty(SHAPE))


def twice(x):
    h = x * 1
    h[:, 0] = h[:, 1]
    h[:, 1:] -= h[:, :1].clone()
    return h


def over_constants(x):
    """Constants that are written after they were used, and used again."""
    c = buffer()
    first = x + c
    c += 5
    second = x * c
    c.view(-1)[2:].zero_()
    third = x + c
    c.copy_(x)
    c[:, 0] = 1
    return flat(first, second, third, c)


def before_and_after(x):
    c = buffer()
    rows = c.unbind(1)
    turned = c.mT
    c[:, 1] = x[:, 0]  # from here on it depends on the input
    rows[2].mul_(2)
    seen = turned.clone()
    rows[1].zero_()  # and from here on it does not
    turned[..., 0] += x[:, 0]
    return flat(c, seen, *rows, turned)


def a_loop(x):
    y = x.new_zeros(1, 5)
    for i, part in enumerate(x.split(1, 2)):
        y[:, i : i + 2] += part.sum((1, 2), keepdim=True)[0]
        y *= 2
    return y


def emptied(x):
    h = x * 1
    part = h[:, 1]
    h.zero_()
    part += x[:, 0]
    h[:, 2].fill_(3)
    return flat(h, part)


def converted(x):
    narrow = torch.zeros(SHAPE, dtype=torch.float32)
    narrow[:, 1:].copy_(x[:, 1:])
    narrow[:, 0] = x[:, 1] * 2
    wide = buffer()
    wide[:, :2].copy_(narrow[:, 1:])
    narrow.add_(x)
    wide[:, 2] = narrow[:, 2]
    narrow.addcmul_(buffer(), x)
    narrow.index_copy_(1, PLACES, constant(1, 2, 4, dtype=torch.float32))
    return flat(narrow, wide)


def swapped(x):
    h = x * 1
    a, b = h[:, 0], h[:, 2]
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)
    return h


def forgotten(x):
    """Memory that comes free is used again, for other tensors."""
    total = x * 0
    for i in range(20):
        h = (x * i).view(-1)
        h[i % 12] = 1
        c = buffer()
        c[:, i % 3] += 1
        total += h.view(SHAPE) * c
        del h, c
    return total


def detached_copy(x):
    h = x * 1
    stood = h.detach().clone()
    h.detach()[:, 0] = 7
    h.data[:, 1] *= 2
    return flat(h, stood)


WRITES = {
    "add_ with a factor": lambda x: (x * 1).add_(x[:, :1], alpha=-2),
    "add_ of itself": lambda x: (h := x * 1).add_(h),
    "sub_ of a constant": lambda x: (x * 1).sub_(buffer(), alpha=3),
    "neg_ and mul_": lambda x: (x * 1).neg_().mul_(buffer()),
    "div_": lambda x: (x * 1).div_(HALF),
    "lerp_": lambda x: (x * 1).lerp_(buffer(), 0.5),
    "addcmul_ into a constant": lambda x: buffer().addcmul_(buffer(), x, value=2),
    "addmm_": lambda x: buffer(3, 3).addmm_(x[0], buffer(4, 3))[None],
    "masked_fill_": lambda x: (x * 1).masked_fill_(WHERE, 2),
    "masked_fill_ of a constant": lambda x: buffer().masked_fill_(WHERE, x[0, 0, 0]),
    "masked_scatter_": lambda x: (x * 1).masked_scatter_(WHERE, x.flip(1)),
    "masked_scatter_ into a constant": lambda x: buffer().masked_scatter_(WHERE, x),
    "by a mask": lambda x: (h := x * 1, h.__setitem__(WHERE, -1))[0],
    "by a mask, values": lambda x: (h := x * 1, h.__setitem__(WHERE, x.flip(2)[WHERE]))[0],
    "by a mask of rows": lambda x: (h := x * 1, h.__setitem__((0, WHERE[0, :, 0]), 5))[0],
    "by a mask, into a constant": lambda x: (h := buffer(), h.__setitem__(WHERE, x[WHERE] * 2))[0],
    "by a mask, in place": lambda x: (h := x * 1, h.__setitem__(WHERE, h[WHERE].add_(1)))[0],
    "index_put_": lambda x: (x * 1).index_put_((PLACES * 0, PLACES), x[0, 1:]),
    "index_put_ that adds": lambda x: (x * 1).index_put_(
        (PLACES * 0, PLACES * 0), x[0, 1:], accumulate=True
    ),
    "by places in the middle": lambda x: (h := x * 1, h.__setitem__((0, slice(1, 3), PLACES), 9))[
        0
    ],
    "by two lists": lambda x: (h := x * 1, h.__setitem__((0, [0, 1], [2, 3]), x[0, 0, :2]))[0],
    "index_add_": lambda x: buffer().index_add_(1, PLACES, x[:, :2], alpha=2),
    "index_copy_": lambda x: (x * 1).index_copy_(2, PLACES, x[:, :, :2]),
    "index_fill_": lambda x: (x * 1).index_fill_(1, PLACES, 3),
    "scatter_": lambda x: buffer().scatter_(2, PLACES.expand(1, 3, 2), x[..., :2]),
    "scatter_ of a number": lambda x: (x * 1).scatter_(1, PLACES.view(1, 2, 1), 4),
    "scatter_add_": lambda x: buffer().scatter_add_(2, PLACES.expand(1, 3, 2) * 0, x[..., 1:3]),
    "tril_ and triu_": lambda x: (x * 1).tril_().triu_(-1),
    "cumsum_": lambda x: (x * 1).cumsum_(2),
    "fill_diagonal_": lambda x: (x[0] * 1).fill_diagonal_(2)[None],
    "copy_ that broadcasts": lambda x: (h := x * 1, h[:, 1:].copy_(x[:, 0]))[0],
    "copy_ of a number": lambda x: (h := x * 1, h[..., 1].copy_(x[0, 0, 0]))[0],
    "copy_ of constants": lambda x: (h := x * 1, h[:, 1:].copy_(buffer(1, 4)))[0],
    "copy_ of what is turned": lambda x: (h := buffer(1, 4, 3), h.mT.copy_(x))[0],
    "copy_ of all": lambda x: (x * 1).copy_(x.flip(1)),
    "copy_ of itself, turned": lambda x: (h := x * 1).copy_(h.flip(2)),
    "fill_ by a value": lambda x: (h := x * 1, h[:, 1].fill_(x[0, 0, 0]))[0],
    "zero_ of a part": lambda x: (h := x * 1, h[:, ::2].zero_())[0],
    "a part over itself": twice,
    "rows that change places": swapped,
    "constants after their use": over_constants,
    "a buffer whose views were made before": before_and_after,
    "a loop into zeros": a_loop,
    "emptied and filled": emptied,
    "other dtypes": converted,
    "memory that is used again": forgotten,
    "behind detach and data": detached_copy,
    "an expanded one that is read": lambda x: flat(h := x * 1, h[:, :1].expand(1, 3, 4), h.add_(1)),
    "the answer is written over": lambda x: (y := x.view(3, 4)[1:] * 2, y[0].neg_())[0][None],
    "the input": lambda x: flat(x[:, 1].mul_(2), x),
    "the input, whole": lambda x: flat(x.mul_(2).add_(1), x),
    "overlapping windows": lambda x: flat((x * 1).unfold(2, 2, 1) + 1, (x * 1).unfold(2, 3, 1) * 2),
    "overlapping strides": lambda x: flat((x * 1).as_strided((3, 3), (1, 1)) * 2 + 1),
    "expanded, then scaled": lambda x: flat((x * 1)[:, None].expand(1, 2, 3, 4) * 2 + 1),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(name):
    function = WRITES[name]
    check(lambda x: function(x.clone()))


def test_the_input_itself_stays_as_it_is():
    x = inputs(1)
    line, _ = traced(lambda x: x.mul_(2).add_(1), x)
    kept = x.clone()
    assert torch.equal(line(x), 2 * kept + 1) and torch.equal(x, kept)
    assert torch.equal(Program(line)(x), 2 * kept + 1) and torch.equal(x, kept)


@pytest.mark.parametrize("seeds", [range(i, i + 20) for i in range(0, 300, 20)], ids=str)
def test_random_programs(seeds):
    for seed in seeds:
        text = source(seed)
        try:
            check(compiled(text))
        except Exception as error:
            raise AssertionError(f"seed {seed}, {error}:\n{text}") from error


def test_what_cannot_be_written_down_is_refused():
    with pytest.raises(Untraceable, match="does not depend on the input"):
        traced(lambda x: buffer(), inputs(1))
    with pytest.raises(Untraceable, match=r"add\.out writes into more than its first"):
        traced(lambda x: torch.add(x, 1, out=buffer()), inputs(1))


def test_what_runs_in_a_pause_is_a_constant():
    tracer, x = Tracer(), inputs(1)
    with torch.no_grad(), tracer:
        given = tracer.input(x.clone())
        with tracer.pause():
            frozen = given * 2
        y = given + frozen
    line = tracer.line(y)
    assert torch.equal(line(x), 3 * x) and torch.equal(line(0 * x), 2 * x)
    assert len(line.steps) == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda c, x: c + x,
        lambda c, x: c.view(1, 12).view(SHAPE) * x,
        lambda c, x: torch.cat([c * 2, c[:, :1] * 3], 1)[:, 1:] + x,
        lambda c, x: c.reshape(SHAPE)[:, :] + c * x,
    ],
)
def test_a_constant_that_each_run_makes_anew_is_not_written_over(use):
    tracer, x, moved = Tracer(), inputs(1), buffer()
    with torch.no_grad(), tracer:
        given = tracer.input(x.clone())
        tracer.constant(moved)
        y = use(moved, given)
    program, want = Program(tracer.line(y)), use(buffer(), x)
    for _ in range(2):
        assert torch.equal(program(x), want) and torch.equal(moved, buffer())
        assert torch.equal(program(torch.cat([x, x])), torch.cat([want, want]))
        assert torch.equal(program.linear(x), want - use(buffer(), 0 * x))


def test_a_tensor_may_stand_for_the_value_of_another():
    tracer, x = Tracer(), inputs(1)
    with torch.no_grad(), tracer:
        given = tracer.input(x.clone())
        with tracer.pause():
            shown = torch.ones_like(x)
        tracer.assign(shown, tracer.value(given * 3))
        y = shown + 1
    assert torch.equal(y, torch.full_like(x, 2))
    assert torch.equal(tracer.line(y)(x), 3 * x + 1)


def test_labels_are_those_of_the_call_at_work():
    tracer, x = Tracer(), inputs(1)
    with torch.no_grad(), tracer:
        y = tracer.input(x.clone())
        for call, label in enumerate(["first", "second"]):
            tracer.label, tracer.call = label, call
            y = y * 2
    assert [(s.label, s.call) for s in tracer.line(y).steps] == [("first", 0), ("second", 1)]
