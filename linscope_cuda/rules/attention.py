"""Attention with its weights frozen: linear in the values."""

from __future__ import annotations

import math

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
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1)


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
    return freeze(_weights, query, key, attn_mask, is_causal, scale) @ value


def multi_head_attention(
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
    """F.multi_head_attention_forward of (length, samples, features), in terms of its parts."""
    unusual = (bias_k, bias_v, static_k, static_v, key_padding_mask)
    if any(t is not None for t in unusual) or add_zero_attn:
        raise UnscopedOperation("attention with padding masks or added keys has no rule")
    if training and dropout_p:
        raise ValueError("attention with dropout is random; call model.eval()")
    if query.dim() != 3:
        raise UnscopedOperation("attention wants a batch: (length, samples, features)")
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)

    def heads(x, weight, bias):
        return F.linear(x, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)

    q, k, v = (
        heads(x, weight, bias)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    mask = attn_mask
    if mask is not None:
        mask = ~mask if mask.dtype == torch.bool else mask  # there True means: leave out
        mask = mask.unflatten(0, (-1, num_heads)) if mask.dim() == 3 else mask
    shares = freeze(_weights, q, k, mask, is_causal and mask is None)
    y = F.linear((shares @ v).permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if not need_weights:
        return y, None
    return y, shares.mean(1) if average_attn_weights else shares
