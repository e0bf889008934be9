"""What the package hands to its users, and what it says about each: names and their docstrings."""

import inspect
import types
from collections.abc import Iterator

import torch

import linscope_cuda as ls
from linscope_cuda.program.line import Line
from linscope_cuda.program.program import Program

MODULES = {n: found for n in ls.__all__ if isinstance(found := getattr(ls, n), types.ModuleType)}
NAMES = {n: getattr(ls, n) for n in ls.__all__ if n not in MODULES}


def _said(found: object) -> str:
    """Its own docstring: a class without one would show its parent's."""
    own = vars(found)["__doc__"] if isinstance(found, type) else found.__doc__
    return inspect.cleandoc(own or "")


def _inner() -> Iterator[tuple[str, str]]:
    """What users call in ls.ops, ls.zoo and ls.reference."""
    for within in ("ops", "zoo", "reference"):
        module = MODULES[within]
        for name in getattr(module, "__all__", vars(module)):
            found = getattr(module, name)
            own = getattr(found, "__module__", "").startswith(module.__name__)
            if own and not name.startswith("_") and callable(found):
                yield f"{within}.{name}", _said(found)


def _members() -> Iterator[tuple[str, str]]:
    """What the package defines on a class, without what torch.nn.Module documents."""
    owners = {**NAMES, "Program": Program, "Line": Line}
    for owner, found in owners.items():
        for name in dir(found) if inspect.isclass(found) else ():
            if name.startswith("_") or hasattr(torch.nn.Module, name):
                continue
            member = inspect.getattr_static(found, name)  # a property, a static method ...
            for inside in (
                "fget",
                "__func__",
                "func",
            ):
                member = getattr(member, inside, member)
            if inspect.isfunction(member) and member.__module__.startswith("linscope_cuda"):
                yield f"{owner}.{name}", inspect.getdoc(getattr(found, name)) or ""


NAMED = {name: _said(found) for name, found in NAMES.items()}
INNER = dict(_inner())
MEMBERS = dict(_members())
