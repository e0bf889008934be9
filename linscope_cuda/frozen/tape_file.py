"""Tapes on disk: one safetensors file, checked against a digest and the model it belongs to.

A digest has no key: whoever alters a file can make a new one. So nothing of a file is used before
it is known to be of the type, shape and range that the model's own run on x0 asks for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..capture.model import Network, structure, weights
from ..capture.record import Unfit, Verification
from ..capture.tape import FORMAT, HEADER, Entry, Tape
from ..files import digest, read_tensors
from ..rules.policy import Policy
from .certificate import tolerance
from .sources import Taped, recorded_by


def load(network: Network, path: str | os.PathLike) -> tuple[Taped, Tape]:
    """The tape in a file and its program, after a pass of the network on its x0.

    FileNotFoundError without such a file; ValueError for a damaged file, for another model's, and
    for one that says what this model cannot have recorded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no tape at {path}")
    header, tensors = _read(path)
    for what, own in (("structure", structure), ("weights", weights)):
        if header.get(what) != own(network.model):
            raise ValueError(f"{path} was recorded with another model: the {what} differ")
    try:
        return _verified(network, _parsed(network.model, header, tensors))
    except ValueError as error:
        raise ValueError(f"{path} is no tape of this model: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        texts, tensors = read_tensors(path)
        header = json.loads(texts.get(HEADER, "null"))
        said = header.pop("digest", None) if isinstance(header, dict) else None
        own = digest(json.dumps(header, sort_keys=True), tensors)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no tape: {_line(error)}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is no tape of this version of linscope_cuda")
    if said != own:
        raise ValueError(f"{path} was altered: its contents do not match its digest")
    return header, tensors


def _parsed(model: nn.Module, header: dict[str, Any], tensors: dict[str, Tensor]) -> Tape:
    """The tape as it is written, each part of the type that it should be; ValueError otherwise."""
    policy = _fields("policy", header.get("policy"), _POLICY)
    listed = _of_kind("entries", header.get("entries"), list)
    entries = []
    for i, given in enumerate(listed):
        known = _fields(f"entry {i}", given, _ENTRY)
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
    return Tape(model, Policy(**policy), x0, output, entries)


_FLOATING = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

# The parts of the header, and what each is.
_POLICY = {"default": str, "functions": dict, "modules": dict, "factors": dict}
_ENTRY = {"function": str, "module": str, "sample_shape": list, "values": dict}


def _fields(what: str, given: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    _of_kind(what, given, dict)
    if given.keys() != kinds.keys():
        raise ValueError(f"{what} wants {', '.join(kinds)}, has {', '.join(given)!r:.80}")
    return {key: _of_kind(f"the {key} of {what}", given[key], kind) for key, kind in kinds.items()}


def _of_kind(what: str, given: Any, kind: type) -> Any:
    if not isinstance(given, kind):
        raise ValueError(f"{what} must be a {kind.__name__}, was given {given!r:.60}")
    return given


def _verified(network: Network, tape: Tape) -> tuple[Taped, Tape]:
    """The tape, if its x0 leads to its decisions and to its output."""
    run = Verification(tape)
    try:
        source = recorded_by(run, network, tape.x0)
    except Unfit:
        raise
    except Exception as error:  # an x0 of another shape may end anywhere in a model
        kind = type(error).__name__
        raise ValueError(f"the model cannot run its x0: {kind}: {_line(error)}") from error
    y = source.output
    if y.shape != tape.output.shape or y.dtype != tape.output.dtype:
        wrong = f"is {tape.output.dtype} of shape {tuple(tape.output.shape)}"
        raise ValueError(f"its output {wrong}, the model's {y.dtype} of shape {tuple(y.shape)}")
    if not (off := _relative(y, tape.output)) <= tolerance(y.dtype):
        raise ValueError(f"its output is not the model's for its x0, which differs by {off:.1e}")
    source.output = tape.output
    return source, Tape(tape.model, tape.policy, tape.x0, tape.output, run.entries)


def _relative(y: Tensor, want: Tensor) -> float:
    """|y - want| / |want|; what is not finite must be the same in both."""
    same = (y == want) | (y.isnan() & want.isnan())
    y, want = (t.double().masked_fill(same & ~t.isfinite(), 0) for t in (y, want))
    return ((y - want).norm() / want.norm()).item() if not same.all() else 0.0


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
