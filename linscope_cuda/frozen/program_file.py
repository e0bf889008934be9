"""Frozen networks on disk: a program and its constants in one safetensors file, without the model.

A digest has no key: whoever alters a file can make a new one. So a file names functions of a fixed
list and holds numbers, and nothing of it is used before each step has given, on x0, what it says.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ..capture.model import settings
from ..capture.transparent import normal_mode
from ..files import fields, first_line, read_document, write_document
from ..program import Program
from ..program.plain import read, require_run, written
from ..rules import UnscopedOperation
from ..rules.policy import Policy
from .certificate import Certificate, certify_alone, require_output
from .network import FrozenNetwork
from .split import Parts, parts
from .taped import Taped

FORMAT = 2
KIND = "program"

_HEADER = {"format": int, "linscope_cuda": str, "torch": str, "model": str, "policy": dict}
_HEADER |= {"calls": list, "fold": bool, "line": dict}


class FrozenProgram(FrozenNetwork):
    """A frozen network from a file, y = F x + r, without its model; `load` makes it.

    `path` is the file, `model` the name of the model's class, `written_by` the versions of
    linscope_cuda and torch.

    >>> ls.load("cat.linscope").filter(v)
    """

    def __init__(self, path: str, header: dict[str, Any], source: Taped, max_bytes: int):
        super().__init__(source, Policy.from_json(header["policy"]), max_bytes)
        self.path, self.model = path, header["model"]
        self.written_by = {name: header[name] for name in ("linscope_cuda", "torch")}

    def save(self, path: str | os.PathLike) -> None:
        """Writes the same again, as `LinearInterpreter.save` does."""
        save(self, self.model, path)

    def calls(self) -> list[str]:
        """The network's calls that depended on its input, in order: function and module."""
        return self.source.recorded().calls

    def certify(self, generator: torch.Generator | None = None) -> Certificate:
        """Measures what needs no model: y0 = F x0 + r, linearity and the adjoint on random probes,
        as `LinearInterpreter.certify` does, in 9 passes.

        >>> ls.load("cat.linscope").certify().ok
        """
        with torch.no_grad():
            return certify_alone(self, generator)

    def split(self) -> Parts:
        """F as a local part and one of low rank, as `LinearInterpreter.split` does."""
        return parts(self)

    def _about(self) -> list[str]:
        return [f"y = F x + r of {self.model} from {self.path}", *super()._about()]


def save(op: FrozenNetwork, model: str, path: str | os.PathLike) -> None:
    """`op.save(path)` of a network whose model's class has that name."""
    from .. import __version__

    if not isinstance(op.source, Taped):
        raise ValueError(
            "products that run the model (storage='none', differentiable) have no program to save"
        )
    op.source.require_same()
    program = op.source.program
    line, content = written(program.line)
    header = {
        "format": FORMAT,
        "linscope_cuda": __version__,
        "torch": torch.__version__,
        "model": model,
        "policy": op.policy.to_json(),
        "calls": op.source.calls,
        "fold": program.fold,
        "line": line,
    }
    # Copies: the constants may hold them, too.
    ends = {"x0": op.x0.clone(), "output": op.output.detach().clone()}
    write_document(path, KIND, header, content | ends)


def load(
    path: str | os.PathLike, device: str | torch.device = "cpu", max_bytes: int = 2**30
) -> FrozenProgram:
    """The frozen network in a file that `op.save` wrote, on a device, after a product of each kind.

    It needs no model. Nothing in the file is executed: it names functions of a fixed list.
    FileNotFoundError without such a file; ValueError for a damaged or altered one, for one of
    another version, and for one that does not give on its x0 what it says.

    >>> op = ls.load("cat.linscope")
    >>> op.filter(op.x0) + op.residual    # op.output
    """
    header, tensors = read_document(path, KIND, FORMAT)
    try:
        return _loaded(os.fspath(path), header, tensors, torch.device(device), max_bytes)
    except Exception as error:  # whatever torch makes of it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path} is no program: {kind}{first_line(error):.300}") from error


def _loaded(
    path: str,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    device: torch.device,
    max_bytes: int,
) -> FrozenProgram:
    said = fields("the header", header, _HEADER)
    if any(type(call) is not str for call in said["calls"]):
        raise ValueError("its calls are no names")
    x0, output = _end("x0", tensors, 2).to(device), _end("output", tensors, 1).to(device)
    if not x0.isfinite().all():
        raise ValueError("its x0 holds NaN or infinity")
    line = read(said["line"], tensors, x0.device)
    with torch.no_grad(), normal_mode(), settings(x0.device):
        require_output(output, require_run(line, x0), "the program's")
    source = Taped(x0, output, Program(line, said["fold"]))
    source.calls = said["calls"]
    op = FrozenProgram(path, said, source, max_bytes)
    op(x0)
    with suppress(UnscopedOperation):  # of a network without a transpose, which products name
        op.transpose(output)
    return op


def _end(name: str, tensors: dict[str, Tensor], dims: int) -> Tensor:
    """x0 or the output, which is taken out of the tensors."""
    t = tensors.pop(name, None)
    if t is None or t.dim() < dims or len(t) != 1 or not t.numel() or not t.is_floating_point():
        raise ValueError(f"its {name} is no sample of floating numbers")
    return t
