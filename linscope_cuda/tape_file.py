"""Tapes on disk: one safetensors file, checked against a digest and the model it belongs to."""

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

from .policy import Policy
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, {_HEADER: json.dumps(header)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(model: nn.Module, path: str | os.PathLike) -> Tape:
    """The tape in a file; ValueError for a damaged file or another model's."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no tape at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no tape: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is no tape of this version of linscope_cuda")
    digest = header.pop("digest", None)
    if digest != _digest(header, tensors):
        raise ValueError(f"{path} was altered: its contents do not match its digest")
    for what, own in (("structure", structure), ("weights", weights)):
        if header[what] != own(model):
            raise ValueError(f"{path} was recorded with another model: the {what} differ")
    entries = [
        Entry(e["function"], e["module"], tuple(e["sample_shape"]), dict(e["values"]))
        for e in header["entries"]
    ]
    for place, tensor in tensors.items():
        number, _, name = place.partition(".")
        if name:  # x0 and output belong to no entry
            entries[int(number)].decision[name] = tensor
    weight = next(model.parameters(), torch.empty(0))
    x0, output = (tensors[name].to(weight.device) for name in ("x0", "output"))
    return Tape(model, Policy(**header["policy"]), x0, output, entries)


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


def keep_in(folder: str | os.PathLike, number: int, decision: Mapping[str, Any]) -> dict[str, Any]:
    """A decision with its tensors in a file of the folder, mapped into memory from there."""
    tensors = {k: v.cpu().contiguous() for k, v in decision.items() if isinstance(v, Tensor)}
    if not tensors:
        return dict(decision)
    path = Path(folder) / f"{number:05}.safetensors"
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary)
    os.replace(temporary, path)
    with safe_open(path, framework="pt") as file:
        return {**decision, **{name: file.get_tensor(name) for name in tensors}}
