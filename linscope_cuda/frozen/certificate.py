"""The certificate: measured evidence that an interpreter is the linear system it says it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..display import Tabular
from ..linalg.probes import gaussian, seeded
from ..rules import UnscopedOperation

if TYPE_CHECKING:
    from .interpreter import CutOff, LinearInterpreter
    from .network import FrozenNetwork


class CertificateError(RuntimeError):
    """A network's filter and residual are not what they should be; the message names the call.

    >>> try:
    ...     ls.LinearInterpreter(model, x0)
    ... except ls.CertificateError as error:
    ...     print(error)
    """


@dataclass(frozen=True, repr=False)
class Certificate(Tabular):
    """What was measured: `errors` by name, relative, against `tolerance`; `ok` if all are within.

    `limits` are the tolerances of errors that have one of their own. `blamed` is the first call at
    which the frozen network departs, None where nothing does; `refused` says why there is no F^T,
    where there is none.

    >>> found = op.certify()
    >>> found.ok, found.errors, found.blamed
    """

    errors: dict[str, float]
    tolerance: float
    blamed: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    refused: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every error is within its tolerance."""
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

    def _columns(self) -> dict[str, list[Any]]:
        limits = [self.limit(name) for name in self.errors]
        return {
            "check": list(self.errors),
            "error": list(self.errors.values()),
            "tolerance": limits,
            "ok": [e <= limit for e, limit in zip(self.errors.values(), limits, strict=True)],
        }


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


def _difference(got: Tensor, want: Tensor) -> Tensor:
    """got - want, 0 where both are the same infinity."""
    return (got - want).masked_fill(got == want, 0)


def require_output(said: Tensor, own: Tensor, whose: str) -> None:
    """ValueError unless an output that a file holds is one's own, up to rounding."""
    if own.shape != said.shape or own.dtype != said.dtype:
        wrong = f"is {said.dtype} of shape {tuple(said.shape)}"
        raise ValueError(f"its output {wrong}, {whose} {own.dtype} of shape {tuple(own.shape)}")
    # What is not finite must be the same in both.
    same = (own == said) | (own.isnan() & said.isnan())
    y, want = (t.double().masked_fill(same & ~t.isfinite(), 0) for t in (own, said))
    off = ((y - want).norm() / want.norm()).item() if not same.all() else 0.0
    if not off <= tolerance(own.dtype):
        raise ValueError(f"its output is not {whose} for its x0, which differs by {off:.1e}")


def measure(op: LinearInterpreter, generator: torch.Generator) -> Certificate:
    """Every error: against the plain model, equations 1, 3 and 6, and linearity, on random probes.

    About 13 network passes; under "taylor" 3 more.
    """
    return _and_linear(op, quick(op, generator), generator)


def _and_linear(
    op: FrozenNetwork, certificate: Certificate, generator: torch.Generator
) -> Certificate:
    a, b = (_probe(op, generator) for _ in range(2))
    Fa, Fb = op.filter(torch.cat([a, b])).split(1)
    hiding = _hiding(op, op.residual, certificate.tolerance)
    errors = {
        "F (a + b) = F a + F b": _relative(op.filter(a + b) - Fa - Fb, Fa, Fb, *hiding),
        "F (-3 a) = -3 F a": _relative(op.filter(-3 * a) / 3 + Fa, Fa, *hiding),
    }
    return replace(certificate, errors=certificate.errors | errors)


def _hiding(op: FrozenNetwork, r: Tensor, limit: float) -> list[Tensor]:
    """Sizes below whose last digits an F v is not seen: F v may be a small difference of what makes
    the output, and the doubled batch subtracts r to get it.
    """
    rounding = 8 * torch.finfo(op.narrowest).eps / limit
    sizes = (t.masked_fill(~t.isfinite(), 0).double() for t in (op.output, r))
    return [*(t * rounding for t in sizes), *([r] if op.storage == "none" else [])]


def quick(op: LinearInterpreter | CutOff, generator: torch.Generator) -> Certificate:
    """The errors that matter most, in 7 network passes: y0 = f(x0); F x0 + r = y0; F of a
    combination, against the model's own Python; the adjoint. Under "taylor" F a is compared with a
    derivative that passes through no rule, too.
    """
    found = _Measured(op, generator)
    x0, y0, a, Fx0, Fa = op.x0, op.output, found.a, found.Fx0, found.Fa
    mixed = op.reenact(x0 - 1.5 * a)
    plain = op.plain()
    same, finite = plain.shape == y0.shape, found.finite
    limit = tolerance(op.narrowest)
    hiding = _hiding(op, found.r, limit)
    first = {"output = f(x0)": math.inf}
    if same:
        first = {"output = f(x0)": _relative(_difference(y0, plain), finite(y0), *hiding[:2])}
    apart = _difference(mixed, y0 - 1.5 * Fa)
    second = {_REENACTED: _relative(apart, finite(Fx0), Fa, finite(y0), *hiding)}
    certificate = found.certificate(first, second)
    if found.Ftu is None or not op.policy.everywhere("taylor"):
        return certificate
    more = _derivative(op, found, found.Ftu)
    limits = certificate.limits | dict.fromkeys(more, derivative_tolerance(op.narrowest))
    return replace(certificate, errors=certificate.errors | more, limits=limits)


class _Measured:
    """F x0, F a for a random a, and F^T u for the direction u of F a, None where there is none."""

    def __init__(self, op: FrozenNetwork, generator: torch.Generator):
        self.op = op
        self.r = op.residual
        self.a = _probe(op, generator)
        self.Fx0, Fa = op.filter(op.x0), op.filter(self.a)
        # Within float16's range, also when squared.
        self.Fa, self.u = Fa, (Fa / norm if (norm := Fa.norm()) > 0 else Fa).to(op.dtype)
        self.Ftu, self.refused = None, None
        try:
            self.Ftu = op.transpose(self.u)
        except UnscopedOperation as error:
            self.refused = str(error)

    def certificate(self, first: dict[str, float], second: dict[str, float]) -> Certificate:
        """F x0 + r = y0 between other errors, and the adjoint after them."""
        op, y0, Fx0, finite = self.op, self.op.output, self.Fx0, self.finite
        apart = _difference(Fx0 + self.r, y0)
        error = _relative(apart, finite(Fx0), finite(self.r), finite(y0))
        errors = {**first, "F x0 + r = y0": error, **second}
        limit = adjoint_tolerance(op.narrowest, op.shape[0])
        errors[_ADJOINT] = self._adjoint(limit)
        limits = {_ADJOINT: limit}
        return Certificate(errors, tolerance(op.narrowest), limits=limits, refused=self.refused)

    def _adjoint(self, limit: float) -> float:
        if self.Ftu is None:
            return math.inf
        # A wrong F^T cannot be nearly orthogonal to F a, as it can to a random u.
        want, got = _dot(self.u, self.Fa), _dot(self.Ftu, self.a)
        sizes = [t.norm().item() for t in _hiding(self.op, self.r, limit)[:2]]
        return abs(got - want) / max(want, *sizes, 1e-300) if got != want else 0.0

    def finite(self, y: Tensor) -> Tensor:
        """An output as far as that of x0 is finite: what is not is a constant."""
        return y.masked_fill(~self.op.output.isfinite(), 0)


_REENACTED = "y of x0 - 1.5 a, re-enacted = y0 - 1.5 F a"
_ADJOINT = "<F a, F a> = <F^T F a, a>"


def _derivative(op: LinearInterpreter | CutOff, found: _Measured, Ftu: Tensor) -> dict[str, float]:
    """How far F is from the model's own derivative, in forward mode; in reverse mode where torch
    has no other, or, as PReLU's at 0, one that chooses otherwise. Nothing where it has neither.
    """
    a, Fa, u = found.a, found.Fa, found.u
    limit = derivative_tolerance(op.narrowest)
    forward = {}
    try:
        slope = op.push_forward(a)
    except NotImplementedError:
        pass
    else:
        error = _relative(Fa - slope, Fa, slope, *_hiding(op, found.r, limit))
        forward = {"F a = dh(x0) a": error}
        if error <= limit:
            return forward
    try:
        slope = op.pull_back(u)
    except RuntimeError:  # which NotImplementedError is, too
        return forward
    # Where there is no derivative torch gives NaN, which says nothing.
    known = slope.isfinite()
    apart, slope = ((t.masked_fill(~known, 0)) for t in (Ftu - slope, slope))
    return {
        "F^T F a = dh(x0)^T F a": _relative(apart, Ftu, slope, *_hiding(op, found.r, limit)[:2])
    }


def _dot(a: Tensor, b: Tensor) -> float:
    return (a.double() * b.double()).sum().item()


def _probe(op: FrozenNetwork, generator: torch.Generator) -> Tensor:
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

    names, calls = op.calls(), op.source.recorded().followed
    first, last = 0, len(calls)  # calls before `first` are right, `last` departs or is none
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if departs(calls[middle]) else (middle + 1, last)
    return names[calls[first]] if first < len(calls) else None


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


def certify_alone(op: FrozenNetwork, generator: torch.Generator | None = None) -> Certificate:
    """What can be measured without the model, in 9 network passes: F x0 + r = y0, the adjoint,
    linearity.
    """
    generator = _generator() if generator is None else seeded(generator)
    return _and_linear(op, _Measured(op, generator).certificate({}, {}), generator)
