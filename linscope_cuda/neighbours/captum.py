"""Attributions with Captum's call signature, which its visualisations and metrics take.

from linscope_cuda.neighbours.captum import Discussion, RowTimesInput
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

try:
    from captum.attr import Attribution
except ImportError as error:
    raise ImportError(
        "linscope_cuda.neighbours.captum wants Captum: pip install 'linscope_cuda[neighbours]'"
    ) from error

from ..frozen.interpreter import LinearInterpreter
from ..rules.policy import Policy
from ..study.votes import pixel_discussion

Given = Tensor | tuple[Tensor, ...]
Place = int | tuple[int, ...]
Target = Place | Tensor | list[Place] | None


class _Frozen(Attribution):
    """Freezes the network for each sample, which is attributed by itself."""

    def __init__(self, model: nn.Module, policy: str | Policy = "paper", **options: Any):
        """`options` are those of `LinearInterpreter`, kwargs for the model's other arguments
        included. TypeError if model is no module.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"{type(self).__name__} wants a torch.nn.Module, whose decisions it can freeze, "
                f"was given {type(model).__name__}"
            )
        super().__init__(model)
        self.model = model
        self.policy = policy
        self.options = options

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def attribute(self, inputs: Given, target: Target = None) -> Given:
        """What each entry of the inputs contributes to the target, shaped as the inputs.

        `inputs` (B, ...), or a tuple of them; `target` as in Captum: one position of the output for
        all samples or a list or tensor of one for each, a tuple where the output has several
        dimensions, None where it is one number. Errors as LinearInterpreter's; ValueError for a
        target that does not fit.
        """
        several = isinstance(inputs, tuple)
        tensors = inputs if several else (inputs,)
        found: list[tuple[Tensor, ...]] = []
        for i, place in enumerate(_places(target, len(tensors[0]))):
            sample = tuple(x[i : i + 1] for x in tensors)
            op = LinearInterpreter(
                self.model, sample if several else sample[0], self.policy, **self.options
            )
            parts = op.inputs.split(self._contributions(op, _position(place, op.output_shape)))
            found.append(tuple(parts) if several else (parts,))
        joined = tuple(torch.cat(parts) for parts in zip(*found, strict=True))
        return joined if several else joined[0]

    @abstractmethod
    def _contributions(self, op: LinearInterpreter, position: Place) -> Tensor: ...


class RowTimesInput(_Frozen):
    """The row of F that makes an output, times x0: exact shares of F x0, whose sum is the output
    less its part of r.

        attributions = RowTimesInput(model).attribute(images, target=labels)
    """

    def _contributions(self, op: LinearInterpreter, position: Place) -> Tensor:
        return op.rows([position]) * op.x0

    def has_convergence_delta(self) -> bool:
        return True

    def compute_convergence_delta(
        self, attributions: Given, inputs: Given, target: Target = None
    ) -> Tensor:
        """The sum of each sample's attributions less the network's own output: minus its part of r,
        (B,).
        """
        found, given = (x if isinstance(x, tuple) else (x,) for x in (attributions, inputs))
        sums = sum(a.flatten(1).sum(1) for a in found)
        with torch.no_grad():
            y = self.model(*given, **self.options.get("kwargs") or {})
        places = _places(target, len(y))
        outputs = [y[i][_position(place, y.shape[1:])] for i, place in enumerate(places)]
        return sums - torch.stack([output.reshape(()) for output in outputs])


class Discussion(_Frozen):
    """The paper's pixel discussion: the row times x0, and every bias projected back to the pixels
    (`pixel_discussion`). It says where, not how much: its sum is not the output.

        attributions = Discussion(model).attribute(images, target=labels)
    """

    def _contributions(self, op: LinearInterpreter, position: Place) -> Tensor:
        return pixel_discussion(op, [position])


def _places(target: Target, samples: int) -> Sequence[Place | None]:
    """One of each sample."""
    if isinstance(target, Tensor):
        target = target.tolist()
    if target is None or isinstance(target, int | tuple):
        return [target] * samples
    if len(target) == 1:
        return [target[0]] * samples
    if len(target) != samples:
        raise ValueError(f"target wants one for each of {samples} samples, was given {len(target)}")
    return target


def _position(place: Place | None, shape: Sequence[int]) -> Place:
    """Where in an output (shape) the target is; () of one number is 0."""
    if place is None:
        if any(extent != 1 for extent in shape):
            raise ValueError(f"target wants a position in an output of shape {tuple(shape)}")
        return (0,) * len(shape)
    place = place if isinstance(place, tuple) else (place,)
    if len(place) != len(shape):
        raise ValueError(
            f"target wants {len(shape)} numbers for an output of shape {tuple(shape)}, "
            f"was given {place}"
        )
    return place
