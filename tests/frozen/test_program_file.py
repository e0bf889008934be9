"""Frozen networks in files: what is loaded gives the products of what was saved, bit for bit, and
what is no such file is refused in a sentence.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from networks import Gated, Image, Line, Spellings, build, example
from program_fuzz import HEADER, products, read, write
from torch import nn

import linscope_cuda as ls
from linscope_cuda.files import read_tensors


class Tokens(nn.Module):
    """Attention and norms."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.norm(x)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return F.softmax(self.last(F.gelu(h)), 2) * self.last(h)


class Spectral(nn.Module):
    """Complex weights, conjugated and negated, between a transform and its inverse."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(2, 1, 6, 4, dtype=torch.complex128)
        self.register_buffer("weight", weight)
        self.register_buffer("negative", torch.randn(6, 4, dtype=torch.complex128).conj().imag)

    def forward(self, x):
        h = torch.fft.rfft2(x) * self.weight[0].conj() + self.weight[1] + self.negative
        return F.relu(torch.fft.irfft2(h, s=(6, 6))).flatten(1)


class Shared(nn.Module):
    """One memory for several weights, in several orders: transposed, expanded, channels last."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(4, 4, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.two.weight = self.one.weight
        self.register_buffer("ramp", torch.randn(5))

    def forward(self, x):
        h = F.relu(self.two(F.relu(self.one(x))))
        return h * self.ramp[1:].expand(4, 4) + self.ramp[:4, None] @ self.ramp[None, :4]


SHAPES = {Tokens: (1, 5, 8), Spectral: (1, 1, 6, 6), Shared: (1, 4, 4, 4)}
KINDS = [Spellings, Image, Line, Gated, *SHAPES]


def frozen(kind, policy="paper", **options):
    if kind not in SHAPES:
        return ls.LinearInterpreter(build(kind), example(kind), policy, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x0 = kind().eval().double(), torch.randn(SHAPES[kind], dtype=torch.float64)
    return ls.LinearInterpreter(model, x0, policy, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.linscope"


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_what_was_saved(kind, policy, path):
    op = frozen(kind, policy)
    op.save(path)
    loaded = ls.load(path)
    assert all(map(torch.equal, products(loaded), products(op)))
    assert torch.equal(loaded.x0, op.x0) and torch.equal(loaded.output, op.output)
    assert torch.equal(loaded.residual, op.residual)


def test_a_file_tells_whose_it_is(path):
    op = frozen(Spellings, ls.Policy("paper", modules={"last": "taylor"}), fold=False)
    op.save(path)
    loaded = ls.load(path)
    assert loaded.model == "Spellings" and loaded.calls() == op.calls()
    assert repr(loaded.policy) == repr(op.policy) and not loaded.program.fold
    assert loaded.written_by == {"linscope_cuda": ls.__version__, "torch": torch.__version__}
    assert f"Spellings from {path}" in repr(loaded)


def test_what_is_loaded_can_be_saved_again(path):
    frozen(Line).save(path)
    first = path.read_bytes()
    ls.load(path).save(path)
    assert path.read_bytes() == first


def test_what_is_loaded_is_an_operator_like_any(path):
    op = frozen(Image)
    op.save(path)
    loaded = ls.load(path, max_bytes=1)
    assert loaded.max_batch == 1
    loaded.max_batch = None
    assert torch.equal(loaded.rows([(0, 3, 3)]), op.rows([(0, 3, 3)]))
    assert torch.equal(loaded.columns([(1, 2, 2)]), op.columns([(1, 2, 2)]))
    assert (loaded - op).todense().abs().max() == 0
    assert torch.allclose(ls.svd(loaded, 2).S, ls.svd(op, 2).S)
    (field, same) = (ls.fields(each, (3, 3)).receptive.energy for each in (loaded, op))
    assert torch.equal(field, same)
    assert len(loaded.program.line.steps) == len(op.program.line.steps)


def test_scores_of_what_is_loaded(path):
    op = frozen(Spellings)
    op.save(path)
    loaded = ls.load(path)
    assert torch.equal(ls.ledger(loaded, [2]).values, ls.ledger(op, [2]).values)
    assert torch.equal(ls.pixel_votes(loaded), ls.pixel_votes(op))


def test_the_certificate_measures_what_needs_no_model(path):
    op = frozen(Tokens)
    op.save(path)
    certificate = ls.load(path).certify()
    assert certificate.ok and list(certificate.errors) == [
        "F x0 + r = y0",
        "<F a, F a> = <F^T F a, a>",
        "F (a + b) = F a + F b",
        "F (-3 a) = -3 F a",
    ]
    whole = op.certify().errors
    assert all(whole[name] == error for name, error in certificate.errors.items())


def test_memory_is_stored_once(path):
    op = frozen(Shared)
    op.save(path)
    _, tensors = read_tensors(path)
    weight = op.model.one.weight
    sizes = sorted(t.nbytes for t in tensors.values())
    assert sizes.count(weight.nbytes) == 1
    loaded = ls.load(path).program.line.constants()
    strides = [t.stride() for t in op.program.line.constants()]
    assert [t.stride() for t in loaded] == strides
    (shared,) = {t.data_ptr() for t in loaded if t.shape == weight.shape}
    assert shared and weight.stride() in strides


def test_a_doubled_batch_has_no_program(path):
    for options in ({"storage": "none"}, {"differentiable": True}):
        with pytest.raises(ValueError, match="no program to save"):
            frozen(Image, **options).save(path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        frozen(Image).save(path.parent / "none" / "one.linscope")
    assert not path.exists()


def test_stale_weights_are_not_saved(path):
    op = frozen(Image)
    with torch.no_grad():
        op.model.head.weight.add_(1)
    with pytest.raises(ls.StaleTape):
        op.save(path)


def test_a_function_that_no_file_may_hold_is_named(path):
    with torch.library._scoped_library("linscope_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")
        op = frozen(Image)
        op.program.line.steps[-1] = _called(op, torch.ops.linscope_test.twice.default)
        with pytest.raises(ValueError, match=r"linscope_test\.twice.* not among the functions"):
            op.save(path)


def _called(op, function):
    last = op.program.line.steps[-1]
    return type(last)(function, last.args[:1], {}, last.outputs, "twice in net")


# ---- Refusals ----


def step_with(header, function):
    return next(s for s in header["line"]["steps"] if s["function"] == function)


def edit(*path_and_value):
    *path, value = path_and_value

    def change(header, tensors):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


def argument(function, at, value):
    return lambda header, _: step_with(header, function)["args"].__setitem__(at, value)


def renamed(function, other):
    return lambda header, _: step_with(header, function).update(function=other)


def other_weight(header, tensors):
    tensors["storage.0"] = torch.zeros_like(tensors["storage.0"])


def shorter(header, tensors):
    tensors["storage.0"] = tensors["storage.0"][:-8]


CONVOLUTION = "aten.convolution.default"

REFUSED = {
    "another version": (edit("format", 1), "no program of this version"),
    "no policy": (edit("policy", "default", "mine"), "policy wants one of"),
    "calls": (edit("calls", [1]), "calls are no names"),
    "a part too many": (edit("more", 1), "the header wants"),
    "no line": (edit("line", []), "line of the header must be a dict"),
    "x0": (lambda _, tensors: tensors.pop("x0"), "x0 is no sample"),
    "an infinite x0": (lambda _, tensors: tensors["x0"].fill_(torch.inf), "NaN or infinity"),
    "an input of whole numbers": (edit("line", "input", [[1, 2, 9, 10], "int64"]), "the input is"),
    "another output": (lambda _, tensors: tensors["output"].add_(1), "output is not the program's"),
    "other weights": (other_weight, "output is not the program's"),
    "an unknown function": (renamed(CONVOLUTION, "os.system"), "'os.system', which no file may"),
    "a writing function": (renamed(CONVOLUTION, "aten.add_.Tensor"), "which no file may"),
    "a random function": (renamed(CONVOLUTION, "aten.bernoulli.p"), "which no file may"),
    "memory of nobody": (renamed(CONVOLUTION, "aten.empty.memory_format"), "which no file may"),
    "a later value": (argument(CONVOLUTION, 0, {"value": 40}), "number 40, of 1 that are known"),
    "a value before all": (argument(CONVOLUTION, 0, {"value": -1}), "number -1"),
    "a value that is none": (argument(CONVOLUTION, 0, {"value": False}), "number False"),
    "no such constant": (argument(CONVOLUTION, 1, {"constant": 99}), "number 99"),
    "no constant": (argument(CONVOLUTION, 1, None), "wants weight as Tensor, was given None"),
    "text for a tensor": (argument(CONVOLUTION, 1, "x"), "wants weight as Tensor"),
    "a fraction for a size": (argument(CONVOLUTION, 3, [1.5, 1]), "wants stride as"),
    "a number for a truth": (argument(CONVOLUTION, 6, 0), "wants transposed as bool"),
    "an unknown mark": (argument(CONVOLUTION, 3, {"code": "1"}), "names the 'code' '1'"),
    "several marks": (argument(CONVOLUTION, 3, {"value": 0, "constant": 0}), "which is none"),
    "too few arguments": (
        lambda header, _: step_with(header, CONVOLUTION)["args"].pop(),
        "lacks its argument 'groups'",
    ),
    "too many arguments": (
        lambda header, _: step_with(header, CONVOLUTION)["args"].append(1),
        "in other places",
    ),
    "an unknown name": (edit("line", "steps", 0, "kwargs", {"out": 1}), "no argument 'out'"),
    "an impossible argument": (argument(CONVOLUTION, 3, [0, 0]), "convolution.default fails on x0"),
    "another shape": (
        edit("line", "steps", 0, "outputs", [[[1, 6, 9, 5], "float64"]]),
        "result of aten.convolution.default is .*float64 of shape",
    ),
    "another dtype": (
        edit("line", "steps", 0, "outputs", [[[1, 6, 5, 5], "float32"]]),
        "not torch.float32",
    ),
    "a result too many": (
        edit("line", "steps", 0, "outputs", [[[1], "float64"]] * 2),
        "does not give 2 tensors",
    ),
    "no result": (edit("line", "steps", 0, "outputs", [None]), "does not give"),
    "a short storage": (shorter, "goes beyond its storage"),
    "no storage": (lambda _, tensors: tensors.pop("storage.0"), "which is not there"),
    "a storage of numbers": (
        lambda _, tensors: tensors.update({"storage.0": torch.zeros(999)}),
        "no row of bytes",
    ),
    "a stride back": (edit("line", "constants", 0, "stride", [-1, 1, 1, 1]), "from 0"),
    "a far place": (edit("line", "constants", 0, "offset", 2**60), "goes beyond its storage"),
    "a place before": (edit("line", "constants", 0, "offset", -1), "goes beyond its storage"),
    "a stride too few": (edit("line", "constants", 0, "stride", [1]), "goes beyond its storage"),
    "an unknown dtype": (edit("line", "constants", 0, "dtype", "object"), "unknown dtype"),
    "a real conjugate": (edit("line", "constants", 0, "conjugate", True), "cannot be a conjugate"),
    "a vast constant": (
        lambda header, _: header["line"]["constants"][0].update(
            shape=[2**40] * 4, stride=[0, 0, 0, 0]
        ),
        "is no program",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, path):
    change, says = REFUSED[name]
    frozen(Image).save(path)
    header, tensors = read(path)
    change(header, tensors)
    write(path, header, tensors)
    with pytest.raises(ValueError, match=says) as refused:
        ls.load(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_damaged_files(path):
    with pytest.raises(FileNotFoundError, match="there is no program at"):
        ls.load(path)
    frozen(Line).save(path)
    content = path.read_bytes()
    for damaged in (b"", b"x" * 99, content[:-1], content[: len(content) // 2], content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or no program"):
            ls.load(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="was altered"):
        ls.load(path)
    safetensors.torch.save_file({"x0": torch.zeros(1)}, path, {HEADER: "[" * 200_000})
    with pytest.raises(ValueError, match="damaged or no program"):
        ls.load(path)
    frozen(Line).tape.save(path)
    with pytest.raises(ValueError, match="no program of this version"):
        ls.load(path)


@pytest.mark.parametrize("name", ["Spellings", "Line"])
def test_a_changed_file_is_refused_in_a_sentence_or_runs(name, tmp_path):
    """In a process of its own: what is not refused might end it."""
    program = Path(__file__).parents[1] / "program_fuzz.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), name, "160"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line[0].isdigit()]
    assert len(lines) == 160 and 2 <= sum(line.endswith("runs") for line in lines) <= 40
