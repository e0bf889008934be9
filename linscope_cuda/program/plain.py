"""Lines as plain data: JSON's types and the bytes of their constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..files import fields, first_line
from .constants import DTYPES, packed, sizes, unpacked
from .line import Line
from .pure import FUNCTIONS, require_pure
from .step import Step, Value

_NAMED: dict[str, dict[str, Any]] = {
    "dtype": DTYPES,
    "layout": {"strided": torch.strided},
    "memory_format": {
        str(kind).removeprefix("torch."): kind
        for kind in (
            *(torch.contiguous_format, torch.preserve_format),
            *(torch.channels_last, torch.channels_last_3d),
        )
    },
}

_LINE = {"input": list, "constants": list, "steps": list, "output": int}
_STEP = {"function": str, "args": list, "kwargs": dict, "outputs": list, "label": str, "call": int}


def written(line: Line) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A line as JSON's types, and the storages of its constants by name; `read` makes it again.

    Values are named by their order, 0 the input. ValueError, naming the call, for a function that
    is not in `pure.FUNCTIONS`.
    """
    constants = line.constants()
    values = {line.input.number: 0}
    named = {id(t): i for i, t in enumerate(constants)}

    def data(v: Any) -> Any:
        if isinstance(v, Value):
            return {"value": values[v.number]}
        if isinstance(v, Tensor):
            return {"constant": named[id(v)]}
        if isinstance(v, list | tuple):
            return [data(each) for each in v]
        if isinstance(v, complex):
            return {"complex": [v.real, v.imag]}
        if isinstance(v, torch.device):
            return {"device": None}  # that of the line, wherever it is read
        if v is None or isinstance(v, bool | int | float | str):
            return v
        tag, name = next((t, n) for t, known in _NAMED.items() for n in known if known[n] is v)
        return {tag: name}

    steps = []
    for step in line.steps:
        try:
            require_pure(step.function, step.args, step.kwargs)
        except ValueError as error:
            raise ValueError(f"{step.label or step.function}: {error}") from error
        args, kwargs = data(step.args), {k: data(v) for k, v in step.kwargs.items()}
        for v in filter(None, step.outputs):
            values[v.number] = len(values)
        outputs = [None if v is None else _kind(v) for v in step.outputs]
        said = {"function": str(step.function), "args": args, "kwargs": kwargs, "outputs": outputs}
        steps.append({**said, "label": step.label, "call": step.call})
    places, content = packed(constants)
    ends = {"input": _kind(line.input), "output": values[line.output.number]}
    return {**ends, "steps": steps, "constants": places}, content


def _kind(v: Value) -> list[Any]:
    return [list(v.shape), str(v.dtype).removeprefix("torch.")]


def read(given: Any, content: Mapping[str, Tensor], device: torch.device) -> Line:
    """The line that `written` wrote, on a device.

    ValueError for functions that are not in `pure.FUNCTIONS`, for arguments that are not theirs,
    for values that come later or not at all, and for constants outside of the content. Whether the
    steps give what they say is for `require_run`.
    """
    return _Reader(given, content, device).line


class _Reader:
    def __init__(self, given: Any, content: Mapping[str, Tensor], device: torch.device):
        said = fields("the line", given, _LINE)
        self.device = device
        self.constants = unpacked(said["constants"], content, device)
        self.values: list[Value] = []
        first = self._value("the input", said["input"])
        steps = [self._step(f"step {i}", step) for i, step in enumerate(said["steps"])]
        self.line = Line(first, steps, _at("the output", self.values, said["output"]))

    def _step(self, what: str, given: Any) -> Step:
        said = fields(what, given, _STEP)
        function = FUNCTIONS.get(said["function"])
        if function is None:
            raise ValueError(f"{what} calls {said['function']!r:.60}, which no file may")
        args = tuple(self._argument(what, v) for v in said["args"])
        kwargs = {k: self._argument(what, v) for k, v in said["kwargs"].items()}
        try:
            require_pure(function, args, kwargs)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        outputs = tuple(None if v is None else self._value(what, v) for v in said["outputs"])
        returns = function._schema.returns
        if len(outputs) != len(returns) or not any(outputs):
            raise ValueError(f"{what}: {function} does not give {len(outputs)} tensors")
        label, call = said["label"], said["call"]
        return Step(function, args, kwargs, outputs, label, call, single=len(returns) == 1)

    def _value(self, what: str, given: Any) -> Value:
        if not isinstance(given, list) or len(given) != 2:
            raise ValueError(f"{what} gives {given!r:.60}, and [shape, dtype] is wanted")
        shape = sizes(f"the shape of {what}", given[0])
        dtype = _named(what, "dtype", given[1])
        self.values.append(Value(len(self.values), shape, dtype, self.device))
        return self.values[-1]

    def _argument(self, what: str, given: Any) -> Any:
        if isinstance(given, list):
            return [self._argument(what, v) for v in given]
        if not isinstance(given, dict):
            return given
        if len(given) != 1:
            raise ValueError(f"{what} has the argument {given!r:.60}, which is none")
        ((tag, v),) = given.items()
        if tag == "value":
            return _at(f"a value of {what}", self.values, v)
        if tag == "constant":
            return _at(f"a constant of {what}", self.constants, v)
        if tag == "device" and v is None:
            return self.device
        if tag == "complex" and isinstance(v, list) and [type(n) for n in v] == [float, float]:
            return complex(*v)
        return _named(what, tag, v)


def _at(what: str, listed: list, number: Any) -> Any:
    if type(number) is not int or not 0 <= number < len(listed):
        raise ValueError(f"{what} has the number {number!r:.40}, of {len(listed)} that are known")
    return listed[number]


def _named(what: str, tag: str, name: Any) -> Any:
    known = _NAMED.get(tag, {})
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} names the {tag!r:.40} {name!r:.40}, which is none")
    return known[name]


def require_run(line: Line, x: Tensor) -> Tensor:
    """The line's answer to x, step by step. ValueError, naming the function, where one fails or
    gives another shape or dtype than it says.
    """
    values: dict[int, Any] = {line.input.number: x}
    _require_like("the input", x, line.input, x.device)
    for i, step in enumerate(line.steps):
        given = step.of(lambda v: values[v.number] if isinstance(v, Value) else v)
        try:
            made = step.function(*given.args, **given.kwargs)
        except Exception as error:  # torch's functions raise whatever they like
            raise ValueError(f"{step.function} fails on x0: {first_line(error):.200}") from error
        for v, t in zip(step.outputs, [made] if step.single else made, strict=True):
            if v is not None:
                _require_like(f"the result of {step.function}", t, v, x.device)
                values[v.number] = t
        for number in line.lives.unread(i, step):
            values.pop(number)
    return values[line.output.number]


def _require_like(what: str, t: Tensor, said: Value, device: torch.device) -> None:
    if (tuple(t.shape), t.dtype, t.device) != (said.shape, said.dtype, device):
        own = f"{t.dtype} of shape {tuple(t.shape)} on {t.device}"
        raise ValueError(f"{what} is {own}, not {said.dtype} of shape {said.shape} on {device}")
