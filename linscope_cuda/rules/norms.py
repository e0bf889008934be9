"""Normalisations: mean and deviation of the reference are frozen; centered, its deviation alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .taylor import Reduction


def _wide(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x if x.dtype == torch.float64 else x.float()


def _moments(x: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(_wide(x), dims, correction=0, keepdim=True)
    return mean, (variance + eps).rsqrt()


def _normalized(freeze, x: Tensor, dims: tuple[int, ...], eps: float, centered: bool) -> Tensor:
    mean, rstd = freeze(lambda x: _moments(x, dims, eps), x)
    if centered:
        mean = x.mean(dims, keepdim=True)
    return ((x - mean) * rstd).to(x.dtype)


class LayerNorm:
    def __init__(self, centered: bool = False):
        self.centered = centered

    def __call__(self, freeze, input, normalized_shape, weight=None, bias=None, eps=1e-5):
        dims = tuple(range(-len(normalized_shape), 0))
        y = _normalized(freeze, input, dims, eps, self.centered)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias


class GroupNorm:
    def __init__(self, centered: bool = False):
        self.centered = centered

    def __call__(self, freeze, input, num_groups, weight=None, bias=None, eps=1e-5):
        groups = input.unflatten(1, (num_groups, -1))  # the places stay apart
        dims = tuple(range(2, groups.dim()))
        y = _normalized(freeze, groups, dims, eps, self.centered).flatten(1, 2)
        channels = (-1, *[1] * (input.dim() - 2))
        y = y if weight is None else y * weight.view(channels)
        return y if bias is None else y + bias.view(channels)


def centered_instance_norm(
    freeze,
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)
    return GroupNorm(centered=True)(freeze, input, input.shape[1], weight, bias, eps)


def rms_norm(freeze, input, normalized_shape, weight=None, eps=None):
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    scale = freeze(lambda x: (_wide(x).square().mean(dims, keepdim=True) + eps).rsqrt(), input)
    y = (input * scale).to(input.dtype)
    return y if weight is None else y * weight


def normalize(freeze, input, p=2.0, dim=1, eps=1e-12, out=None):
    return input * freeze(lambda x: 1 / x.norm(p, dim, keepdim=True).clamp_min(eps), input)


def local_response_norm(freeze, input, size, alpha=1e-4, beta=0.75, k=1.0):
    def scale(x: Tensor) -> Tensor:
        squares = x.square().flatten(2)[:, None]  # the channels as an image's height
        padded = F.pad(squares, (0, 0, size // 2, (size - 1) // 2))
        mean = F.avg_pool2d(padded, (size, 1), stride=1)[:, 0].reshape(x.shape)
        return (alpha * mean + k).pow(-beta)

    return input * freeze(scale, input)


def _dim(input: Tensor, dim: int | None) -> int:
    """torch's own choice where none was made, deprecated there."""
    return dim if dim is not None else 0 if input.dim() in (0, 1, 3) else 1


def softmax(freeze, input, dim=None, _stacklevel=3, dtype=None):
    """A constant: which entry counts how much is the decision."""
    return freeze(lambda x: torch.softmax(x, _dim(input, dim), dtype=dtype), input)


def softmin(freeze, input, dim=None, _stacklevel=3, dtype=None):
    return torch.softmax(-input, _dim(input, dim), dtype=dtype)


def log_softmax(freeze, input, dim=None, _stacklevel=3, dtype=None):
    """x minus the logarithm of the reference's sum."""
    x = input if dtype is None else input.to(dtype)
    return x - freeze(lambda x: x.logsumexp(_dim(x, dim), keepdim=True), x)


class Norm:
    """A norm, which goes with its input: the weights that x0 leads to. Norms of order 0 count."""

    def __init__(self, function: Callable[..., Tensor], dims: tuple[int, ...] | None = None):
        self.function, self.weighted = function, Reduction(function, 1, 1, 2, dims)

    def __call__(self, freeze, input, *args, **kwargs):
        order = args[0] if args else kwargs.get("p", kwargs.get("ord"))
        if order == 0:
            return freeze(lambda x: self.function(x, *args, **kwargs), input)
        return self.weighted(freeze, input, *args, **kwargs)


def renorm(freeze, input, p, dim, maxnorm):
    dims = [d for d in range(input.dim()) if d != dim % input.dim()]

    def scale(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, dims, keepdim=True)
        return torch.where(norm > maxnorm, maxnorm / (norm + 1e-7), 1)

    return input * freeze(scale, input)


def std(freeze, input, *args, **kwargs):
    return torch.sqrt(torch.var(input, *args, **kwargs))


def with_mean(spread: Callable[..., Tensor]):
    """The rule of var_mean and std_mean."""

    def rule(freeze, input, *args, **kwargs):
        dim = kwargs.get("dim", args[0] if args and not isinstance(args[0], bool) else None)
        keepdim = kwargs.get("keepdim", len(args) > 2 and args[2])
        return spread(input, *args, **kwargs), input.mean(dim, keepdim)

    return rule


def cosine_similarity(freeze, x1, x2, dim=1, eps=1e-8):
    """The product of both, each over the norm that x0 gives it."""
    x1, x2 = torch.broadcast_tensors(x1, x2)

    def scaled(x: Tensor) -> Tensor:
        def scale(x: Tensor) -> Tensor:
            return 1 / torch.linalg.vector_norm(x, 2, dim, keepdim=True).clamp_min(eps)

        return x * (freeze(scale, x) if freeze.is_probe(x) else scale(x))

    return (scaled(x1) * scaled(x2)).sum(dim)


def pairwise_distance(freeze, x1, x2, p=2.0, eps=1e-6, keepdim=False):
    return torch.linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim)


def dist(freeze, input, other, p=2):
    return torch.linalg.vector_norm(input - other, p)


def cdist(freeze, x1, x2, p=2.0, compute_mode=None):
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pdist(freeze, input, p=2.0):
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return torch.linalg.vector_norm(input[first] - input[second], p, -1)
