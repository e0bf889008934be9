"""The paper's doubled batch for any network: its torch functions are caught, the model is not
modified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.utils._python_dispatch import TorchDispatchMode

from ..rules import Fused, UnscopedOperation
from ..rules.policy import Policy
from .interception import Interception
from .model import plain_model, require_frozen


class DoubledBatch(Interception):
    """Each scope decides on the first `references` samples and applies the decision to all."""

    def __init__(
        self,
        model: nn.Module,
        references: int,
        policy: Policy | None = None,
        watch: bool = False,
        transparent: bool = False,
        wanted: int | None = None,
    ):
        super().__init__(model, policy, watch, transparent, wanted)
        self.references = references

    def modes(self):
        return [_Watch(self)] if self.watch else []

    def _share(self, x: Tensor) -> int:
        """How many of x's first entries belong to the references."""
        if entries(x) % self.batch:
            raise UnscopedOperation(
                f"a batch of {self.batch} samples became {tuple(x.shape)}: samples must stay apart "
                "in the first dimension"
            )
        return len(x) // self.batch * self.references

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            probes = [a for a in args if self.probes(a)]
            if not probes:
                return decide(*args)
            share, length = self._share(probes[0]), len(probes[0])
            decision = decide(*(a[: self._share(a)] if self.probes(a) else a for a in args))

            def for_all(value: Tensor) -> Tensor:
                if value.dim() == 0 or len(value) != share:
                    raise UnscopedOperation(
                        f"what it decides has shape {tuple(value.shape)}, where {share} entries "
                        "must stay apart in the first dimension"
                    )
                return value.repeat(length // share, *[1] * (value.dim() - 1))

            if isinstance(decision, tuple):
                return tuple(map(for_all, decision))
            return for_all(decision)

    def require_apart(self, x, dims):
        if any(dim % x.dim() == 0 for dim in dims):
            raise UnscopedOperation(
                "it chooses among the samples of a batch, of which the doubled batch has two or "
                "more; storage='tape' has one"
            )

    def fused(self, rule: Fused, *args, **kwargs):
        with DisableTorchFunction():
            return rule.scope(self._share(args[0]), *args, **kwargs)[0]


class _Watch(TorchDispatchMode):
    """Refuses operations on what depends on the network's input, out of sight of its functions."""

    def __init__(self, run: Interception):
        super().__init__()
        self.run = run

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and what keeps compilers out takes its time

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.run.require_seen(func, args)
        return func(*args, **(kwargs or {}))


@contextmanager
def patch(
    model: nn.Module, references: int = 1, policy: str | Policy = "paper", check: bool = True
) -> Iterator[Callable[..., Tensor]]:
    """The paper's doubled batch, drop-in: `scoped(x)` runs the model with a LinearScope in each
    nonlinear function.

    x is (references + probes, *input_shape), probes a multiple of references; of y, the first
    `references` samples are f(x0) and the others F(x0) x1 + r(x0) (equation 5). Modules, functional
    and in-place calls are caught; the model is not modified. Further arguments of `scoped` are
    handed to the model. The first call compares f(x0) with the plain model's, unless `check` is
    off.

    ValueError for a model in training mode or a wrong batch; UnscopedOperation for a function that
    is neither linear nor has a rule, or for an f(x0) that is not the model's.

    >>> with ls.patch(model) as scoped:
    ...     y = scoped(torch.cat([x0, x1]))
    """
    model = plain_model(model)
    require_frozen(model)
    if references < 1:
        raise ValueError(f"patch wants 1 reference or more, was given {references}")
    chosen = policy if isinstance(policy, Policy) else Policy(policy)

    def scoped(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal check
        if x.dim() < 2 or len(x) < references or len(x) % references:
            raise ValueError(
                f"the doubled batch wants {references} references and a multiple of them as "
                f"probes, was given shape {tuple(x.shape)}"
            )
        run = DoubledBatch(model, references, chosen)
        y = run.run(lambda batch: model(batch, *args, **kwargs), x)
        if check:
            given = (v[:references] if _has(v, len(x)) else v for v in args)
            named = {k: v[:references] if _has(v, len(x)) else v for k, v in kwargs.items()}
            with torch.no_grad():
                _compare(y[:references], model(x[:references].clone(), *given, **named))
            check = False
        return y

    yield scoped


def _has(value: Any, samples: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == samples


def _compare(y: Tensor, want: Tensor) -> None:
    digits = torch.finfo(y.dtype).eps ** 0.5
    if y.shape != want.shape or not torch.allclose(y, want, digits, digits, equal_nan=True):
        raise UnscopedOperation(
            "the patched model's f(x0) is not the model's: it mixes the samples of a batch, or "
            "moves them out of the first dimension"
        )


def entries(x: Tensor) -> int:
    """The length of the first dimension, where the samples must be."""
    if x.dim() == 0:
        raise UnscopedOperation(
            "a single number decides for the whole batch; samples must stay apart in the first "
            "dimension"
        )
    return len(x)
