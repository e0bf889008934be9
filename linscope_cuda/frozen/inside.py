"""What is inside of a frozen network, as inputs of it: what its modules are given, or give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..program import Line, Program, Value
from ..program.part import opened
from .network import FrozenNetwork
from .taped import Taped

_ENDS = ("output", "input")


class Inner(NamedTuple):
    """A value inside of a network: what a module is given or gives, at one of its calls."""

    name: str
    value: Value


class Opened(FrozenNetwork):
    """A frozen network as a function of x0 and of values inside of it, which it reads instead of
    making them: x0 and these are its one input, flat one after the other. Its F is what reaches the
    output from each without passing another.
    """

    def __init__(self, op: FrozenNetwork, line: Line, inner: Sequence[Inner]):
        self.inner = inner
        source = op.source.recorded()
        with source.running():
            line, self.pieces = opened(line, [i.value for i in inner], op.x0)
            x0 = torch.cat([t.reshape(1, -1).to(line.input.dtype) for t in self.pieces], 1)
            program = Program(line)
            super().__init__(Taped(x0, program(x0), program, source.stamp), op.policy, op.max_bytes)
        self.max_batch = op.max_batch

    def split(self, x: Tensor) -> list[Tensor]:
        """What F acts on, or a row of it, (K, entries): x0's piece and each value's, in shape."""
        flat = x.split([t.numel() for t in self.pieces], 1)
        return [
            t.reshape(len(t), *_shape(piece)) for t, piece in zip(flat, self.pieces, strict=True)
        ]


def _shape(t: Tensor) -> tuple[int, ...]:
    """That of a value, without the dimension of the one sample."""
    return tuple(t.shape[1:] if t.shape[:1] == (1,) else t.shape)


def look_inside(
    op: FrozenNetwork, of: Sequence[str], at: str = "output", call: int | None = None
) -> Opened:
    """The network as a function of what the modules `of` give, or (`at` "input") are given, at
    their one call, at that of number `call`, or, of several modules, at each; a name may be a
    pattern, and "" is the network itself.

    ValueError for a module that is not there or not called, and for what is not one tensor that the
    output is made of.
    """
    if at not in _ENDS:
        raise ValueError(f"at wants 'output' or 'input', was given {at!r}")
    names = named(op.modules, of)
    source = op.watching([(name, at) for name in names if name])
    inner = [i for name in names for i in _inner(op, source, name, at, call, len(names) > 1)]
    seen: dict[int, str] = {}
    for name, value in inner:
        other = seen.setdefault(value.number, name)
        if other != name:
            raise ValueError(f"{other!r} and {name!r} are one and the same tensor: name one")
    return Opened(op, source.program.line, inner)


def require_module(modules: Mapping[str, nn.Module], name: str) -> None:
    """ValueError for a name that no module has, with names that are like it."""
    if name not in modules:
        known = get_close_matches(name, modules) or [n for n in modules if n][:8]
        there = f"there are {', '.join(known)} ..." if known else "there is none at all"
        raise ValueError(f"there is no module {name!r}; {there}")


def named(modules: Mapping[str, nn.Module], of: Iterable[str]) -> list[str]:
    """The modules of some names and patterns, whose * stands for one step of a path, each once.

    ValueError for a name or a pattern of none, TypeError for what is no name.
    """
    return list(dict.fromkeys(name for one in of for name in _named(modules, one)))


def _named(modules: Mapping[str, nn.Module], name: Any) -> list[str]:
    if not isinstance(name, str):
        raise TypeError(f"of wants names of modules, was given {type(name).__name__}")
    if "*" not in name:
        if name:
            require_module(modules, name)
        return [name]
    steps = name.split(".")

    def fits(path: list[str]) -> bool:
        return len(path) == len(steps) and all(map(fnmatchcase, path, steps))

    found = [n for n in modules if n and fits(n.split("."))]
    if not found:
        raise ValueError(f"there is no module like {name!r}")
    return found


def _inner(
    op: FrozenNetwork, source: Taped, name: str, at: str, call: int | None, each: bool
) -> list[Inner]:
    """The values of one module, by their names in a ledger."""
    line = source.program.line
    if not name:
        return [Inner(f"the {at}", line.input if at == "input" else line.output)]
    what = f"what module {name!r} {'gives' if at == 'output' else 'is given'}"
    label = name if at == "output" else f"{name} ({at})"
    calls = source.seen[name, at]
    if not calls and at == "input":
        calls = _applied(line, op.modules[name])
    if not calls:
        raise ValueError(
            f"module {name!r} is not called: the network runs without it, or applies its weights "
            "itself"
        )
    if call is None and len(calls) > 1 and not each:
        raise ValueError(
            f"module {name!r} is called {len(calls)} times; call= says which, 0 ... "
            f"{len(calls) - 1}"
        )
    if call is not None and not 0 <= call < len(calls):
        raise ValueError(f"call wants 0 ... {len(calls) - 1} of module {name!r}, was given {call}")
    many = len(calls) > 1
    return [
        Inner(f"{label} (call {i})" if many else label, _single(values, line, what))
        for i, values in enumerate(calls)
        if call in (None, i)
    ]


def _single(values: Iterable[Value], line: Line, what: str) -> Value:
    """The one value of a call that the line's output is made of."""
    numbers = {line.input.number, *(v.number for s in line.steps for v in s.outputs if v)}
    values = list(values)
    if not values:
        raise ValueError(f"{what} does not depend on the network's input")
    used = [v for v in values if v.number in numbers]
    if not used:
        raise ValueError(f"the network's output is not made of {what}")
    if len(used) > 1:
        shapes = ", ".join(str(v.shape) for v in used)
        raise ValueError(f"{what} is {len(used)} tensors, {shapes}, and one is wanted")
    if used[0].dtype.is_complex:
        raise ValueError(f"{what} is complex, and real numbers are wanted")
    return used[0]


def _applied(line: Line, module: nn.Module) -> list[list[Value]]:
    """For each step that applies the weight of a module that is never called, what to: the output
    projection of torch's attention, for example.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return []
    key = weight.untyped_storage()._cdata
    found = []
    for step in line.steps:
        held = [t for t in step.operands if isinstance(t, Tensor) and t.layout == torch.strided]
        if any(t.untyped_storage()._cdata == key for t in held):
            found.append([v for v in step.operands if isinstance(v, Value)])
    return found
