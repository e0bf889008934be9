"""Calls every operator as nobody should, straight through torch.ops.linscope, and looks at what
comes of it: a Python exception where the checks want one, else the reference's result.

    python tests/fuzz_operators.py --calls 2000

runs the calls in a process with sanitizers, which any access outside of memory ends.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import cpu_operators
import torch
from cpu_operators import CSRC
from torch import Tensor


def run(calls: int, seed: int = 0, csrc: Path = CSRC) -> subprocess.CompletedProcess:
    """The calls, in a process with sanitizers."""
    path = str(cpu_operators.library(csrc, sanitized=True))
    what = ["--library", path, "--calls", str(calls), "--seed", str(seed)]
    return cpu_operators.python(str(Path(__file__).resolve()), *what, sanitized=True)


# ---- The calls ----

_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_OTHER = (torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2)
_INTS = (0, -1, -(2**31), 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, -(2**63))


class Fuzzer:
    """Calls with good arguments, of which some are then spoilt."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, shape, dtype: torch.dtype) -> Tensor:
        # In quarters, so that there are ties; never 0, where the paper's mask is infinite.
        x = (torch.randn(*shape, generator=self.generator) * 4).round() / 4 + 0.125
        return x.to(dtype)

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def call(self) -> tuple[str, list]:
        name = self.random.choice(sorted(_MAKERS))
        args = _MAKERS[name](self)
        for _ in range(self.random.choice((0, 0, 1, 1, 1, 2))):
            self.spoil(args)
        return name, args

    # -- good arguments

    def batch(self, dims: int | None = None) -> tuple[Tensor, int]:
        choice, references = self.random.randint, self.random.choice((1, 1, 2, 3))
        dims = dims or self.random.choice((1, 2, 3, 4, 4, 5))
        shape = [references * choice(1, 3), *(choice(1, 7) for _ in range(dims - 1))]
        if self.maybe(0.1) and dims > 1:
            shape[choice(1, dims - 1)] = 0
        x = self.tensor(shape, self.random.choice(_FLOATING))
        if dims in (4, 5) and self.maybe(0.4):
            last = torch.channels_last if dims == 4 else torch.channels_last_3d
            x = x.contiguous(memory_format=last)
        return x, references

    def pool(self) -> tuple[Tensor, int, list]:
        x, references = self.batch(4)
        window: list[list[int]] = [[], [], [], []]
        for _ in range(2):
            kernel, dilation = self.random.randint(1, 4), self.random.choice((1, 1, 1, 2, 3))
            side = (
                kernel,
                self.random.randint(1, 3),
                self.random.randint(0, kernel // 2),
                dilation,
            )
            for pair, value in zip(window, side, strict=True):
                pair.append(value)
        if self.maybe(0.05):
            window = [[17, 16], [1, 2], [8, 8], [1, 1]]
        return x, references, window

    def decided(self) -> tuple[Tensor, Tensor, list, Tensor]:
        """x, a decision, the window, and outputs for the transpose."""
        x, references, window = self.pool()
        kernel = window[0]
        ceil_mode = self.maybe(0.3)
        try:
            y = torch.nn.functional.max_pool2d(x.float(), *window, ceil_mode).to(x.dtype)
        except RuntimeError:
            y = x[:, :, :1, :1]
        shape = (references, *y.shape[1:])
        code = torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32
        # Numbers of taps, some of them beside the image, and now and then of none.
        most = kernel[0] * kernel[1]
        low = 0
        if self.maybe(0.3):
            low, most = (0, 256) if code is torch.uint8 else (-(2**31), 2**31 - 1)
        decision = torch.randint(low, most, shape, generator=self.generator).to(code)
        if self.maybe(0.4):
            decision = decision.contiguous(memory_format=torch.channels_last)
        return x, decision, window, y

    def packed(self, bits: int) -> tuple[Tensor, Tensor, bool]:
        x, references = self.batch()
        row = (x[0].numel() * bits + 7) // 8
        decision = torch.randint(0, 256, (references, row), generator=self.generator)
        return x, decision.to(torch.uint8), x.dim() in (4, 5) and self.maybe(0.5)

    def planes(self, *also: Any) -> tuple[Tensor, Tensor, Any]:
        x, references = self.batch(self.random.randint(2, 5))
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return x, references, lambda *shape: self.tensor(shape, wide)

    # -- spoilt ones

    def spoil(self, args: list) -> None:
        at = self.random.randrange(len(args))
        args[at] = self.spoilt(args[at])

    def spoilt(self, value: Any) -> Any:
        pick = self.random.choice
        if isinstance(value, Tensor):
            return self.spoilt_tensor(value)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return pick((*_INTS, value + 1, value - 1))
        if isinstance(value, float):
            return pick((float("nan"), float("inf"), -1.0, 0.0, 1e300))
        if isinstance(value, list):
            wrong = list(value)
            if self.maybe(0.3) or not wrong:
                return pick(([], wrong[:1], [*wrong, 1], wrong * 2))
            wrong[pick((0, -1))] = pick((*_INTS, wrong[0] + 1, wrong[0] - 1, wrong[0] * 3))
            return wrong
        return self.tensor((pick((1, 2, 3)),), torch.float32)  # an absent tensor

    def spoilt_tensor(self, t: Tensor) -> Tensor:
        d = self.random.randrange(t.dim()) if t.dim() else 0
        ways = {
            "dtype": lambda: t.to(self.random.choice((*_FLOATING, *_OTHER))),
            "meta": lambda: t.to("meta"),
            "longer": lambda: torch.cat([t, t], d),
            "shorter": lambda: t.narrow(d, 0, t.shape[d] // 2),
            "empty": lambda: t.narrow(d, 0, 0),
            "flat": lambda: t.reshape(-1),
            "number": lambda: t.flatten()[0] if t.numel() else t,
            "more dimensions": lambda: t[None],
            "fewer dimensions": lambda: t.select(d, 0) if t.shape[d] else t,
            "swapped": lambda: t.movedim(d, 0),
            "expanded": lambda: t.narrow(d, 0, min(1, t.shape[d])).expand(t.shape),
            "strided": lambda: torch.stack([t, t], -1)[..., 0],
            "permuted in memory": lambda: t.movedim(0, -1).contiguous().movedim(-1, 0),
            "offset": lambda: torch.cat([t.flatten()[:1], t.flatten()])[-t.numel() :].view(t.shape),
        }
        if not t.dim():
            return t[None]
        way = self.random.choice(sorted(ways))
        return ways[way]() if t.device.type == "cpu" else t


def _relu_scope(f: Fuzzer) -> list:
    x, references = f.batch()
    return [x, references, f.random.choice((0.0, 0.25)), x.dim() in (4, 5) and f.maybe(0.5)]


def _relu_frozen(f: Fuzzer) -> list:
    x, decision, last = f.packed(1)
    return [x, decision, f.random.choice((0.0, 0.25)), last]


def _clamp_scope(f: Fuzzer) -> list:
    x, references = f.batch()
    return [x, references, -0.5, 1.25, x.dim() in (4, 5) and f.maybe(0.5)]


def _clamp_frozen(f: Fuzzer) -> list:
    x, decision, last = f.packed(2)
    return [x, decision, -0.5, 1.25, last]


def _gate_scope(f: Fuzzer) -> list:
    return [*f.batch(), f.random.randrange(6)]


def _gate_frozen(f: Fuzzer) -> list:
    x, references = f.batch()
    return [x, f.tensor((references, *x.shape[1:]), x.dtype), 0.5]


def _gate_scope_backward(f: Fuzzer) -> list:
    x, references = f.batch()
    return [f.tensor(x.shape, x.dtype), x, references, f.random.randrange(6)]


def _max_pool2d_scope(f: Fuzzer) -> list:
    x, references, window = f.pool()
    return [x, references, *window, f.maybe(0.5)]


def _max_pool2d_frozen(f: Fuzzer) -> list:
    x, decision, window, _ = f.decided()
    return [x, decision, *window]


def _max_pool2d_frozen_transpose(f: Fuzzer) -> list:
    x, decision, window, y = f.decided()
    return [y, decision, list(x.shape[2:]), *window]


def _instance_norm_scope(f: Fuzzer) -> list:
    x, references, planes = f.planes()
    weight, bias = (planes(x.shape[1]) if f.maybe(0.6) else None for _ in range(2))
    return [x, references, weight, bias, 0.125]


def _instance_norm_frozen(f: Fuzzer) -> list:
    x, references, planes = f.planes()
    mean, shift = (planes(references, x.shape[1]) if f.maybe(0.6) else None for _ in range(2))
    return [x, mean, planes(references, x.shape[1]), shift]


def _instance_norm_scope_backward(f: Fuzzer) -> list:
    x, references, planes = f.planes()
    mean, rstd = (planes(references, x.shape[1]) for _ in range(2))
    weight = planes(x.shape[1]) if f.maybe(0.6) else None
    return [f.tensor(x.shape, x.dtype), x, mean, rstd, weight]


_MAKERS = {
    make.__name__[1:]: make
    for make in (
        _relu_scope,
        _relu_frozen,
        _clamp_scope,
        _clamp_frozen,
        _gate_scope,
        _gate_frozen,
        _gate_scope_backward,
        _max_pool2d_scope,
        _max_pool2d_frozen,
        _max_pool2d_frozen_transpose,
        _instance_norm_scope,
        _instance_norm_frozen,
        _instance_norm_scope_backward,
    )
}
_MAKERS |= {"relu_frozen_": _relu_frozen, "clamp_frozen_": _clamp_frozen}

# ---- What must come of a call ----


def _text(name: str, args: list) -> str:
    def one(a: Any) -> str:
        if not isinstance(a, Tensor):
            return repr(a)
        return f"{str(a.dtype)[6:]}{tuple(a.shape)} strides {a.stride()} on {a.device}"

    return f"{name}({'; '.join(map(one, args))})"


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _outcome(function: Any, args: list) -> tuple[tuple | None, str]:
    """The results, or None and the exception's first words."""
    try:
        return _tuple(function(*args)), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error)[:300]}"


def _close(got: Tensor, want: Tensor) -> bool:
    if not _same_layout(got, want):
        return False
    if not got.dtype.is_floating_point:
        return torch.equal(got, want)
    eps = 64 * torch.finfo(got.dtype).eps
    finite = want[want.isfinite()].double().abs()
    scale = max(1.0, finite.max().item() if finite.numel() else 1.0)
    return torch.allclose(got.double(), want.double(), eps, eps * scale, equal_nan=True)


def _same_layout(a: Tensor, b: Tensor) -> bool:
    """A dimension of one element may have any stride, and so may all where there is none."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    dims = [d for d in range(a.dim()) if a.shape[d] > 1] if a.numel() else []
    return all(a.stride(d) == b.stride(d) for d in dims)


def _fault(name: str, args: list) -> tuple[bool, str]:
    """Whether the call was refused, and what is wrong with what came of it, if anything."""
    from linscope_cuda.operators.table import OPERATORS

    operator, specified = getattr(torch.ops.linscope, name), OPERATORS[name].reference
    _, refusal = _outcome(OPERATORS[name].check, args)
    # In place, on a copy to compare with; one that is refused for its strides keeps them.
    in_place = name.endswith("_") and not refusal
    own = [a.clone() if isinstance(a, Tensor) and in_place else a for a in args]
    got, error = _outcome(operator, own)
    if refusal or error:
        if bool(refusal) == bool(error) or "llocat" in error:
            return True, ""
        # Arguments that have no place in the operator's schema never reach it.
        if "expected a value of type" in error or "Overflow" in error.replace(
            "overflow", "Overflow"
        ):
            return True, ""
        return True, f"the checks say {refusal or 'nothing'!r}, the operator {error or 'nothing'!r}"
    if any(isinstance(a, Tensor) and a.device.type != "cpu" for a in args):
        return False, ""
    assert got is not None
    if name.endswith("_"):
        want = [a.clone() if isinstance(a, Tensor) else a for a in args]
        specified(*want)
        got, wanted = (own[0],), (want[0],)
    else:
        expected, lack = _outcome(specified, args)
        if expected is None:  # torch has no dilated window with as much padding
            return False, "" if "half of kernel size" in lack else lack
        wanted = expected
    for g, w in zip(got, wanted, strict=True):
        if not _close(g, w):
            shapes = f"{tuple(g.shape)} {g.stride()}, the reference {tuple(w.shape)} {w.stride()}"
            same = g.shape == w.shape and (g.double() - w.double()).abs().max()
            return False, f"it gave {shapes}; they differ by {same}"
    meta = [a.to("meta") if isinstance(a, Tensor) else a for a in args]
    for g, m in zip(got, _tuple(operator(*meta)), strict=not name.endswith("_")):
        if not _same_layout(g, m):
            return False, f"it gave {g.shape} {g.stride()}, the fake {m.shape} {m.stride()}"
    return False, ""


def _make_calls(path: str, calls: int, seed: int) -> int:
    cpu_operators.load(path)
    import linscope_cuda

    assert linscope_cuda.operators.native.is_compiled("cpu")
    fuzzer, refused, faults = Fuzzer(seed), 0, 0
    for number in range(calls):
        name, args = fuzzer.call()
        # What a sanitizer then says belongs to this call.
        print(f"call {number}: {_text(name, args)}", file=sys.stderr, flush=True)
        try:
            was_refused, fault = _fault(name, args)
        except Exception:
            was_refused, fault = False, traceback.format_exc()
        refused += was_refused
        if fault:
            faults += 1
            print(f"call {number}: {_text(name, args)}: {fault}", flush=True)
    print(f"{calls} calls: {refused} refused, {calls - refused} right, {faults} wrong", flush=True)
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csrc", type=Path, default=CSRC, help="compile these sources instead")
    parser.add_argument("--library", help=argparse.SUPPRESS)  # in the process with sanitizers
    arguments = parser.parse_args()
    if arguments.library:
        return _make_calls(arguments.library, arguments.calls, arguments.seed)
    if problem := cpu_operators.missing():
        print(f"fuzz_operators: {problem}", file=sys.stderr)
        return 2
    done = run(arguments.calls, arguments.seed, arguments.csrc)
    if " calls: " not in done.stdout:  # it did not come to its end
        print(done.stderr[-8000:], file=sys.stderr)
    print(done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
