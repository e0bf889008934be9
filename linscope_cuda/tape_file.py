"""Tapes on disk: one safetensors file, checked against a digest and the model it belongs to.

A digest has no key: whoever alters a file can make a new one. So nothing of a file is used before
it is known to be of the type, shape and range that the model's own run on x0 asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .certificate import tolerance
from .network import Network
from .policy import Policy
from .replay import Unfit, Verification
from .tape import Entry, Tape

FORMAT = 1
_HEADER = "linscope_cuda.tape"


def save(tape: Tape, path: str | os.PathLike) -> None:
    """Writes the tape under a temporary name and renames it: a file is whole or not there."""
    if not len(tape):
        raise ValueError("this tape holds no decision (storage='none'): there is nothing to save")
    tensors = {"x0": tape.x0, "output": tape.output}
    for i, entry in enumerate(tape):
        tensors |= {f"{i}.{k}": v for k, v in entry.decision.items() if isinstance(v, Tensor)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {
        "format": FORMAT,
        "torch": torch.__version__,
        "structure": structure(tape.model),
        "weights": weights(tape.model),
        "policy": tape.policy.to_json(),
        "entries": [
            {
                "function": e.function,
                "module": e.module,
                "sample_shape": e.sample_shape,
                "values": {k: v for k, v in e.decision.items() if not isinstance(v, Tensor)},
            }
            for e in tape
        ],
    }
    header["digest"] = _digest(header, tensors)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to save a tape in")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, {_HEADER: json.dumps(header)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(network: Network, path: str | os.PathLike) -> Tape:
    """The tape in a file, after a pass of the network on its x0.

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
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            # Copies: the file may be written over while they are used.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        digest = header.pop("digest", None) if isinstance(header, dict) else None
        own = _digest(header, tensors)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no tape: {_line(error)}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is no tape of this version of linscope_cuda")
    if digest != own:
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


def _verified(network: Network, tape: Tape) -> Tape:
    """The tape, if its x0 leads to its decisions and to its output."""
    run = Verification(tape)
    run.transparent = True
    try:
        with torch.no_grad(), network.settings(tape.x0.device):
            y = run.run(network, tape.x0)
        network.stamp.after_run(first=True)
    except Unfit:
        raise
    except Exception as error:  # an x0 of another shape may end anywhere in a model
        kind = type(error).__name__
        raise ValueError(f"the model cannot run its x0: {kind}: {_line(error)}") from error
    if y.shape != tape.output.shape or y.dtype != tape.output.dtype:
        wrong = f"is {tape.output.dtype} of shape {tuple(tape.output.shape)}"
        raise ValueError(f"its output {wrong}, the model's {y.dtype} of shape {tuple(y.shape)}")
    if not (off := _relative(y, tape.output)) <= tolerance(y.dtype):
        raise ValueError(f"its output is not the model's for its x0, which differs by {off:.1e}")
    return Tape(tape.model, tape.policy, tape.x0, tape.output, run.entries)


def _relative(y: Tensor, want: Tensor) -> float:
    """|y - want| / |want|; what is not finite must be the same in both."""
    same = (y == want) | (y.isnan() & want.isnan())
    y, want = (t.double().masked_fill(same & ~t.isfinite(), 0) for t in (y, want))
    return ((y - want).norm() / want.norm()).item() if not same.all() else 0.0


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def structure(model: nn.Module) -> str:
    """A digest of the modules' names and kinds and of the weights' names, shapes and dtypes."""
    lines = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
    lines += [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in _state(model)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def weights(model: nn.Module) -> str:
    """A digest of every parameter and buffer."""
    return _of_tensors(dict(_state(model)))


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    described = json.dumps(header, sort_keys=True) + _of_tensors(tensors)
    return hashlib.sha256(described.encode()).hexdigest()


def _of_tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
