"""Every torch function of a running network, caught and told apart: linear, with a rule, or
refused. The model is not modified.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch._ops import OpOverloadPacket
from torch.overrides import TorchFunctionMode

from ..rules import RULES, Entry, Fused, Rule, UnscopedOperation
from ..rules.linear import CASTS, LAYERS, LIKE, LINEAR, NEUTRAL, RANDOM, writes_in_place
from ..rules.policy import Policy, function_name
from .provenance import Marks, Refused, Turns, tensors
from .refusals import (
    require_followed,
    require_kept,
    require_linear,
    require_no_parameter,
    require_own,
)
from .transparent import GRADIENT_MODE, TRANSPARENT, normal_mode
from .writes import write_over


class Interception(TorchFunctionMode):
    """Catches every torch function of a network and marks the tensors that depend on its input.

    Functions of constants (weights, buffers) are left alone. Rules see a run as `freeze`: calling
    it takes a decision, `fused` runs an operator that decides and applies in one.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Policy | None = None,
        watch: bool = False,
        transparent: bool = False,
        wanted: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.policy = policy or Policy()
        self.marks = Marks()
        self.batch = 0  # samples in the run's input
        self.handled = 0  # functions being handled; 0 while the model's own code runs
        self.function: Any = None  # whose rule is at work
        self.expanding = False  # whether that is under "taylor", and all that it is made of
        self.watch = watch  # look out for operations that pass unseen
        self.transparent = transparent  # look through what the model says about derivatives
        self.gradients = False  # whether the run makes a graph that leads to its input
        self.hidden: UnscopedOperation | None = None  # the one that was found
        self.calls = 0  # of the model's own code, so far
        self.wanted = wanted  # the call whose result is the output, in place of the model's
        self.kept: Tensor | None = None  # that result
        self.turns = Turns()
        self.refused = Refused()

    # ---- What the kinds of runs do differently ----

    def __call__(self, decide: Callable[..., Any], *args: Any) -> Any:
        """decide(*args) on the references, for all samples: a constant of the frozen network.

        A tensor or a tuple of tensors, the batch first; arguments that do not depend on the
        network's input are handed on as they are.
        """
        raise NotImplementedError

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Tensor:
        """The rule's scope or frozen operator on this run's samples."""
        raise NotImplementedError

    def require_apart(self, x: Tensor, dims: Iterable[int]) -> None:
        """UnscopedOperation if a choice along these dimensions is one among several samples."""

    def apply(self, rule: Fused, *args: Any, **kwargs: Any) -> Tensor:
        """What `fused` gives, which depends on the network's input."""
        y = self.fused(rule, *args, **kwargs)
        self.marks.put(y)
        return y

    def modes(self) -> Iterable[AbstractContextManager]:
        """What else the model runs in."""
        return []

    def on_start(self, x: Tensor) -> None:
        """Is told the input that the model is given."""

    def before(self, func: Any) -> None:
        """Is told each function of what depends on the network's input, also those of rules."""

    def after(self, func: Any, result: Any) -> None:
        """Is told each call of the model's own code, once it is done."""
        if self.calls == self.wanted:
            self.kept = next(iter(tensors(result))).reshape(self.batch, -1).clone()

    # ---- The run ----

    def run(self, forward: Callable[[Tensor], Any], x: Tensor) -> Tensor:
        """forward(x), which calls the model; UnscopedOperation if its output lost the way back."""
        self.batch, self.calls = len(x), 0
        self.gradients = self.transparent and torch.is_grad_enabled() and x.requires_grad
        try:
            with normal_mode():
                x = x.clone()  # a network may write into its input
                self.marks.put(x)
                self.on_start(x)
                with self, ExitStack() as stack:
                    for mode in self.modes():
                        stack.enter_context(mode)
                    y = forward(x)
        except RuntimeError as error:
            if self.hidden is None:
                raise
            raise self.hidden from error  # TorchScript puts one of its own in its place
        if self.kept is not None:
            return self.kept
        if not isinstance(y, Tensor):
            raise TypeError(
                f"the model must return one tensor, it returned {type(y).__name__}; choose one "
                "with output="
            )
        if y.is_complex():
            raise TypeError(
                "the model's output is complex; choose real numbers of it, for example with "
                "output=torch.view_as_real or output=torch.real"
            )
        if not self.probes(y):
            raise UnscopedOperation(
                "the model's output does not depend on its input through functions that can be "
                "followed: a custom autograd Function, a compiled graph or NumPy stands between, "
                "or all that is left of it is frozen (as a softmax at the end is)"
            )
        if reason := self.refused.reason([y]):
            raise reason
        return y.view_as(y)  # without the mark

    def is_probe(self, value: Any) -> bool:
        """Whether a tensor depends on the network's input in this run."""
        with DisableTorchFunction():
            return bool(self.probes(value))

    def probes(self, value: Any) -> int:
        """How many tensors of an argument depend on the network's input."""
        return self.marks.count(value)

    def dependent(self, values: Iterable[Any]) -> list[Tensor]:
        """Those tensors among a call's arguments that depend on the network's input."""
        return [t for value in values for t in tensors(value) if self.probes(t)]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # the model's own
            with torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
                return self.__torch_function__(func, types, args, kwargs)
        self.handled += 1
        try:
            if func in NEUTRAL and len(args) == 1 and not kwargs and func not in TRANSPARENT:
                return func(*args)
            probes = [self.probes(a) for a in (args[:1] if func in LIKE else args)]
            named = {name: self.probes(value) for name, value in kwargs.items()}
            if self.watch:
                require_no_parameter(self, func, (*args, *kwargs.values()))
            if not any(probes) and not any(named.values()):
                return self._on_constants(func, args, kwargs)
            refused = self.refused.reason((*args, *kwargs.values()))
            if not refused and self.transparent and func in TRANSPARENT:
                result = TRANSPARENT[func](*args, **kwargs)
                self.marks.put(result)
                return result
            if func in NEUTRAL and not any(probes[1:]) and not any(named.values()):
                return func(*args, **kwargs)
            try:
                if refused:
                    raise refused
                result = self._handle(func, args, kwargs, probes, named)
            except UnscopedOperation as reason:
                if self.handled > 1 or not reason.waits:
                    raise
                result = self._go_on(func, args, kwargs, reason)
        finally:
            self.handled -= 1
        if not self.handled:
            self.after(func, result)
            self.calls += 1
        return result

    def _on_constants(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if func is GRADIENT_MODE and self.transparent and self.handled == 1:
            return None
        if func in RANDOM and kwargs.get("generator") is None:
            raise UnscopedOperation(
                f"{self.where(func)} draws other random numbers in each run; keep one draw in a "
                "buffer of the model, or give it a seeded generator"
            )
        return func(*args, **kwargs)

    def _go_on(self, func: Any, args: tuple, kwargs: dict, reason: UnscopedOperation) -> Any:
        """Runs what cannot be frozen: it is refused once the output depends on it."""
        if writes_in_place(func) or kwargs.get("inplace"):
            raise reason
        try:
            with self.unrecorded(), torch.no_grad():
                result = func(*args, **kwargs)
        except Exception as error:
            raise reason from error
        made = list(tensors(result))
        if not made:  # a number: nobody can tell where it goes
            raise reason
        for y in made:
            self.marks.put_on(y)
        self.refused.add(made, reason)
        return result

    def unrecorded(self) -> AbstractContextManager:
        """Where what cannot be frozen runs."""
        return nullcontext()

    def _handle(self, func: Any, args: tuple, kwargs: dict, probes: list, named: dict) -> Any:
        self.before(func)
        known = str(func) if isinstance(func, OpOverloadPacket) and func not in RULES else func
        linear, rule = LINEAR.get(known), RULES.get(known)
        if kwargs.get("out") is not None:
            raise UnscopedOperation(f"{self.where(func)} writes into out=, which has no rule")
        if linear is not None and linear.allows(probes, named):
            require_linear(self, func, args, kwargs)
            if self.watch:
                require_kept(self, func, args, kwargs)
            if writes_in_place(func) and not probes[0]:
                require_own(self, func, args[0])
            if func in LAYERS:
                args = self.marks.of_one_dtype(args)
            result = func(*args, **kwargs)
            if func in CASTS:
                result = self.marks.as_wide(args[0], result)
            made = args[0] if writes_in_place(func) else result
            require_followed(self, func, list(tensors(made)))
            self.marks.put(made)
            given = args[:1] if func in LIKE else (*args, *kwargs.values())
            turns = 0 if func in LAYERS else self.turns.of(self.dependent(given))
            self.turns.note(made, turns)
            return result
        if rule is not None:
            if writes_in_place(func) and not probes[0]:
                raise UnscopedOperation(f"{self.where(func)} writes over a constant")
            elsewhere = any(probes[1:]) or any(n for k, n in named.items() if k != "input")
            return self._freeze(rule, func, args, kwargs, elsewhere)
        what = "neither linear nor has a rule that says how to freeze it; "
        what += "linscope_cuda.register_rule adds one"
        if linear is not None:
            what = "linear in some of its arguments, but not in those that depend on the input here"
        raise UnscopedOperation(f"{self.where(func)} is {what}", waits=True)

    def _freeze(self, entry: Entry, func: Any, args: tuple, kwargs: dict, elsewhere: bool) -> Any:
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
        args, kwargs, inplace = entry.without_inplace(args, kwargs)
        policy = "taylor" if self.expanding else self.policy.default
        if not self.policy.uniform and not self.expanding:
            policy = self.policy.choose(function_name(func), self.module_path())
        outer = self.function, self.expanding
        self.function, self.expanding = func, policy == "taylor"
        try:
            rule = entry.under(policy, elsewhere)
            turns = self.turns.after(entry.role, self.dependent((*args, *kwargs.values())))
            if inplace or writes_in_place(func):
                self.turns.note(y := self.overwrite(rule, *args, **kwargs), turns)
                return y
            y = self._apply(rule, args, kwargs)
        except UnscopedOperation as error:
            raise UnscopedOperation(f"{self.where(func)}: {error}", waits=True) from error
        finally:
            self.function, self.expanding = outer
        require_followed(self, func, list(filter(self.probes, tensors(y))))
        if isinstance(y, Tensor) and not self.probes(y):
            return y.clone()  # a decision, which the network may write into
        self.turns.note(y, turns)
        return y

    def _apply(self, rule: Rule, args: tuple, kwargs: dict) -> Any:
        lacking = rule.least_dims - args[0].dim() if isinstance(rule, Fused) else 0
        if isinstance(rule, Fused) and lacking <= 0:
            return self.apply(rule, *args, **kwargs)
        with self:  # what the rule is made of is caught in turn
            if lacking <= 0:
                return rule(self, *args, **kwargs)
            y = rule(self, args[0][(None,) * lacking], *args[1:], **kwargs)
            return y.reshape(y.shape[lacking:])

    def overwrite(self, rule: Rule, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What a rule makes of a tensor, in that tensor's memory."""
        source = target
        if torch.is_grad_enabled():  # a graph may need what is written over
            self.marks.put(source := target.clone())
        return write_over(target, self._apply(rule, (source, *args), kwargs))

    def frozen_factor(self, first: Tensor, second: Tensor, default: str | None = None) -> str:
        """Which factor of a product of two activations is frozen: the "first" or the "second", or
        "half" of each.
        """
        with DisableTorchFunction():
            named = self.policy.factor(self.module_path()) if self.policy.factors else default
            if named:
                return named
            if gate := self.turns.gate(first, second):
                return gate
        if self.policy.products == "half":
            return "half"
        raise UnscopedOperation(
            "of two activations of one size none is known as the gate; name the factor to freeze, "
            f"linscope_cuda.Policy(factors={{{self.module_path()!r}: 'first' or 'second'}})"
        )

    def require_seen(self, operator: Any, args: tuple) -> None:
        """An operator that runs while none of the model's functions does is out of sight."""
        if not self.handled and any(map(self.probes, args)):
            self.hidden = UnscopedOperation(
                f"{operator} in {self.module_path() or 'the model'} acts on what depends on the "
                "network's input, out of sight: a C++ extension or a scripted function runs there"
            )
            raise self.hidden

    def where(self, func: Any) -> str:
        """The function's name and the module that called it, for messages and tables."""
        path = self.module_path()
        return f"{function_name(func)}{f' in {path}' if path else ''}"

    def module_path(self) -> str:
        """The innermost module whose forward is running, as named in the model; '' if none is."""
        frame = sys._getframe(1)
        while frame is not None:
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) in self._paths:
                return self._paths[id(module)]
            frame = frame.f_back
        return ""

    @cached_property
    def _paths(self) -> dict[int, str]:
        return {id(m): name or type(m).__name__ for name, m in self.model.named_modules()}
