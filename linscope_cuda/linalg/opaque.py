"""What torch.compile is to call as it is, rather than to look into."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")


def opaque(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """torch.compiler.disable, whose import takes seconds, only where something is compiled.

    @opaque
    def product(x): ...
    """
    plain: list[Any] = []

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not plain:
            plain.append(torch.compiler.disable(function, reason="a frozen network's product"))
        return plain[0](*args, **kwargs)

    vars(called)["_torchdynamo_disable"] = True
    return called
