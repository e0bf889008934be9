"""What a network says about its own derivatives: to its frozen system it is nothing.

F is a matrix. A detached tensor, a block without gradients and a hook on them change what training
does, and neither F v nor F^T u: an interpreter's runs look through them, forward and backward.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils.hooks import RemovableHandle


def _same(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x.view_as(x)


def _itself(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x


def _unhooked(x: Tensor, *args: Any, **kwargs: Any) -> RemovableHandle:
    return RemovableHandle(OrderedDict())


def _none(*args: Any) -> None:
    return None


def _false(*args: Any) -> bool:
    return False


# What stands for these, of tensors that depend on the network's input.
TRANSPARENT: dict[Any, Callable[..., Any]] = {
    torch.detach: _same,
    Tensor.detach: _same,
    Tensor.data.__get__: _same,  # pyright: ignore
    torch.detach_: _itself,
    Tensor.detach_: _itself,
    Tensor.requires_grad_: _itself,
    Tensor.requires_grad.__get__: _false,  # pyright: ignore
    Tensor.grad_fn.__get__: _none,  # pyright: ignore
    Tensor.register_hook: _unhooked,
    Tensor.register_post_accumulate_grad_hook: _unhooked,
    Tensor.retain_grad: _none,
}

GRADIENT_MODE = torch._C._set_grad_enabled  # what no_grad and its kin call


@contextmanager
def normal_mode() -> Iterator[None]:
    """Out of inference mode, which makes no graphs; gradients stay as they are, on or off."""
    gradients = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        yield


def running_function(frame: Any) -> str | None:
    """The custom autograd Function whose forward is at work in a frame or in one that called it."""
    while frame is not None:
        given = frame.f_locals
        context = next((v for v in given.values() if isinstance(v, BackwardCFunction)), None)
        if context is not None:
            return _made_of(context).__name__
        if frame.f_code.co_name == "forward" and not isinstance(given.get("self"), nn.Module):
            # A forward without a context; before Python 3.11 its class is not to be seen.
            return getattr(frame.f_code, "co_qualname", "a custom Function").removesuffix(
                ".forward"
            )
        frame = frame.f_back
    return None


def _made_of(node: BackwardCFunction) -> type:
    return node._forward_cls  # pyright: ignore[reportAttributeAccessIssue]


def foreign_functions(y: Tensor) -> Iterator[str]:
    """Names of the custom autograd Functions in a graph that are not this package's own."""
    ours = __name__.partition(".")[0]
    seen, left = set(), [y.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [before for before, _ in node.next_functions]
        if isinstance(node, BackwardCFunction):
            function = _made_of(node)
            if function.__module__.partition(".")[0] != ours:
                yield function.__name__
