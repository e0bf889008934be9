"""Rows, columns and all of F by boxes and colours, against full products of unit vectors."""

import numpy as np
import pytest
import torch
from networks import INPUTS, Image, Line, Spellings, build, example
from place import here
from torch import nn

import linscope_cuda as ls
from linscope_cuda.frozen import boxes as ways

WAYS = [ways._Whole, ways._InBoxes, ways._InOneBox, ways._Coloured]


def local_network(seed=0, dtype=torch.float64):
    """A picture to a larger one; its fields are small."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        x0 = torch.randn(1, 3, 21, 26, dtype=dtype)
    return here(model.to(dtype).eval().requires_grad_(False)), here(x0)


@pytest.fixture(scope="module")
def op():
    return ls.LinearInterpreter(*local_network())


@pytest.fixture(scope="module")
def matrix(op):
    return dense(op)


def dense(op):
    n = op.shape[1]
    units = torch.eye(n, dtype=op.dtype, device=op.device).reshape(n, *op.input_shape)
    return op.source.filter(units, 2**40).reshape(n, -1).T


def ways_taken(monkeypatch, *kinds):
    """Lets unit probes be answered in these ways only; the kinds that were."""
    seen = []
    for kind in WAYS:
        cost = 0.0 if kind in kinds else 1e9
        monkeypatch.setattr(kind, "seconds", lambda self, like, cost=cost: cost)
        answers = kind.answers

        def noted(self, like, max_bytes, kind=kind, answers=answers):
            seen.append(kind)
            return answers(self, like, max_bytes)

        monkeypatch.setattr(kind, "answers", noted)
    return seen


@pytest.mark.parametrize("kind", WAYS)
def test_each_way_gives_rows_and_columns(op, matrix, kind, monkeypatch):
    seen = ways_taken(monkeypatch, kind)
    scale = matrix.abs().max()
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(op.shape[1], generator=generator)[:400].tolist()
    got = op.columns(some).reshape(len(some), -1)
    assert (got - matrix.T[some]).abs().max() <= 1e-14 * scale
    some = torch.randperm(op.shape[0], generator=generator)[:400].tolist()
    got = op.rows(some).reshape(len(some), -1)
    assert (got - matrix[some]).abs().max() <= 1e-14 * scale
    assert set(seen) == {kind}


@pytest.mark.parametrize("kind", [Spellings, Image, Line])
@pytest.mark.parametrize("way", WAYS)
def test_any_network(kind, way, monkeypatch):
    op = ls.LinearInterpreter(build(kind), example(kind))
    matrix = dense(op)
    ways_taken(monkeypatch, way)
    for product, of in ((op.columns, matrix.T), (op.rows, matrix)):
        got = product(range(len(of))).reshape(of.shape)
        assert (got - of).abs().max() <= 1e-14 * of.abs().max()


def test_memory_is_kept_to(op, matrix, monkeypatch):
    ways_taken(monkeypatch, ways._InBoxes)
    most, run = [], op.source.boxes("filter").local.run

    def watched(plans, x):
        most.append(len(plans) * x.shape[1] * plans[0].peak_bytes)
        return run(plans, x)

    monkeypatch.setattr(op.source.boxes("filter").local, "run", watched)
    monkeypatch.setattr(op, "max_bytes", 50_000)
    got = op.columns(range(60)).reshape(60, -1)
    assert len(most) > 2 and max(most) <= 50_000
    assert (got - matrix.T[:60]).abs().max() <= 1e-14 * matrix.abs().max()


@pytest.mark.parametrize("kind", WAYS)
def test_boxes_hold_what_is_not_zero(op, matrix, kind, monkeypatch):
    ways_taken(monkeypatch, kind)
    some = [0, 5, 333, 1500]
    for name, of, shape in (
        ("columns", matrix.T, op.output_shape),
        ("rows", matrix, op.input_shape),
    ):
        for k, (box, values) in zip(some, op.boxes(**{name: some}), strict=True):
            got = torch.zeros(shape, dtype=op.dtype, device=op.device)
            got[tuple(slice(*b) for b in box)] = values
            assert (got.flatten() - of[k]).abs().max() <= 1e-14 * matrix.abs().max()
            assert values.numel() < 0.4 * got.numel()


def test_columns_of_the_transpose_are_rows(op, matrix):
    assert torch.equal(op.T.columns([5, 700]), op.rows([5, 700]))
    assert torch.equal(op.T.rows([(1, 4, 5)]), op.columns([(1, 4, 5)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_probes_that_are_zero_almost_everywhere(dtype):
    op = ls.LinearInterpreter(*local_network(dtype=dtype))
    large = ls.LinearInterpreter(op.model, here(torch.randn(1, 3, 150, 170).to(dtype)), check=False)
    x = torch.zeros(2, *large.input_shape, dtype=dtype, device=large.device)
    x[0, :, 70:73, 80:82] = torch.randn(3, 3, 2, dtype=dtype)
    x[1, 1, 75, 81] = 1
    few = large.source.boxes("filter").probes(x)
    assert few is not None
    full = large.program.linear(x)
    assert (few - full).abs().max() <= 30 * torch.finfo(dtype).eps * full.abs().max()
    assert torch.equal(large.filter(x), few)
    assert large.source.boxes("filter").probes(torch.ones_like(x)) is None
    assert not large.filter(torch.zeros_like(x)).any()


def test_support_tells_before_anything_is_computed(op, matrix):
    before = op.passes
    supports = op.support(rows=[0, (2, 20, 25), 1000])
    assert op.passes == before
    for k, box in zip([0, 2 * 42 * 52 + 20 * 52 + 25, 1000], supports, strict=True):
        row = matrix[k].reshape(op.input_shape)
        inside = torch.zeros_like(row)
        inside[tuple(slice(*b) for b in box)] = 1
        assert not row[inside == 0].any() and row[inside == 1].any()
    assert op.support(columns=[(1, 10, 11)]) == [((0, 3), (14, 28), (16, 30))]
    assert op.support(rows=torch.tensor([0, 1000])) == supports[::2]
    assert op.support(rows=[]) == []


@pytest.mark.parametrize("arguments", [{}, {"rows": [0], "columns": [0]}])
def test_support_wants_one_of_two(op, arguments):
    with pytest.raises(ValueError, match="rows= or columns="):
        op.support(**arguments)


def test_support_of_what_is_not_there(op):
    with pytest.raises(ValueError, match=r"lies outside \(3, 21, 26\)"):
        op.support(columns=[(3, 0, 0)])


def test_no_answer_is_a_box_of_nothing():
    model = nn.Conv2d(1, 1, 1, stride=3, bias=False)
    op = ls.LinearInterpreter(model.eval(), torch.randn(1, 1, 7, 7), check=False)
    assert op.support(columns=[(0, 1, 0), (0, 3, 3)]) == [((0, 0),) * 3, ((0, 1), (1, 2), (1, 2))]
    assert not op.columns([(0, 1, 0)]).any()
    [(box, values)] = op.boxes(columns=[(0, 1, 0)])
    assert box == ((0, 0),) * 3 and values.shape == (0, 0, 0)


def sparse_equals(op, matrix):
    got = op.tosparse(progress=False)
    assert got.shape == op.shape and got.has_canonical_format
    assert (
        torch.from_numpy(got.toarray()) - matrix.cpu()
    ).abs().max() <= 1e-14 * matrix.abs().max()
    return got


def test_the_whole_matrix_in_as_many_passes_as_the_field_has_places(op, matrix):
    before = op.passes
    got = sparse_equals(op, matrix)
    assert op.passes - before == 7 * 7 * 3  # the fields of columns, in pixels of the input
    assert got.nnz == (got.toarray() != 0).sum() < 0.2 * got.shape[0] * got.shape[1]
    torch_one = op.tosparse("torch", progress=False)
    assert torch_one.layout == torch.sparse_csr
    assert torch.equal(torch_one.to_dense(), torch.from_numpy(got.toarray()))
    before = op.passes
    assert (op.todense() - matrix).abs().max() <= 1e-14 * matrix.abs().max()
    assert op.passes - before == 7 * 7 * 3


@pytest.mark.parametrize("kind", [Spellings, Image, Line])
@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_the_matrix_of_any_network(kind, policy):
    op = ls.LinearInterpreter(build(kind), example(kind), policy)
    sparse_equals(op, dense(op))


def test_rows_are_coloured_where_they_are_fewer():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    op = ls.LinearInterpreter(here(model.double().eval()), here(torch.randn(1, 3, 24, 24).double()))
    before = op.passes
    sparse_equals(op, dense(op))
    assert op.passes - before == 9


def test_without_a_program():
    model, x0 = local_network()
    op = ls.LinearInterpreter(model, x0[..., :9, :8], storage="none")
    wanted = dense(op)
    sparse_equals(op, wanted)
    assert torch.allclose(op.columns([3, 80]).reshape(2, -1), wanted.T[[3, 80]], atol=1e-13)
    assert op.support(columns=[(0, 0, 0)]) == [((0, 3), (0, 8), (0, 8))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_outside(dtype):
    model, x0 = local_network()
    op = ls.LinearInterpreter(model.to(dtype), x0.to(dtype)[..., :9, :8], check=False)
    got = op.tosparse(progress=False)
    assert got.dtype == np.float32
    assert torch.equal(torch.from_numpy(got.toarray()), dense(op).float())


def test_a_matrix_that_is_too_large_costs_no_pass(op):
    before = op.passes
    with pytest.raises(ValueError, match=r"max_bytes allows 1,000"):
        op.tosparse(max_bytes=1000)
    with pytest.raises(ValueError, match="layout wants 'scipy' or 'torch', was given 'coo'"):
        op.tosparse("coo")
    assert op.passes == before


def test_fields_take_a_part_of_a_pass():
    model, _ = local_network(dtype=torch.float32)
    op = ls.LinearInterpreter(model, here(torch.randn(1, 3, 200, 220)), check=False)
    before = op.passes
    got = op.columns([(c, 100, 110) for c in range(3)])
    assert op.passes - before == 1
    units = got.new_zeros(3, *op.input_shape)
    units[range(3), range(3), 100, 110] = 1
    wanted = op.program.linear(units)
    assert (got - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def test_inputs_of_other_kinds():
    for kind in INPUTS:
        op = ls.LinearInterpreter(build(kind), example(kind))
        matrix = dense(op)
        assert (op.todense() - matrix).abs().max() <= 1e-14 * matrix.abs().max()


def test_a_network_from_a_file_and_a_part_of_one(tmp_path, op, matrix):
    op.save(tmp_path / "local.linscope")
    saved = ls.load(tmp_path / "local.linscope")
    assert saved.support(columns=[(1, 10, 11)]) == op.support(columns=[(1, 10, 11)])
    assert torch.equal(saved.columns([5, 700]), op.columns([5, 700]))
    assert (saved.tosparse(progress=False) != op.tosparse(progress=False)).nnz == 0
    local, low_rank = saved.split()
    assert low_rank is None and local.shape == op.shape
    part = op.between("0", "2")
    assert part.support(columns=[(0, 10, 11)]) == [((0, 8), (9, 12), (10, 13))]
    sparse_equals(part, dense(part))
