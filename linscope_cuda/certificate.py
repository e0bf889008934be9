"""The certificate: measured evidence that an interpreter is the linear system it says it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .operator import gaussian, seeded

if TYPE_CHECKING:
    from .interpreter import LinearInterpreter


class CertificateError(RuntimeError):
    """A network's filter and residual are not what they should be; the message names the call."""


@dataclass(frozen=True)
class Certificate:
    """What was measured: `errors` by name, relative, against `tolerance`; `ok` if all are within.

    `blamed` is the first call at which the frozen network departs, None where nothing does.
    """

    errors: dict[str, float]
    tolerance: float
    blamed: str | None = None

    @property
    def ok(self) -> bool:
        return all(error <= self.tolerance for error in self.errors.values())  # NaN is not

    def __str__(self) -> str:
        wide = max(map(len, self.errors))
        lines = [
            f"{'ok' if error <= self.tolerance else 'NO':3} {name:{wide}}  {error:.1e}"
            for name, error in self.errors.items()
        ]
        blamed = f"\nfirst departs at {self.blamed}" if self.blamed else ""
        return "\n".join([*lines, f"    {'tolerance':{wide}}  {self.tolerance:.1e}"]) + blamed


def tolerance(dtype: torch.dtype) -> float:
    """eps^(3/4) with a margin for depth: 7e-12 in float64, 3e-5 in float32, 2e-2 in float16."""
    return 4 * torch.finfo(dtype).eps ** 0.75


def _relative(difference: Tensor, *scales: Tensor) -> float:
    """|difference| over the largest of the scales' norms, in float64; NaN where any has NaN."""
    norms = [t.double().norm().item() for t in (difference, *scales)]
    if not all(map(math.isfinite, norms)):
        return math.nan
    return norms[0] / max(norms[1:]) if norms[0] else 0.0


def measure(op: LinearInterpreter, generator: torch.Generator | None = None) -> dict[str, float]:
    """Every error: against the plain model, equations 1, 3 and 6, and linearity, on random probes.

    About 12 network passes.
    """
    generator = seeded(generator)
    errors = {"output = f(x0)": _relative(op.output - op.plain(), op.output)}
    errors |= quick(op, generator)
    a, b = (_probe(op, generator) for _ in range(2))
    Fa, Fb, hiding = op.filter(a), op.filter(b), _hiding(op)
    errors["F (a + b) = F a + F b"] = _relative(op.filter(a + b) - Fa - Fb, Fa, Fb, *hiding)
    errors["F (-3 a) = -3 F a"] = _relative(op.filter(-3 * a) + 3 * Fa, Fa, *hiding)
    return errors


def _hiding(op: LinearInterpreter) -> list[Tensor]:
    """What the doubled batch subtracts to get F v: an F v far below its last digit is not seen."""
    return [op.residual] if op.storage == "none" else []


def quick(op: LinearInterpreter, generator: torch.Generator | None = None) -> dict[str, float]:
    """The errors that matter most, in 6 network passes: F x0 + r = y0; F of a combination, alone
    and in a batch; the adjoint.
    """
    generator = seeded(generator)
    x0, y0, r, hiding = op.x0, op.output, op.residual, _hiding(op)
    a = _probe(op, generator)
    Fx0, Fa = op.filter(torch.cat([x0, a])).split(1)
    mixed = op.filter(x0 - 1.5 * a)
    u = gaussian((1, *op.output_shape), generator, op.device).to(op.dtype)
    pulled = op.transpose(u)
    adjoint = (u.double() * Fa.double()).sum() - (pulled.double() * a.double()).sum()
    sizes = [t.double().norm() for t in (u, pulled, a)]
    seen = max(t.double().norm() for t in (Fa, *hiding))
    return {
        "F x0 + r = y0": _relative(Fx0 + r - y0, Fx0, r, y0),
        "F (x0 - 1.5 a) = F x0 - 1.5 F a": _relative(mixed - Fx0 + 1.5 * Fa, Fx0, Fa, *hiding),
        "<u, F v> = <F^T u, v>": _relative(adjoint, sizes[0] * seen, sizes[1] * sizes[2]),
    }


def _probe(op: LinearInterpreter, generator: torch.Generator) -> Tensor:
    """A random probe of x0's size."""
    probe = gaussian((1, *op.input_shape), generator, op.device).to(op.dtype)
    size = op.x0.norm()
    return probe * (size / probe.norm()) if size > 0 else probe


def blame(op: LinearInterpreter) -> str | None:
    """The first of the network's calls at which a frozen network cut off there departs."""
    limit = tolerance(op.dtype)

    def departs(call: int) -> bool:
        try:
            errors = quick(op.cut_off(call))
        except (RuntimeError, ValueError, TypeError):
            return True
        return not all(error <= limit for error in errors.values())

    calls = op.calls()
    first, last = 0, len(calls)  # calls before `first` are right, `last` departs or is none
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if departs(middle) else (middle + 1, last)
    return calls[first] if first < len(calls) else None


def certify(op: LinearInterpreter, generator: torch.Generator | None = None) -> Certificate:
    """`op.certify()`."""
    certificate = Certificate(measure(op, generator), tolerance(op.dtype))
    return certificate if certificate.ok else replace(certificate, blamed=blame(op))


def require_linear(op: LinearInterpreter) -> None:
    """CertificateError, naming the call, where the quick errors are out of tolerance."""
    certificate = Certificate(quick(op), tolerance(op.dtype))
    if certificate.ok:
        return
    wrong = next(n for n, e in certificate.errors.items() if not e <= certificate.tolerance)
    raise CertificateError(
        f"{wrong} fails by {certificate.errors[wrong]:.1e} (tolerance {certificate.tolerance:.1e})"
        f"; the frozen network first departs at {blame(op) or 'its output'}: there or "
        "just before it something acts on the network's input that is neither frozen nor linear"
    )
