"""Ranks and energy against dense matrices, and pictures that show what they are given."""

import io
import math

import pytest
import torch
from PIL import Image

import linscope_cuda as ls
from linscope_cuda.report.spectrum import convergence, energy_curve, spectrum


def dense(N=60, n=50, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, n, generator=generator, dtype=torch.float64)


def entropy_rank(sigmas):
    p = sigmas.square() / sigmas.square().sum()
    return (-(p * p.log()).sum()).exp().item()


def test_all_values_known_is_exact():
    op = ls.MatrixOperator(dense(8, 12))
    found = ls.svd(op, 8, progress=False)
    before = op.passes
    said, sigmas = spectrum(op, found), torch.linalg.svdvals(op.matrix)
    assert op.passes == before and said.energy_error == 0
    assert said.energy == pytest.approx(op.matrix.square().sum().item())
    assert said.stable_rank == pytest.approx(said.energy / sigmas[0].item() ** 2)
    assert said.effective_rank == pytest.approx([entropy_rank(sigmas)] * 2)
    assert said.shares[-1] == pytest.approx(1) and said.shares == sorted(said.shares)


def test_the_rest_is_estimated():
    op = ls.MatrixOperator(dense())
    found = ls.svd(op, 6, progress=False)
    said, sigmas = spectrum(op, found, probes=400), torch.linalg.svdvals(op.matrix)
    true = op.matrix.square().sum().item()
    assert abs(said.energy - true) < 4 * said.energy_error < 0.05 * true
    assert said.stable_rank == pytest.approx(true / sigmas[0].item() ** 2, rel=0.05)
    low, high = said.effective_rank
    assert low < entropy_rank(sigmas) < high <= 50
    assert said.shares[5] == pytest.approx((sigmas[:6].square().sum() / true).item(), rel=0.05)


def test_equal_values_and_one_row():
    op = ls.MatrixOperator(2 * torch.eye(20, dtype=torch.float64))
    said = spectrum(op, ls.svd(op, 3, progress=False))
    assert said.effective_rank[1] == pytest.approx(20, rel=0.1)
    assert said.stable_rank == pytest.approx(20, rel=0.3)
    row = ls.MatrixOperator(dense(1, 30))
    said = spectrum(row, ls.svd(row, 1, progress=False))
    assert said.stable_rank == pytest.approx(1) and said.effective_rank == pytest.approx((1, 1))


def test_zero_has_no_rank():
    op = ls.MatrixOperator(torch.zeros(5, 6).double())
    said = spectrum(op, ls.svd(op, 2, progress=False))
    assert said.energy == 0 and said.shares == [0, 0]
    assert math.isnan(said.stable_rank) and math.isnan(said.effective_rank[0])
    energy_curve(said, "nothing")


def test_too_few_probes_are_refused():
    op = ls.MatrixOperator(dense())
    with pytest.raises(ValueError, match="2 probes or more, was given 1"):
        spectrum(op, ls.svd(op, 1, progress=False), probes=1)


def pixels(png):
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return {colour for _, colour in picture.getcolors(1 << 24)}, picture.size


def test_pictures():
    op, runs = ls.MatrixOperator(dense()), {}
    for method in ("lanczos", "paper", "paper-literal"):
        runs[method] = []
        found = ls.svd(op, 3, method, tol=1e-3, progress=False, callback=runs[method].append)
    png = convergence(runs, "convergence")
    colours, _ = pixels(png)
    assert {(0x21, 0x66, 0xAC), (0xD6, 0x60, 0x4D), (0x64, 0x74, 0x8B)} <= colours
    assert png == convergence(runs, "convergence") != convergence(runs, "other")
    assert png != convergence(runs, "convergence", sequential=True)
    fewer, _ = pixels(convergence({"lanczos": runs["lanczos"]}, "convergence"))
    assert (0xD6, 0x60, 0x4D) not in fewer
    curve = energy_curve(spectrum(op, found), "energy")
    assert (0x21, 0x66, 0xAC) in pixels(curve)[0] and min(pixels(curve)[1]) > 400


@pytest.mark.parametrize("runs", [{}, {"lanczos": []}])
def test_nothing_to_draw_is_refused(runs):
    with pytest.raises(ValueError, match="a step or more of each method"):
        convergence(runs, "convergence")
