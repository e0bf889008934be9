"""The state of `lanczos` between two blocks, and its keeper on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ..probes import gaussian
from . import checkpoint
from .problem import Problem

# Writing checkpoints may take this part of the time.
_SAVING = 0.1


@dataclass(frozen=True)
class State:
    """Both bases, what A is between them, the next block; replaced, never changed."""

    V: Tensor
    U: Tensor
    B: Tensor  # (rows of U, rows of V), on the CPU
    P: Tensor
    T: Tensor  # (rows of U, rows of P), on the CPU
    settled: Tensor  # the values found before random rows were added to show hidden ones
    block: int  # random rows that it all began with
    capacity: int  # rows of U before a restart
    scale: float = 0.0  # the largest |A p| seen
    rounding: float = 0.0  # the largest difference between products of A and of A^T
    iteration: int = 0
    restarts: int = 0
    narrowed: float = inf  # the widest bar when P was last narrowed; 0 once that did not pay
    proofs: int = 0  # that have shown something hidden, or bars too wide
    trial_until: int = 0  # the iteration up to which those random rows have time


class Keeper:
    """Keeps the state of one call at `problem.checkpoint`, if it has one, and gives it back."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.saved, self.cost = -inf, 0.0
        if problem.checkpoint is None:
            return
        seed = hashlib.sha256(problem.generator.get_state().numpy().data).hexdigest()
        self.facts = {
            "method": "lanczos",
            "operator": [list(problem.op.input_shape), list(problem.op.output_shape)],
            "dtype": str(problem.op.dtype),
            "k": problem.k,
            "block": problem.block,
            "certain": problem.certain,
            "seed": seed[:16],
        }
        # What the operator answers says whether it is the same one.
        size = problem.op.shape[1]
        probe = gaussian((1, size), torch.Generator().manual_seed(1), problem.op.device)
        self.answer = problem.filter(probe / size**0.5)

    def load(self) -> State | None:
        problem, path = self.problem, self.problem.checkpoint
        if path is None or not path.exists():
            return None
        numbers, tensors = checkpoint.load(path, self.facts)
        device, answer = problem.op.device, tensors.pop("answer").to(problem.op.device)
        if (answer - self.answer).norm() > problem.resolution**0.5 * answer.norm():
            raise ValueError(f"checkpoint {str(path)!r} is of another operator: F v differs")
        problem.generator.set_state(tensors.pop("generator"))
        problem.go_on(numbers.pop("passes"), numbers.pop("sequential"))
        on_device = {name: tensors.pop(name).to(device) for name in ("V", "U", "P")}
        return State(**on_device, **tensors, **numbers)

    def save(self, state: State, last: bool = False) -> None:
        problem, begun = self.problem, time.monotonic()
        if problem.checkpoint is None or not state.iteration:
            return
        if not last and begun - self.saved < self.cost / _SAVING:
            return
        values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        tensors = {name: x for name, x in values.items() if isinstance(x, Tensor)}
        numbers = {name: x for name, x in values.items() if name not in tensors}
        numbers |= {"passes": problem.passes, "sequential": problem.sequential}
        tensors |= {"answer": self.answer, "generator": problem.generator.get_state()}
        checkpoint.save(problem.checkpoint, self.facts, numbers, tensors)
        self.saved = time.monotonic()
        self.cost = self.saved - begun
