"""A model as a function of one batch: what else it is called with, and which of its outputs
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..files import digest
from ..rules.linear import writes_in_place
from .forward import dual_level
from .inputs import Inputs
from .interception import Interception
from .sharded import gathered
from .stamp import Stamp


def plain_model(model: Any) -> nn.Module:
    """The module inside of torch.compile's, DataParallel's and DistributedDataParallel's wrappers;
    of FSDP's, a copy.

    TypeError for what is no module, and for a scripted one, whose functions cannot be seen.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            break
    if not isinstance(model, nn.Module):
        raise TypeError(f"wanted is a torch.nn.Module, given was {type(model).__name__}")
    model = gathered(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{'module ' + name if name else 'the model'} is scripted or traced by torch.jit, "
                "which hides its functions; the Python module it was made of is wanted"
            )
    return model


def require_frozen(model: nn.Module) -> None:
    """ValueError if a layer mixes the samples of a batch or draws random numbers: training mode."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norm and (module.training or module.running_mean is None):
            raise ValueError(
                f"{kind} '{name}' normalises with the statistics of its batch, so F is not defined "
                "for one input; call model.eval() (and keep running statistics)"
            )
        dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        if dropout and module.training and module.p > 0:
            raise ValueError(f"{kind} '{name}' is random in training mode; call model.eval()")


def structure(model: nn.Module) -> str:
    """A digest of the modules' names and kinds and of the weights' names, shapes and dtypes."""
    lines = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
    lines += [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in _state(model).items()]
    return digest("\n".join(lines), {})


def weights(model: nn.Module) -> str:
    """A digest of every parameter and buffer."""
    return digest("", _state(model))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


class Network:
    """model(x, **kwargs)[output], for batches of any size.

    Tensors among `kwargs` whose first dimension is 1 stand for every sample; where x0 is a batch,
    those of its length have one for each. `output`: a key, an index, an attribute's name, or a
    function of what the model returns; None if that is a tensor. `inputs` is how x reaches it; None
    as its first argument.
    """

    def __init__(
        self,
        model: nn.Module,
        kwargs: Mapping[str, Any] | None = None,
        output: str | int | Callable[[Any], Tensor] | None = None,
        inputs: Inputs | None = None,
    ):
        self.model = model
        self.kwargs = dict(kwargs or {})
        self.output = output
        self.inputs = inputs
        self.stamp = Stamp(model, {**(inputs.fixed() if inputs else {}), **self.kwargs})
        self.compiled = any(hasattr(m, "_orig_mod") for m in model.modules())

    def __call__(self, x: Tensor) -> Any:
        inputs = self.inputs or Inputs(x)
        kwargs = {k: _for_all(v, len(x), inputs.samples) for k, v in self.kwargs.items()}
        y = inputs.call(self.model, x, kwargs)
        y = y if self.output is None else self._chosen(y)
        return inputs.answer(y, len(x)) if isinstance(y, Tensor) else y

    def _chosen(self, y: Any) -> Any:
        if callable(self.output):
            return self.output(y)
        if isinstance(self.output, str) and not isinstance(y, Mapping):
            return getattr(y, self.output)
        return y[self.output]

    def plain(self, x: Tensor, stop: int | None = None) -> Tensor:
        """The model's own output for x, not frozen; or the result of its call of number `stop`."""
        return _Plain(self.model, transparent=True, wanted=stop).run(self, x)

    def push_forward(self, x: Tensor, v: Tensor, stop: int | None = None) -> Tensor:
        """The derivative of `plain` at x along v, in forward mode.

        NotImplementedError for a function that has no forward derivative.
        """
        # The other kernels for attention have none.
        with sdpa_kernel(SDPBackend.MATH), dual_level():
            y = self.plain(forward_ad.make_dual(x, v), stop)
            pushed = forward_ad.unpack_dual(y).tangent
            return torch.zeros_like(y) if pushed is None else pushed.clone()

    def pull_back(self, x: Tensor, u: Tensor, stop: int | None = None) -> Tensor:
        """The transposed derivative of `plain` at x applied to u, in reverse mode."""
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.plain(x, stop), x, u)[0]


def precision(device: torch.device) -> AbstractContextManager:
    """What runs within does so in its own dtype: without autocast around it, on CUDA without TF32
    and algorithms that change from call to call.

    Otherwise y0 = F x0 + r would hold to three digits, and differ between batch sizes.
    """
    if device.type == "cuda":
        return _full_precision()
    # Asked first: a product of a small network takes no longer than what turns it off.
    return _no_autocast(device) if torch.is_autocast_enabled(device.type) else nullcontext()


@contextmanager
def settings(device: torch.device, compiled: bool = False) -> Iterator[None]:
    """How a model's own Python runs here: with `precision`, without `compiled` parts and without
    kernels for whole layers.
    """
    with precision(device), _eager(compiled), _no_fast_path():
        yield


class _Plain(Interception):
    """Runs each call as it is, without hooks and blocks without gradients, and counts them."""

    def _handle(self, func, args, kwargs, probes, named):
        result = func(*args, **kwargs)
        self.marks.put(args[0] if writes_in_place(func) else result)
        return result


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Without the fused layers that torch's transformers take where nobody differentiates."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _for_all(value: Any, count: int, samples: int) -> Any:
    """What is given for one of some samples, or for each, for `count` times these."""
    if not isinstance(value, Tensor) or not value.dim() or len(value) not in (1, samples):
        return value
    if len(value) == 1:
        return value.expand(count * samples, *value.shape[1:])
    return value.repeat(count, *[1] * (value.dim() - 1))


@contextmanager
def _eager(compiled: bool) -> Iterator[None]:
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _no_autocast(device: torch.device) -> AbstractContextManager:
    return torch.autocast(device.type, enabled=False)


@contextmanager
def _full_precision() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.fp32_precision
    flags = cudnn.flags(cudnn.enabled, False, None, cudnn.deterministic, False)
    with _no_autocast(torch.device("cuda")), flags:
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before
