"""Attention with its weights frozen: linear in the values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .entry import UnscopedOperation


def _weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    query, key = _together(query, key)
    scores = query @ key.transpose(-2, -1) * scale
    if causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    if mask is not None:
        mask = _together(scores, mask)[1] if mask.dim() == scores.dim() else mask
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        else:
            scores = scores + mask
    return torch.softmax(scores, -1)


def _together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The references' part of each: constants come for all samples."""
    samples = min(map(len, tensors))
    return tuple(t if len(t) == 1 else t[:samples] for t in tensors)


def attention(query, key, value, *options):
    """The values by their weights, and the weights."""
    weights, value = _together(_weights(query, key, *options), value)
    return weights @ value, weights


def attend(freeze, query, key, value, *options):
    """`attention` with its weights as the decision."""
    weights = freeze(_weights, query, key, *options)
    return weights @ value, weights


def scaled_dot_product_attention(
    freeze,
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    if dropout_p:
        raise ValueError("attention with dropout is random; call model.eval()")
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(groups, -3) for t in (key, value))
    return attend(freeze, query, key, value, attn_mask, is_causal, scale)[0]


class MultiHeadAttention:
    """F.multi_head_attention_forward of (length, samples, features), in terms of its parts, with
    `attend` as its core.
    """

    def __init__(self, attend: Callable[..., tuple[Tensor, Tensor]]):
        self.attend = attend

    def __call__(
        self,
        freeze,
        query,
        key,
        value,
        embed_dim_to_check,
        num_heads,
        in_proj_weight,
        in_proj_bias,
        bias_k,
        bias_v,
        add_zero_attn,
        dropout_p,
        out_proj_weight,
        out_proj_bias,
        training=True,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        use_separate_proj_weight=False,
        q_proj_weight=None,
        k_proj_weight=None,
        v_proj_weight=None,
        static_k=None,
        static_v=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        if static_k is not None or static_v is not None:
            raise UnscopedOperation("attention with static keys or values has no rule")
        if training and dropout_p:
            raise ValueError("attention with dropout is random; call model.eval()")
        if query.dim() != 3:
            raise UnscopedOperation("attention wants a batch: (length, samples, features)")
        weights: Any  # of query, key and value
        if use_separate_proj_weight:
            weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        else:
            weights = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        if bias_k is not None:
            k, v = (
                torch.cat([t, more.expand(1, *t.shape[1:])])
                for t, more in ((k, bias_k), (v, bias_v))
            )
        if add_zero_attn:
            k, v = (torch.cat([t, t.new_zeros(1, *t.shape[1:])]) for t in (k, v))
        q, k, v = (t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))
        mask = _mask(attn_mask, key_padding_mask, num_heads, k)
        y, shares = self.attend(freeze, q, k, v, mask, is_causal and attn_mask is None)
        y = F.linear(y.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
        if not need_weights:
            return y, None
        return y, shares.mean(1) if average_attn_weights else shares


def _mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int, key: Tensor
) -> Tensor | None:
    """Both masks as one to be added to the scores, 0 for keys that were added to the given ones."""
    total = None
    for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None]):
        if mask is None:
            continue
        if mask.dtype == torch.bool:  # True means: leave out
            mask = key.new_zeros(mask.shape).masked_fill(mask, -torch.inf)
        mask = mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask
        mask = F.pad(mask, (0, key.shape[-2] - mask.shape[-1]))
        total = mask if total is None else total + mask
    return total
