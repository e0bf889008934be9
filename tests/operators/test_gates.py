"""Gates and their slopes to a few units in the last place, at every exponent."""

import pytest
import torch
from place import here

from linscope_cuda.operators import functions as ops
from linscope_cuda.operators import reference

pytestmark = pytest.mark.usefixtures("device")

DTYPES = [torch.float32, torch.float64]
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan")]


def sweep(dtype: torch.dtype) -> torch.Tensor:
    """Both signs of 64 numbers at each exponent, denormal ones too, and where exp over- and
    underflows.
    """
    limits = torch.finfo(dtype)
    smallest = limits.smallest_normal * limits.eps
    low, high = (torch.tensor(v, dtype=torch.float64).log2() for v in (smallest, limits.max))
    exponents = torch.arange(round(low.item()), round(high.item()), dtype=torch.float64)
    mantissas = 1 + torch.arange(64, dtype=torch.float64) / 64
    positive = torch.cat(
        [
            (mantissas[:, None] * 2**exponents).flatten(),
            torch.linspace(0, 120, 4001, dtype=torch.float64),
            torch.linspace(700, 760, 1001, dtype=torch.float64),
        ]
    )
    x = torch.cat([positive, -positive, torch.tensor(SPECIAL, dtype=torch.float64)]).to(dtype)
    return here(x)


def errors(got: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """In units of the last place; what is infinite or NaN in one has to be so in the other."""
    rounded = truth.to(got.dtype)
    same = (got == rounded) | (got.isnan() & rounded.isnan())
    size = rounded.abs()
    unit = torch.nextafter(size, torch.full_like(size, float("inf"))).double() - size.double()
    return torch.where(same, 0.0, (got.double() - truth).abs() / unit)


def worst(x: torch.Tensor, error: torch.Tensor) -> str:
    error = error.nan_to_num(float("inf"))
    return f"{error.max().item():.3g} at {x[error.argmax()].item()!r}"


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_values_and_gates(kind, dtype):
    x = sweep(dtype)
    if kind == "sigmoid":  # exp(-x) is beyond the format, and so 0 though 1 / exp(-x) is denormal
        x = x[(x > torch.tensor(torch.finfo(dtype).smallest_normal).log()) | ~x.isfinite()]
    y, gate = ops.gate_scope(x[None], kind=kind)
    truth = reference.GATES[kind]
    for got, function in ((y[0], truth.value), (gate[0], truth.gate)):
        error = errors(got, function(x.double()))
        assert error.max() <= 4, worst(x, error)
    number = ~x.isnan()  # whose sign says nothing
    assert torch.equal(y[0].signbit()[number], truth.value(x).signbit()[number])


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("sigmoid", 100),  # x times the rounding of tanh(x), where that is nearly 1
        ("tanh", 100),
        ("gelu", 1000),  # the rounding of x * x, in an exponent
    ],
)
def test_slopes_of_gates(kind, limit, dtype):
    # Where the square of x is neither 0 nor infinite; infinite x has no slope.
    x = sweep(dtype)
    x = x[(x.abs() < 1e18) & (x.abs() > 1e-18)]
    ones, zeros = torch.ones_like(x), torch.zeros_like(x)
    batch, grad = torch.stack([x, ones]), torch.stack([zeros, ones])
    got = torch.ops.linscope.gate_scope_backward(grad, batch, 1, ops.GATES.index(kind))[0]
    error = errors(got, reference.GATES[kind].gate_slope(x.double()))
    assert error.max() <= limit, worst(x, error)
