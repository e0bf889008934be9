"""The check to run after an installation: every operator against its specification, and the
equations of one network, on the device that will be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..frozen.interpreter import LinearInterpreter
from ..operators import native as _native
from ..operators import reference

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# (samples, channels, height, width) and references: odd planes, and planes for wide accesses that
# are larger than a block of threads.
_SHAPES = (((6, 5, 7, 9), 2), ((4, 33, 24, 40), 1))
_WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


class Check(NamedTuple):
    """`error` is relative to the result's size; it is good up to `tolerance`."""

    name: str
    dtype: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # not so for NaN


def selftest(device: str | torch.device = "cpu") -> list[Check]:
    """Every operator in every dtype, contiguous and channels_last, and a network in float64 and
    float32: a row each, its error the largest found.

    all(check.ok for check in selftest("cuda"))
    """
    device = torch.device(device)
    checks = [
        Check(name, _name(dtype), _operator_error(run, dtype, device), _tolerance(dtype))
        for name, run in _OPERATORS.items()
        for dtype in DTYPES
    ]
    for dtype in DTYPES[:2]:
        checks += _network_checks(dtype, device)
    return checks


def _tolerance(dtype: torch.dtype) -> float:
    # Sums and functions lose a few digits; what is computed wider is rounded once.
    return (4 if dtype.itemsize == 2 else 32) * torch.finfo(dtype).eps


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- Operators: called alike as compiled and as specified ----


class _Compiled:
    """torch.ops.linscope, with the specification's names."""

    def __getattr__(self, name: str) -> Callable:
        return getattr(torch.ops.linscope, name)


_Run = Callable[[Any, Tensor, int], Any]


def _relu(ops: Any, x: Tensor, references: int) -> Any:
    last = reference.is_channels_last(x)
    y, decision = ops.relu_scope(x, references, 0.25, last)
    return y, decision, ops.relu_frozen(x.flip(0), decision, 0.25, last)


def _clamp(ops: Any, x: Tensor, references: int) -> Any:
    last = reference.is_channels_last(x)
    y, decision = ops.clamp_scope(x, references, -0.5, 1.0, last)
    return y, decision, ops.clamp_frozen(x.flip(0), decision, -0.5, 1.0, last)


def _gate(kind: int) -> _Run:
    def run(ops: Any, x: Tensor, references: int) -> Any:
        y, gate = ops.gate_scope(x, references, kind)
        frozen = ops.gate_frozen(x.flip(0), x[:references], 0.5)
        return y, gate, frozen, ops.gate_scope_backward(x.flip(0), x, references, kind)

    return run


def _max_pool2d(ops: Any, x: Tensor, references: int) -> Any:
    y, decision = ops.max_pool2d_scope(x, references, *_WINDOW, False)
    frozen = ops.max_pool2d_frozen(x.flip(0), decision, *_WINDOW)
    size = list(x.shape[2:])
    return y, decision, frozen, ops.max_pool2d_frozen_transpose(y, decision, size, *_WINDOW)


def _instance_norm(ops: Any, x: Tensor, references: int) -> Any:
    wide = reference.wide_dtype(x.dtype)
    weight, bias = (x[s, :, 0, 0].to(wide) for s in (0, 1))
    y, mean, rstd = ops.instance_norm_scope(x, references, weight, bias, 0.01)
    frozen = ops.instance_norm_frozen(x.flip(0), mean, rstd, mean)
    backward = ops.instance_norm_scope_backward(x.flip(0), x, mean, rstd, weight)
    return y, mean, rstd, frozen, *backward


_OPERATORS: dict[str, _Run] = {
    "relu": _relu,
    "clamp": _clamp,
    **{kind: _gate(number) for number, kind in enumerate(reference.GATES)},
    "max_pool2d": _max_pool2d,
    "instance_norm": _instance_norm,
}


def _operator_error(run: _Run, dtype: torch.dtype, device: torch.device) -> float:
    """The largest error of any result; infinite where a decision differs."""
    errors = []
    for x, references in _batches(dtype):
        found = run(_Compiled(), x.to(device), references)
        wanted = run(reference, x, references)
        errors += [_error(f.cpu(), w) for f, w in zip(found, wanted, strict=True)]
    return max(errors, key=lambda e: math.inf if math.isnan(e) else e)


def _batches(dtype: torch.dtype) -> Iterator[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    for shape, references in _SHAPES:
        # Quarters, so that there are ties, and none at 0, where the paper's mask is infinite.
        x = ((torch.randn(shape, generator=generator) * 4).round() / 2 + 0.25).to(dtype)
        yield x, references
        yield x.contiguous(memory_format=torch.channels_last), references


def _error(found: Tensor, wanted: Tensor) -> float:
    if not wanted.dtype.is_floating_point:
        return 0.0 if torch.equal(found, wanted) else math.inf
    scale = wanted.double().abs().max().clamp(min=1)
    return ((found.double() - wanted.double()).abs().max() / scale).item()


# ---- One network: its certificate ----


def _network() -> nn.Module:
    """Every scope, and a layer that is none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU6(),
            nn.ConvTranspose2d(8, 4, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.SiLU(),
            nn.Conv2d(4, 3, 3, padding=1),
            nn.Sigmoid(),
        ).eval()


def _network_checks(dtype: torch.dtype, device: torch.device) -> list[Check]:
    model = _network().to(device, dtype)
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(1, 3, 24, 20, generator=generator).to(device, dtype)
    op = LinearInterpreter(model, x0, check=False)
    doubled = LinearInterpreter(model, x0, storage="none", check=False)
    certificate = op.certify()
    scale = max(op.output.norm().item(), op.residual.norm().item())
    difference = (op.filter(x0) - doubled.filter(x0)).norm().item() / scale
    errors = {**certificate.errors, "tape = doubled batch": difference}
    return [
        Check(name, _name(dtype), error, certificate.limit(name)) for name, error in errors.items()
    ]


def facts(checks: list[Check], device: str) -> dict[str, Any]:
    """The checks as JSON's types, with what they were run on.

    facts(selftest("cpu"), "cpu")["ok"]
    """
    return {
        "ok": all(check.ok for check in checks),
        "device": device,
        "compiled": _native.is_compiled(device),
        "checks": [check._asdict() | {"ok": check.ok} for check in checks],
    }


def report(checks: list[Check], device: str) -> str:
    """The checks as lines to read.

    print(report(selftest("cpu"), "cpu"))
    """
    wrong = sum(not check.ok for check in checks)
    lines = [f"{'':32} {'dtype':9} {'error':>8}  {'allowed':>8}"]
    for c in checks:
        verdict = "" if c.ok else "  WRONG"
        lines.append(f"{c.name:32} {c.dtype:9} {c.error:8.1e}  {c.tolerance:8.1e}{verdict}")
    if not _native.is_compiled(device):
        lines.append("the operators are not compiled: this was their specification against itself")
    passed = f"{wrong} of {len(checks)} checks are wrong" if wrong else f"all {len(checks)} pass"
    return "\n".join([*lines, f"{passed} on {device}"])
