"""The tape: every decision that a network took for x0, in the order of its calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..display import Tabular
from ..files import write_document
from ..rules.entry import Decision
from ..rules.policy import Policy
from .model import structure, weights

if TYPE_CHECKING:
    from .tape_folder import Folder


FORMAT = 3
KIND = "tape"


class TapeMismatch(RuntimeError):
    """A replay called other functions than the record: the network branches on its input's values
    or shape.

    >>> try:
    ...     ls.LinearInterpreter.from_tape(model, "cat.tape")
    ... except ls.TapeMismatch as error:
    ...     print(error)
    """


@dataclass(frozen=True)
class Entry:
    """One decision: the function that took it, the module that called it, the shape of a sample
    there.
    """

    function: str
    module: str
    sample_shape: tuple[int, ...]
    decision: Decision

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.decision.values() if isinstance(t, Tensor))

    def on(self, device: torch.device) -> Decision:
        """The decision, its tensors on a device."""
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.decision.items()}

    def __str__(self) -> str:
        return f"{self.function} in {self.module} on {self.sample_shape}"


class Tape(Tabular):
    """Decisions in the order of the network's calls; `print(tape)` is a table, `nbytes` their
    memory.

    `x0` and `output` are the input it was recorded for and the network's output there.

    >>> op.tape.nbytes
    """

    def __init__(
        self, model: nn.Module, policy: Policy, x0: Tensor, output: Tensor, entries: list[Entry]
    ) -> None:
        self.model = model
        self.policy = policy
        self.x0 = x0
        self.output = output
        self.entries = entries
        self.folder: Folder | None = None  # whose files the decisions lie in
        self.inputs = "one"  # how x0 reaches the model, a kind of capture.inputs

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file, whole or not at all; `LinearInterpreter.from_tape` reads it.

        ValueError for the tape of a doubled batch (storage="none"), which holds nothing;
        FileNotFoundError where the folder is missing.

        >>> op.tape.save("cat.tape")
        """
        if not self.entries:
            raise ValueError(
                "this tape holds no decision (storage='none'): there is nothing to save"
            )
        write_document(path, KIND, *self._written())

    def _written(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {"x0": self.x0, "output": self.output}
        entries = []
        for i, e in enumerate(self):
            numbers = {k: v for k, v in e.decision.items() if isinstance(v, Tensor)}
            tensors |= {f"{i}.{k}": v for k, v in numbers.items()}
            values = {k: v for k, v in e.decision.items() if k not in numbers}
            place = {"function": e.function, "module": e.module, "sample_shape": e.sample_shape}
            entries.append({**place, "values": values})
        header = {
            "format": FORMAT,
            "torch": torch.__version__,
            "structure": structure(self.model),
            "weights": weights(self.model),
            "policy": self.policy.to_json(),
            "inputs": self.inputs,
            "entries": entries,
        }
        return header, tensors

    @property
    def nbytes(self) -> int:
        """The memory of all decisions, in bytes."""
        return sum(entry.nbytes for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __str__(self) -> str:
        lines = [f"{'function':44} {'module':36} {'sample':>16} {'bytes':>12}"]
        for e in self.entries:
            shape = "x".join(map(str, e.sample_shape))
            lines.append(f"{e.function:44} {e.module:36} {shape:>16} {e.nbytes:12,}")
        lines.append(f"{len(self)} decisions, {self.nbytes:,} bytes")
        return "\n".join(lines)

    def _columns(self) -> dict[str, list[Any]]:
        return {
            "function": [e.function for e in self],
            "module": [e.module for e in self],
            "sample": [tuple(e.sample_shape) for e in self],
            "bytes": [e.nbytes for e in self],
        }
