"""torch's fused recurrent networks and their cells, in terms of their parts, gate by gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .entry import UnscopedOperation

State = tuple[Tensor, ...]  # h, and c of an LSTM
Weights = Sequence[Tensor | None]


def _lstm(x: Tensor, state: State, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None) -> State:
    h, c = state
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if w_hr is None else F.linear(h, w_hr)), c


def _gru(x: Tensor, state: State, w_ih, w_hh, b_ih=None, b_hh=None) -> State:
    (h,) = state
    reset, update, new = F.linear(x, w_ih, b_ih).chunk(3, -1)
    h_reset, h_update, h_new = F.linear(h, w_hh, b_hh).chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + h_reset) * h_new)
    update = torch.sigmoid(update + h_update)
    return ((1 - update) * new + update * h,)


def _plain(activation: Callable[[Tensor], Tensor]) -> Callable[..., State]:
    def cell(x: Tensor, state: State, w_ih, w_hh, b_ih=None, b_hh=None) -> State:
        return (activation(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)),)

    return cell


CELLS: dict[str, Callable[..., State]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _plain(torch.tanh),
    "rnn_relu": _plain(torch.relu),
}


def cell_rule(name: str) -> Callable[..., Any]:
    """The rule of torch.NAME_cell."""
    cell = CELLS[name]

    def rule(freeze, input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
        state = cell(input, (hx,) if isinstance(hx, Tensor) else hx, w_ih, w_hh, b_ih, b_hh)
        return state if name == "lstm" else state[0]

    return rule


def network_rule(name: str) -> Callable[..., Any]:
    """The rule of torch.NAME, which runs all layers over all times."""
    cell = CELLS[name]

    def rule(
        freeze,
        input,
        hx,
        params,
        has_biases,
        num_layers,
        dropout,
        train,
        bidirectional,
        batch_first=None,
    ):
        if batch_first is None:
            raise UnscopedOperation("packed sequences have no rule; give one sequence")
        if train and dropout:
            raise ValueError(f"{name} with dropout is random; call model.eval()")
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        runs = num_layers * (2 if bidirectional else 1)
        weights = _dealt(params, runs, has_biases)
        steps, last = list(input.unbind(1 if batch_first else 0)), []
        for layer in range(num_layers):
            directions = []
            for backward in range(2 if bidirectional else 1):
                k = layer * (2 if bidirectional else 1) + backward
                outputs, state = _run(
                    cell, steps, tuple(s[k] for s in states), weights[k], backward
                )
                directions.append(outputs)
                last.append(state)
            steps = [torch.cat(both, -1) for both in zip(*directions, strict=True)]
        y = torch.stack(steps, 1 if batch_first else 0)
        return (y, *(torch.stack(parts) for parts in zip(*last, strict=True)))

    return rule


def _run(
    cell: Callable[..., State], steps: list[Tensor], state: State, weights: Weights, backward: int
) -> tuple[list[Tensor], State]:
    outputs = []
    for x in reversed(steps) if backward else steps:
        state = cell(x, state, *weights)
        outputs.append(state[0])
    return (outputs[::-1] if backward else outputs), state


def _dealt(params: Sequence[Tensor], runs: int, has_biases: bool) -> list[Weights]:
    """The weights of each layer and direction, in the order in which a cell takes them."""
    each = len(params) // runs
    dealt: list[Weights] = [list(params[i * each : (i + 1) * each]) for i in range(runs)]
    if has_biases or each == 2:
        return dealt
    return [[w_ih, w_hh, None, None, w_hr] for w_ih, w_hh, w_hr in dealt]
