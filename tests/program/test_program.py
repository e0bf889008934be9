"""Programs against the model's own Python, run anew by the tape; their batches and transposes."""

import pytest
import torch
import torch.nn.functional as F
from families import build as family
from families import image
from lines import columns
from networks import INPUTS, Gated, Image, Line, Spellings, build, example
from torch import nn

import linscope_cuda as ls
from linscope_cuda.program import Program
from linscope_cuda.program.transposed import NoTranspose

SIZES = {
    "resnet18": 48,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 48,
    "squeezenet1_1": 48,
    "densenet121": 32,
    "googlenet": 48,
    "efficientnet_b0": 48,
    "convnext_tiny": 32,
    "shufflenet_v2_x1_0": 48,
    "regnet_y_400mf": 48,
    "mnasnet0_5": 48,
    "vgg11_bn": 32,
    "vit_b_16": 32,
    "swin_t": 32,
}


class Writes(nn.Module):
    """Parts and buffers, written into."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.register_buffer("frame", torch.rand(1, 6, 5, 4))

    def forward(self, x):
        h = self.conv(x)
        h[:, ::2].relu_()
        h[:, 1, 1:].mul_(2).add_(0.5)
        canvas = self.frame.repeat(len(x), 1, 1, 1)
        canvas[:, 1:5] = h
        canvas[:, :, 0] -= canvas[:, :, 1].clone()
        canvas.flatten(2).diagonal(0, 1, 2).zero_()
        return canvas.transpose(1, 2).masked_fill(self.frame.transpose(1, 2) > 0.5, 3)


class Tokens(nn.Module):
    """Attention, norms, a sequence in the first dimension."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 3)
        nn.init.normal_(self.attention.in_proj_bias)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        h = self.norm(x).transpose(0, 1)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return F.softmax(self.last(F.gelu(h)), 2).transpose(0, 1) * self.last(h).transpose(0, 1)


class Complex(nn.Module):
    def forward(self, x):
        spectrum = torch.fft.rfft2(F.relu(x) + 0.5) * (1 - 0.5j)
        return torch.fft.irfft2(spectrum + (1 + 2j), s=x.shape[2:])


class Mixes(nn.Module):
    """What is right for one sample alone."""

    def forward(self, x):
        h = F.relu(x - x.mean())
        return h.flip(0).sum(1) if len(x) == 1 else h.prod()


SHAPES = {**INPUTS, Writes: (1, 2, 5, 4), Tokens: (1, 5, 8), Complex: (1, 2, 6, 5)}
SHAPES[Mixes] = (1, 3, 4)
SMALL = [Spellings, Image, Line, Gated, Writes, Tokens, Complex, Mixes]


def small(kind, policy="paper", **options):
    if kind in INPUTS:
        x0 = example(kind)
    else:
        generator = torch.Generator().manual_seed(1)
        x0 = torch.randn(SHAPES[kind], generator=generator, dtype=torch.float64)
    return ls.LinearInterpreter(build(kind), x0, policy, **options)


def large(name):
    model = family(name, SIZES[name]).double()
    return ls.LinearInterpreter(model, image(SIZES[name], torch.float64), check=False)


def probes(count, shape, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def close(got, want, digits=1e-13):
    return (got - want).norm() <= digits * want.norm()


def alone(program, xs):
    return torch.cat([program(x[None]) for x in xs])


def same_as_the_model(op):
    """The program of one sample rounds as the model's own Python does: it is the same functions."""
    for x in (op.x0, probes(1, op.input_shape), torch.zeros_like(op.x0)):
        assert torch.equal(op.program(x), op.reenact(x))
    assert torch.equal(op.program(op.x0), op.reenact(op.x0))  # nothing was left behind


def same_in_batches(op):
    for program, shape in (
        (op.program, op.input_shape),
        (op.program.linear, op.input_shape),
        (op.program.T, op.output_shape),
    ):
        for count in (2, 7):
            xs = probes(count, shape)
            kept = xs.clone()
            want = alone(program, xs)
            assert close(program(xs), want), "the first run"
            assert close(program(xs), want), "the line that it left"
            assert close(program(xs.flip(0)), want.flip(0)), "each for itself"
            assert torch.equal(xs, kept)


def transposed_twice(op):
    F_, T = op.program.linear, op.program.T
    v, u = probes(1, op.input_shape), probes(1, op.output_shape)
    if isinstance(op.model, Complex):
        with pytest.raises(NoTranspose, match="complex"):
            _ = T.T
    else:
        assert close(T.T(v), F_(v))
    assert abs((u * F_(v)).sum() - (T(u) * v).sum()) <= 1e-12 * u.norm() * F_(v).norm()
    assert close(op.program(v), F_(v) + op.residual, 1e-12)


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize("kind", SMALL)
class TestSmall:
    def test_one_sample_is_the_models_own_bit_for_bit(self, kind, policy):
        same_as_the_model(small(kind, policy))

    def test_batches(self, kind, policy):
        same_in_batches(small(kind, policy))

    def test_twice_transposed(self, kind, policy):
        transposed_twice(small(kind, policy))

    def test_the_matrix(self, kind, policy):
        """Of the model's own Python, column by column, and that of F^T, row by row."""
        op = small(kind, policy)
        r = op.reenact(torch.zeros_like(op.x0))
        dense = columns(lambda e: op.reenact(e) - r, op.x0.shape)
        assert close(columns(op.program.linear, op.x0.shape), dense)
        rows = columns(op.program.T, (1, *op.output_shape)).T
        assert close(rows, dense)
        assert close(op.program(torch.zeros_like(op.x0)), r)


@pytest.mark.parametrize("name", SIZES)
def test_torchvision(name):
    op = large(name)
    same_as_the_model(op)
    same_in_batches(op)
    transposed_twice(op)


def test_the_last_two_sizes_of_a_batch_are_kept():
    program = small(Image).program.linear
    for count in (2, 3, 4, 3, 1, 5):
        program(probes(count, INPUTS[Image][1:]))
    assert list(program._several) == [4, 5]
    kept = program._several[5]
    program(probes(5, INPUTS[Image][1:]))
    assert program._several[5] is kept


@pytest.mark.parametrize("kind", SMALL)
def test_an_answer_is_the_callers_own(kind):
    op = small(kind, check=False)
    for product, shape in ((op.filter, op.input_shape), (op.transpose, op.output_shape)):
        for count in (1, 3, 3):
            x = probes(count, shape)
            kept, want = x.clone(), product(x).clone()
            product(x).zero_()
            assert torch.equal(product(x), want) and torch.equal(x, kept)


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Flatten(), nn.Unflatten(1, (1, 4))])
def test_an_answer_that_only_looks_at_the_probe_is_the_callers_own(layer):
    op = ls.LinearInterpreter(layer, torch.ones(1, 4))
    for product, shape in ((op.filter, op.input_shape), (op.transpose, op.output_shape)):
        for count in (1, 2, 2):
            x = torch.ones(count, *shape)
            product(x).zero_()
            assert x.all()


def test_nothing_is_left_in_a_program_that_is_run_by_many():
    """Runs do not share memory: one program, called within and after another run of itself."""
    program = small(Spellings).program
    xs = [probes(1, INPUTS[Spellings][1:], seed) for seed in range(3)]
    first = [program(x) for x in xs]
    assert all(map(torch.equal, first, [program(x) for x in xs]))


def test_a_table_has_a_row_for_each_step():
    op = small(Spellings)
    for program in (op.program, op.program.linear, op.program.T):
        header, *rows, total = str(program).splitlines()
        assert header.split() == ["value", "function", "sample", "of", "adds", "call"]
        assert total.startswith(f"{len(program.line.steps)} steps")
        for step, row in zip(program.line.steps, rows, strict=True):
            shape = "x".join(map(str, step.output.shape))
            function = str(step.function).removesuffix(".default")
            assert row.split()[:3] == [str(step.output), function, shape]
            assert row.endswith(step.label) and step.label
    text = str(op.program)
    assert "conv2d in first" in text and "prelu in slopes" in text
    convolution = next(row for row in text.splitlines() if "conv2d in first" in row)
    assert " c " in convolution and "[8x3x3x3]" in convolution


def test_labels_are_the_calls_of_the_network():
    op = small(Spellings)
    calls = op.calls()
    for step in op.program.line.steps:
        assert calls[step.call] == step.label
    order = [s.call for s in op.program.line.steps]
    assert order == sorted(order)
    for step in (*op.program.linear.line.steps, *op.program.T.line.steps):
        assert step.label in calls


def test_a_fold_takes_steps_and_changes_little():
    op, plain = small(Spellings, check=False), small(Spellings, fold=False, check=False)
    v = probes(2, op.input_shape)
    assert len(op.program.linear.line.steps) < len(plain.program.linear.line.steps)
    assert op.program.nbytes > plain.program.nbytes
    assert close(op.filter(v), plain.filter(v))
    assert torch.equal(op.program(v[:1]), plain.program(v[:1]))


def test_a_program_is_a_program_of_its_own():
    """Its line, taken as a whole again."""
    op = small(Image)
    again = Program(op.program.line)
    v = probes(3, op.input_shape)
    assert torch.equal(again(v), op.program(v)) and torch.equal(again.linear(v), op.filter(v))
