"""Instance normalisation."""

from __future__ import annotations

import operator
from functools import reduce

import torch

from .. import reference
from ..checks import batch, beside, dims, rows
from ..derivatives import moves
from ..empty import like, planes
from ..operator import Operator

_ops = torch.ops.linscope

# ---- Checks ----


def check_instance_norm_scope(x, references, weight, bias, eps):
    op = "instance_norm_scope"
    batch(op, x, references)
    dims(op, x, 2)
    for name, t in (("weight", weight), ("bias", bias)):
        beside(op, x, name, t, x.shape[1:2], reference.wide_dtype(x.dtype))


def check_instance_norm_frozen(x, mean, scale, shift):
    op = "instance_norm_frozen"
    references = rows(op, "scale", scale)
    batch(op, x, references)
    dims(op, x, 2)
    for name, t in (("mean", mean), ("scale", scale), ("shift", shift)):
        beside(op, x, name, t, (references, x.shape[1]), reference.wide_dtype(x.dtype))


def check_instance_norm_scope_backward(grad_y, x, mean, rstd, weight):
    op, wide = "instance_norm_scope_backward", reference.wide_dtype(x.dtype)
    references = rows(op, "mean", mean)
    batch(op, x, references)
    dims(op, x, 2)
    beside(op, x, "grad_y", grad_y, x.shape, x.dtype)
    beside(op, x, "mean", mean, (references, x.shape[1]), wide)
    beside(op, x, "rstd", rstd, (references, x.shape[1]), wide)
    beside(op, x, "weight", weight, x.shape[1:2], wide)


# ---- Derivatives ----


class InstanceNormScope:
    def save(self, ctx, inputs, output):
        x, ctx.references, weight, bias, ctx.eps = inputs
        ctx.dtypes = [None if p is None else p.dtype for p in (weight, bias)]
        ctx.save_for_backward(x, output[1], output[2], weight)
        ctx.save_for_forward(x, weight)

    def backward(self, ctx, grad_y):
        x, mean, rstd, weight = ctx.saved_tensors
        if torch.is_grad_enabled() or moves(x):  # a second derivative: mean and rstd depend on x
            _, mean, rstd = reference.instance_norm_scope(x, ctx.references, None, None, ctx.eps)
        grad_x, *sums = _ops.instance_norm_scope_backward(grad_y, x, mean, rstd, weight)
        grad_bias, grad_weight = (s.sum(0) for s in sums)
        grads = zip((grad_weight, grad_bias), ctx.dtypes, strict=True)
        return grad_x, None, *(None if dtype is None else g.to(dtype) for g, dtype in grads)

    def jvp(self, ctx, x_t, _references, weight_t, bias_t, _eps):
        x, weight = ctx.saved_tensors
        return reference.instance_norm_scope_jvp(
            x, x_t, ctx.references, weight, weight_t, bias_t, ctx.eps
        )


class InstanceNormFrozen:
    def save(self, ctx, inputs, output):
        x, mean, scale, _ = inputs
        parameters = any(ctx.needs_input_grad[1:4])
        ctx.save_for_backward(x if parameters else None, mean, scale)
        ctx.save_for_forward(x, mean, scale)

    def backward(self, ctx, grad_y):
        x, mean, scale = ctx.saved_tensors
        grad_x = _ops.instance_norm_frozen(grad_y, None, scale, None)
        if x is None:
            return (grad_x,)
        wide, references = reference.wide_dtype(x.dtype), scale.shape[0]
        plane = (*scale.shape, -1)
        g = reference.by_reference(grad_y.to(wide), references)
        samples = reference.by_reference(x.to(wide), references)
        grad_mean, grad_shift = None, g.sum(0).reshape(plane).sum(2)
        grad_scale = (g * samples).sum(0).reshape(plane).sum(2)
        if mean is not None:
            grad_mean, grad_scale = -scale * grad_shift, grad_scale - mean * grad_shift
        grads = zip((grad_mean, grad_scale, grad_shift), ctx.needs_input_grad[1:4], strict=True)
        return grad_x, *(g if needed else None for g, needed in grads)

    def jvp(self, ctx, x_t, mean_t, scale_t, shift_t):
        x, mean, scale = ctx.saved_tensors
        terms = [] if x_t is None else [_ops.instance_norm_frozen(x_t, None, scale, None)]
        if scale_t is not None:
            terms.append(_ops.instance_norm_frozen(x, mean, scale_t, None))
        for offset in (None if mean_t is None else -mean_t * scale, shift_t):
            if offset is not None:
                terms.append(_ops.instance_norm_frozen(torch.zeros_like(x), None, scale, offset))
        return reduce(operator.add, terms)


# ---- Entries ----

ENTRIES = [
    Operator(
        reference.instance_norm_scope,
        check=check_instance_norm_scope,
        fake=lambda x, references, *_: (like(x), planes(x, references), planes(x, references)),
        arguments="xRww.",
        results="xdd",
        derivative=InstanceNormScope(),
    ),
    Operator(
        reference.instance_norm_frozen,
        check=check_instance_norm_frozen,
        fake=lambda x, mean, scale, shift: like(x),
        arguments="xddd",
        results="x",
        derivative=InstanceNormFrozen(),
        decomposition=reference.instance_norm_frozen,
    ),
    Operator(
        reference.instance_norm_scope_backward,
        check=check_instance_norm_scope_backward,
        fake=lambda grad_y, x, mean, rstd, weight: (
            like(x),
            planes(x, mean.shape[0]),
            planes(x, mean.shape[0]),
        ),
        arguments="xxddw",
        results="xdd",
    ),
]
