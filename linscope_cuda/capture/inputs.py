"""How the one input of F reaches a model: as its argument, as a batch of them, as several, or in
place of a module's output; and how the model's answer becomes that of F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

Given = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class Inputs:
    """One tensor, the model's first argument."""

    kind = "one"
    samples = 1  # of the model's, in one of F's

    def __init__(self, x0: Tensor):
        self.x0 = x0

    def call(self, model: nn.Module, x: Tensor, kwargs: Mapping[str, Any]) -> Any:
        """What the model gives for a batch of x."""
        return model(x, **kwargs)

    def answer(self, y: Tensor, count: int) -> Tensor:
        """The model's output that counts, for `count` samples of F: these first."""
        # A model that is written for one picture may give its answer without a batch.
        alone = count == 1 and (y.dim() == 0 or len(y) != 1)
        return y.unsqueeze(0) if alone else y

    def fixed(self) -> Mapping[str, Any]:
        """What else it is called with."""
        return {}

    def join(self, parts: Any) -> Tensor:
        """Tensors shaped as the inputs are, one sample or several of each, as what F acts on."""
        return parts

    def split(self, x: Tensor) -> Any:
        """What F acts on, or F^T gives, in the shapes of the inputs."""
        return x


class Batch(Inputs):
    """B samples of the model, (B, *shape), that are one of F: (1, B, *shape)."""

    kind = "batch"

    def __init__(self, given: Tensor):
        self.samples = len(given)
        super().__init__(given[None])

    def call(self, model, x, kwargs):
        return model(self.split(x), **kwargs)

    def answer(self, y, count):
        # A model that mixes its samples may give any number of them: all are of one of F's.
        if y.dim() and len(y) % count == 0:
            return y.unflatten(0, (count, len(y) // count))
        return super().answer(y, count)

    def join(self, parts):
        shape = self.x0.shape[2:]
        if parts.shape[1:] != shape or len(parts) % self.samples:
            wanted, got = (self.samples, *shape), tuple(parts.shape)
            raise ValueError(f"inputs want batches of {wanted}, were given {got}")
        return parts.unflatten(0, (-1, self.samples))

    def split(self, x):
        return x.flatten(0, 1)


class Several(Inputs):
    """Several tensors, one after the other: (1, entries of all); one alone keeps its shape."""

    kind = "several"

    def __init__(self, given: Sequence[Tensor] | Mapping[str, Tensor]):
        self.names = list(given) if isinstance(given, Mapping) else None
        parts = list(given.values()) if isinstance(given, Mapping) else list(given)
        kinds = ", ".join(type(t).__name__ for t in parts if not isinstance(t, Tensor))
        if kinds or not parts:
            raise TypeError(f"inputs want tensors, was given a list of {kinds or 'none'}")
        if any(t.dim() < 1 or len(t) != 1 for t in parts):
            shapes = [tuple(t.shape) for t in parts]
            raise ValueError(f"inputs want one sample each, (1, *shape), were given {shapes}")
        if len({(t.dtype, t.device) for t in parts}) > 1:
            kinds = ", ".join(f"{t.dtype} on {t.device}" for t in parts)
            raise TypeError(f"inputs that are probed together want one dtype, were given {kinds}")
        self.shapes = [t.shape[1:] for t in parts]
        super().__init__(self.join(parts if self.names is None else given))

    def call(self, model, x, kwargs):
        parts: Any = self.split(x)
        return model(*parts, **kwargs) if self.names is None else model(**parts, **kwargs)

    def join(self, parts):
        parts = [parts[name] for name in self.names] if self.names is not None else list(parts)
        if [t.shape[1:] for t in parts] != self.shapes:
            wanted, got = (
                [tuple(s) for s in shapes] for shapes in (self.shapes, [t.shape[1:] for t in parts])
            )
            raise ValueError(f"inputs want samples of {wanted}, were given {got}")
        return parts[0] if len(parts) == 1 else torch.cat([t.flatten(1) for t in parts], 1)

    def split(self, x):
        if len(self.shapes) == 1:
            parts = [x]
        else:
            flat = x.split([shape.numel() for shape in self.shapes], 1)
            parts = [t.unflatten(1, s) for t, s in zip(flat, self.shapes, strict=True)]
        return tuple(parts) if self.names is None else dict(zip(self.names, parts, strict=True))


class Within(Inputs):
    """The output of one of the model's modules, which the model makes of what it is given: of whole
    numbers, for example, an embedding.
    """

    kind = "within"

    def __init__(self, model: nn.Module, at: str, given: Given, kwargs: Mapping[str, Any]):
        modules = dict(model.named_modules())
        if at not in modules or not at:
            known = ", ".join(name for name in list(modules)[1:9])
            raise ValueError(
                f"at wants the name of a module, was given {at!r}; there are {known} ..."
            )
        self.module, self.given = modules[at], given
        seen: list[Any] = []
        with torch.no_grad(), instead(self.module, lambda y: seen.append(y)):
            self._run(model, 1, kwargs)
        if len(seen) != 1 or not isinstance(seen[0], Tensor) or len(seen[0]) != 1:
            what = f"{len(seen)} times" if len(seen) != 1 else "and gives no tensor of one sample"
            raise ValueError(f"at wants a module that is called once, {at!r} is called {what}")
        super().__init__(seen[0].detach().clone())

    def call(self, model, x, kwargs):
        with instead(self.module, lambda y: x):
            return self._run(model, len(x), kwargs)

    def fixed(self):
        given = self.given if isinstance(self.given, Mapping) else {"the input": self.given}
        return given

    def _run(self, model: nn.Module, samples: int, kwargs: Mapping[str, Any]) -> Any:
        def expanded(t: Any) -> Any:
            return t.expand(samples, *t.shape[1:]) if isinstance(t, Tensor) else t

        if isinstance(self.given, Mapping):
            return model(**{k: expanded(v) for k, v in self.given.items()}, **kwargs)
        given = [self.given] if isinstance(self.given, Tensor) else self.given
        return model(*map(expanded, given), **kwargs)


KINDS = [kind.kind for kind in (Inputs, Batch, Several, Within)]


@contextmanager
def instead(module: nn.Module, value: Any) -> Iterator[None]:
    """Within it, the module gives value(its output), where that is not None; in this thread."""
    own = get_ident()
    handle = module.register_forward_hook(lambda _, __, y: value(y) if get_ident() == own else None)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching(module: nn.Module, at: str, tell: Callable[[Any], None]) -> Iterator[None]:
    """Within it, `tell` is given what the module is given (`at` "input") or what it gives
    ("output"), at each of its calls in this thread.
    """
    if at == "output":
        with instead(module, tell):
            yield
        return
    own = get_ident()

    def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if get_ident() == own:
            tell((args, kwargs))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def inputs(model: nn.Module, x0: Any, at: str | None, kwargs: Mapping[str, Any] | None) -> Inputs:
    """What the given x0 is to a model."""
    if at is not None:
        return Within(model, at, x0, kwargs or {})
    if isinstance(x0, Mapping | tuple | list):
        return Several(x0)
    if isinstance(x0, Tensor) and x0.dim() > 1 and len(x0) > 1:
        return Batch(x0)
    return Inputs(x0)
