"""Tapes on disk: one safetensors file, checked against a digest and the model it belongs to.

A digest has no key: whoever alters a file can make a new one. So nothing of a file is used before
it is known to be of the type, shape and range that the model's own run on x0 asks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..capture.inputs import KINDS, Batch, Inputs
from ..capture.model import Network, structure, weights
from ..capture.record import Unfit, Verification
from ..capture.tape import FORMAT, KIND, Entry, Tape
from ..files import fields, first_line, of_kind, read_document
from ..rules.policy import Policy
from .certificate import require_output
from .taped import Taped, recorded_by


def load(network: Network, path: str | os.PathLike, given: Inputs | None) -> tuple[Taped, Tape]:
    """The tape in a file and its program, after a pass of the network on its x0; `given` is how
    that reaches the model, where the file does not tell.

    FileNotFoundError without such a file; ValueError for a damaged file, for another model's, for
    another x0's, and for one that says what this model cannot have recorded.
    """
    header, tensors = read_document(path, KIND, FORMAT)
    for what, own in (("structure", structure), ("weights", weights)):
        if header.get(what) != own(network.model):
            raise ValueError(f"{path} was recorded with another model: the {what} differ")
    try:
        tape = _parsed(network.model, header, tensors)
        network.inputs = _inputs(tape, given)
        return _verified(network, tape)
    except ValueError as error:
        raise ValueError(f"{path} is no tape of this model: {error}") from error


def _inputs(tape: Tape, given: Inputs | None) -> Inputs:
    told: dict[str, Callable[[], Inputs]] = {
        "one": lambda: Inputs(tape.x0),
        "batch": lambda: Batch(tape.x0[0]),
    }
    if given is None and tape.inputs in told:
        return told[tape.inputs]()
    if given is None:
        raise ValueError("it is of several inputs, or of a module's output: x0= and at= are wanted")
    same = given.kind == tape.inputs and given.x0.shape == tape.x0.shape
    if not same or not torch.equal(given.x0, tape.x0):
        raise ValueError("it is of another x0 than the given one")
    return given


def _parsed(model: nn.Module, header: dict[str, Any], tensors: dict[str, Tensor]) -> Tape:
    """The tape as it is written, each part of the type that it should be; ValueError otherwise."""
    policy = Policy.from_json(header.get("policy"))
    listed = of_kind("entries", header.get("entries"), list)
    entries = []
    for i, given in enumerate(listed):
        known = fields(f"entry {i}", given, _ENTRY)
        if any(type(n) is not int for n in known["sample_shape"]):
            raise ValueError(f"the sample_shape of entry {i} holds what is no whole number")
        shape = tuple(known["sample_shape"])
        entries.append(Entry(known["function"], known["module"], shape, known["values"]))
    if missing := [name for name in ("x0", "output") if name not in tensors]:
        raise ValueError(f"it holds no {' and no '.join(missing)}")
    x0, output = tensors.pop("x0"), tensors.pop("output")
    owners = {str(i): entry.decision for i, entry in enumerate(entries)}
    for place, tensor in tensors.items():
        number, _, name = place.partition(".")
        if number not in owners or name in owners[number]:
            raise ValueError(f"its tensor {place!r:.80} belongs to no entry")
        owners[number][name] = tensor
    weight = next(filter(Tensor.is_floating_point, model.parameters()), None)
    device, kinds = ("cpu", _FLOATING) if weight is None else (weight.device, {weight.dtype})
    x0, output = x0.to(device), output.to(device)
    if x0.dim() < 2 or len(x0) != 1 or x0.numel() == 0 or x0.dtype not in kinds:
        wanted = "of one sample" if weight is None else f"of one sample of {weight.dtype}"
        raise ValueError(f"x0 must be {wanted}, was given {x0.dtype} of shape {tuple(x0.shape)}")
    if not x0.isfinite().all():
        raise ValueError("its x0 holds NaN or infinity")
    tape = Tape(model, policy, x0, output, entries)
    tape.inputs = of_kind("inputs", header.get("inputs", "one"), str)
    if tape.inputs not in KINDS:
        raise ValueError(f"inputs must be one of {', '.join(KINDS)}, was given {tape.inputs!r:.40}")
    return tape


_FLOATING = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

# The parts of an entry, and what each is.
_ENTRY = {"function": str, "module": str, "sample_shape": list, "values": dict}


def _verified(network: Network, tape: Tape) -> tuple[Taped, Tape]:
    """The tape, if its x0 leads to its decisions and to its output."""
    run = Verification(tape)
    try:
        source = recorded_by(run, network, tape.x0)
    except Unfit:
        raise
    except Exception as error:  # an x0 of another shape may end anywhere in a model
        kind = type(error).__name__
        raise ValueError(f"the model cannot run its x0: {kind}: {first_line(error)}") from error
    require_output(tape.output, source.output, "the model's")
    source.output = tape.output
    tape.entries = run.entries
    return source, tape
