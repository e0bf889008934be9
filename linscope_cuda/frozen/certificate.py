"""The certificate: measured evidence that an interpreter is the linear system it says it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..linalg.probes import gaussian, seeded
from ..rules import UnscopedOperation

if TYPE_CHECKING:
    from .interpreter import CutOff, LinearInterpreter


class CertificateError(RuntimeError):
    """A network's filter and residual are not what they should be; the message names the call."""


@dataclass(frozen=True)
class Certificate:
    """What was measured: `errors` by name, relative, against `tolerance`; `ok` if all are within.

    `limits` are the tolerances of errors that have one of their own. `blamed` is the first call at
    which the frozen network departs, None where nothing does; `refused` says why there is no F^T,
    where there is none.
    """

    errors: dict[str, float]
    tolerance: float
    blamed: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    refused: str | None = None

    @property
    def ok(self) -> bool:
        return self.wrong is None

    @property
    def wrong(self) -> str | None:
        """The first error that is out of its tolerance, by name; None if there is none."""
        return next((n for n, e in self.errors.items() if not e <= self.limit(n)), None)  # NaN is

    def limit(self, name: str) -> float:
        """The tolerance of an error."""
        return self.limits.get(name, self.tolerance)

    def __str__(self) -> str:
        wide = max(map(len, self.errors))
        lines = [
            f"{'ok' if error <= self.limit(name) else 'NO':3} {name:{wide}}  {error:.1e}"
            f"{f'  (tolerance {self.limits[name]:.1e})' if name in self.limits else ''}"
            for name, error in self.errors.items()
        ]
        lines.append(f"    {'tolerance':{wide}}  {self.tolerance:.1e}")
        lines += [f"first departs at {self.blamed}"] if self.blamed else []
        return "\n".join([*lines, self.refused] if self.refused else lines)


def tolerance(dtype: torch.dtype) -> float:
    """eps^(3/4) with a margin for depth: 7e-12 in float64, 3e-5 in float32, 2e-2 in float16."""
    return 4 * torch.finfo(dtype).eps ** 0.75


def adjoint_tolerance(dtype: torch.dtype, outputs: int) -> float:
    """The roundings of many outputs cancel. Of 28 and more, networks are within 3e-3 in half
    precision, an F^T that lacks a branch is not within 4e-2.
    """
    limit = tolerance(dtype)
    return min(limit, max(limit / outputs**0.5, 2e-2))


def derivative_tolerance(dtype: torch.dtype) -> float:
    """Kernels differ in their last digit, and a decision near 0 may fall otherwise for it."""
    return max(4 * torch.finfo(dtype).eps ** 0.5, 1e-6)


def _relative(difference: Tensor, *scales: Tensor) -> float:
    """|difference| over the largest of the scales' norms, in float64; NaN where any has NaN."""
    tensors = (torch.view_as_real(t) if t.is_complex() else t for t in (difference, *scales))
    norms = [t.double().norm().item() for t in tensors]
    if not all(map(math.isfinite, norms)):
        return math.nan
    return norms[0] / max(norms[1:]) if norms[0] else 0.0


def measure(op: LinearInterpreter, generator: torch.Generator) -> Certificate:
    """Every error: against the plain model, equations 1, 3 and 6, and linearity, on random probes.

    About 13 network passes; under "taylor" 3 more.
    """
    certificate = quick(op, generator)
    a, b = (_probe(op, generator) for _ in range(2))
    Fa, Fb = op.filter(torch.cat([a, b])).split(1)
    hiding = _hiding(op)
    errors = {
        "F (a + b) = F a + F b": _relative(op.filter(a + b) - Fa - Fb, Fa, Fb, *hiding),
        "F (-3 a) = -3 F a": _relative(op.filter(-3 * a) + 3 * Fa, Fa, *hiding),
    }
    return replace(certificate, errors=certificate.errors | errors)


def _hiding(op: LinearInterpreter | CutOff) -> list[Tensor]:
    """What the doubled batch subtracts to get F v: an F v far below its last digit is not seen."""
    return [op.residual] if op.storage == "none" else []


def quick(op: LinearInterpreter | CutOff, generator: torch.Generator) -> Certificate:
    """The errors that matter most, in 7 network passes: y0 = f(x0); F x0 + r = y0; F of a
    combination, against the model's own Python; the adjoint. Under "taylor" F a is compared with a
    derivative that passes through no rule, too.
    """
    x0, y0, r, hiding = op.x0, op.output, op.residual, _hiding(op)
    a = _probe(op, generator)
    Fx0, Fa = op.filter(x0), op.filter(a)
    mixed = op.reenact(x0 - 1.5 * a)
    plain = op.plain()
    same = plain.shape == y0.shape
    errors = {
        "output = f(x0)": _relative(y0 - plain, y0) if same else math.inf,
        "F x0 + r = y0": _relative(Fx0 + r - y0, Fx0, r, y0),
        _REENACTED: _relative(mixed - y0 + 1.5 * Fa, Fx0, Fa, y0, *hiding),
    }
    limits = {_ADJOINT: adjoint_tolerance(op.dtype, op.shape[0])}
    refused = None
    u = Fa / norm if (norm := Fa.norm()) > 0 else Fa  # within float16's range, also when squared
    try:
        Ftu = op.transpose(u)
    except UnscopedOperation as error:
        errors[_ADJOINT], refused = math.inf, str(error)
    else:
        # A wrong F^T cannot be nearly orthogonal to F a, as it can to a random u.
        want, got = _dot(u, Fa), _dot(Ftu, a)
        errors[_ADJOINT] = abs(got - want) / want if want else got - want
        if op.policy.everywhere("taylor"):
            name, error = _derivative(op, a, Fa, u, Ftu, hiding)
            errors[name], limits[name] = error, derivative_tolerance(op.dtype)
    return Certificate(errors, tolerance(op.dtype), limits=limits, refused=refused)


_REENACTED = "y of x0 - 1.5 a, re-enacted = y0 - 1.5 F a"
_ADJOINT = "<F a, F a> = <F^T F a, a>"


def _derivative(
    op: LinearInterpreter | CutOff,
    a: Tensor,
    Fa: Tensor,
    u: Tensor,
    Ftu: Tensor,
    hiding: list[Tensor],
) -> tuple[str, float]:
    """How far F is from the model's own derivative, in forward mode; in reverse mode where torch
    has no other, or, as PReLU's at 0, one that chooses otherwise.
    """
    try:
        slope = op.push_forward(a)
    except NotImplementedError:
        pass
    else:
        error = _relative(Fa - slope, Fa, slope, *hiding)
        if error <= derivative_tolerance(op.dtype):
            return "F a = dh(x0) a", error
    slope = op.pull_back(u)
    return "F^T F a = dh(x0)^T F a", _relative(Ftu - slope, Ftu, slope)


def _dot(a: Tensor, b: Tensor) -> float:
    return (a.double() * b.double()).sum().item()


def _probe(op: LinearInterpreter | CutOff, generator: torch.Generator) -> Tensor:
    """A random probe of x0's size, orthogonal to it: F x0 is known from y0 and r."""
    x0 = op.x0.double()
    size = x0.norm()
    while True:
        probe = gaussian((1, *op.input_shape), generator, op.device)
        if size == 0 or probe.numel() == 1:
            break
        drawn = probe.norm()
        probe = probe - (probe * x0).sum() / size**2 * x0
        if probe.norm() > 0.1 * drawn:  # the generator's numbers may be those that made x0
            probe = probe * (size / probe.norm())
            break
    return probe.to(op.dtype)


def blame(op: LinearInterpreter) -> str | None:
    """The first of the network's calls at which a frozen network cut off there departs."""

    def departs(call: int) -> bool:
        try:
            return not quick(op.cut_off(call), _generator()).ok
        except (RuntimeError, ValueError, TypeError):
            return True

    calls = op.calls()
    first, last = 0, len(calls)  # calls before `first` are right, `last` departs or is none
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if departs(middle) else (middle + 1, last)
    return calls[first] if first < len(calls) else None


def _generator() -> torch.Generator:
    """Of a seed that nobody else takes: 0 may have made x0."""
    return torch.Generator().manual_seed(0x11A5C09E)


def certify(op: LinearInterpreter, generator: torch.Generator | None = None) -> Certificate:
    """`op.certify()`."""
    certificate = measure(op, _generator() if generator is None else seeded(generator))
    return certificate if certificate.ok else replace(certificate, blamed=blame(op))


def require_linear(op: LinearInterpreter) -> None:
    """CertificateError, naming the call, where the quick errors are out of tolerance."""
    certificate = quick(op, _generator())
    wrong = certificate.wrong
    if wrong is None:
        return
    reason = f" ({certificate.refused})" if certificate.refused else ""
    raise CertificateError(
        f"{wrong} fails by {certificate.errors[wrong]:.1e} (tolerance "
        f"{certificate.limit(wrong):.1e}); the frozen network first departs at "
        f"{blame(op) or 'its output'}: there or just before it something acts on the network's "
        f"input that is neither frozen nor linear{reason}"
    )
