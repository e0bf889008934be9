"""LinearInterpreter: a network, frozen for one input, as the matrix-free affine map y = F(x0) x +
r(x0).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import copy
from operator import index as as_int
from typing import Any

import torch
from torch import Tensor, nn

from ..capture.doubled_batch import DoubledBatch
from ..capture.interception import Interception
from ..capture.model import Network, plain_model, require_frozen
from ..capture.record import Record
from ..capture.replay import Replay
from ..capture.tape import Tape, TapeMismatch
from ..capture.tape_folder import Folder
from ..capture.transparent import foreign_functions, normal_mode
from ..linalg.operator import MatrixFreeOperator
from ..rules import UnscopedOperation
from ..rules.policy import Policy
from . import tape_file
from .certificate import Certificate, CertificateError, certify, require_linear, tolerance
from .memory import Meter, peak_bytes

Storage = str | os.PathLike


class LinearInterpreter(MatrixFreeOperator):
    """The network's filter F and residual r for x0, the linear system that its decisions leave
    (equations 1 and 5).

    x0 is (1, *input_shape), of the model's dtype and on its device.

    - `policy`: how nonlinear functions are frozen, a name or a `Policy`.
    - `storage`: "tape" records the decisions once and spends one plain pass per product; "none" is
      the paper's doubled batch, which keeps nothing and runs x0 each time; anything else is a
      folder, where the tape lies in files of its own that are mapped into memory; the next record
      there removes them once the tape is gone.
    - `max_bytes`: products are cut into batches whose working memory fits in.
    - `output`: which of the model's outputs counts: a key, an index, an attribute, or a function.
    - `kwargs`: what else the model is called with; tensors of one sample stand for all.
    - `differentiable`: `output`, `residual` and products carry gradients for the model's weights,
      through the decisions as well. Runs the doubled batch.
    - `check`: looks for hidden operations, and measures that F and r are what they should be, in
      about 7 passes.

    ValueError for a wrong shape, a non-finite x0, a model in training mode, a file as storage or an
    unknown policy; TypeError for a wrong dtype; UnscopedOperation for a function that is neither
    linear nor has a rule; CertificateError for a network that turns out to be something else.

    >>> op = ls.LinearInterpreter(model, x0)
    >>> op.filter(x0) + op.residual                       # op.output, which is model(x0)
    """

    def __init__(
        self,
        model: nn.Module,
        x0: Tensor,
        policy: str | Policy = "paper",
        storage: Storage = "tape",
        max_bytes: int = 2**30,
        *,
        output: str | int | Callable[[Any], Tensor] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        differentiable: bool = False,
        check: bool = True,
    ):
        model = plain_model(model)
        self.policy = policy if isinstance(policy, Policy) else Policy(policy)
        _check(model, x0, storage)
        self.network = Network(model, kwargs, output)
        self.storage = "none" if differentiable else os.fspath(storage)
        self.differentiable = differentiable
        self.max_bytes = max_bytes
        self.x0 = x0.detach().clone()
        self._watch, self._stop, self._bytes_of_a_pass = check, None, 0
        self._start(self._record())
        if len(self.output) != 1:
            raise ValueError(
                f"the model gave {len(self.output)} samples for one; F maps a sample to a sample"
            )
        if check:
            self._require_linear()

    @classmethod
    def from_tape(
        cls,
        model: nn.Module,
        path: str | os.PathLike,
        max_bytes: int = 2**30,
        *,
        output: str | int | Callable[[Any], Tensor] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> LinearInterpreter:
        """The interpreter whose tape was saved with `tape.save`, after one pass that holds it
        against the model.

        FileNotFoundError without such a file; ValueError for a damaged or altered one, for a model
        of another structure, other weights or another forward, and for decisions that it cannot
        have taken for the tape's x0. Nothing in the file is executed.

        >>> op = ls.LinearInterpreter.from_tape(model, "cat.tape")
        """
        model = plain_model(model)
        require_frozen(model)
        network = Network(model, kwargs, output)
        tape = tape_file.load(network, path)
        op = cls.__new__(cls)
        op.network, op.policy, op.max_bytes = network, tape.policy, max_bytes
        op.storage, op.differentiable, op._watch, op._stop = "tape", False, True, None
        op._start(tape)
        op._tried = {1}  # the file does not say whether its network takes batches
        return op

    def _start(self, tape: Tape) -> None:
        """Begins anew with a tape."""
        self.tape, self.x0, self.output = tape, tape.x0, tape.output
        self._residual: Tensor | None = None
        self._graphs: dict[int, tuple[Tensor, Tensor]] = {}
        self._tried = {1, 2}  # sizes of a batch that are known to give what single probes give
        self._held: set[int] = set()  # numbers of probes beside which x0's answer is its own
        super().__init__(self.x0.shape[1:], self.output.shape[1:], self.x0.dtype, self.x0.device)
        self._passes = 1

    def __call__(self, x: Tensor) -> Tensor:
        """F x + r: (K, *input_shape) -> (K, *output_shape)."""
        return self.filter(x) + self.residual

    @property
    def model(self) -> nn.Module:
        return self.network.model

    @property
    def residual(self) -> Tensor:
        """r, the frozen network's answer to 0: (1, *output_shape)."""
        self.network.stamp.require_same()
        if self.differentiable:
            return self._answer_to_zero()
        if self._residual is None:
            with torch.no_grad():
                self._residual = self._answer_to_zero()
        return self._residual

    def _answer_to_zero(self) -> Tensor:
        self._passes += 1
        zero = torch.zeros_like(self.x0)
        r = self._doubled(zero) if self.storage == "none" else self._replay(zero, affine=True)
        if r.shape != self.output.shape:
            raise UnscopedOperation(
                f"the frozen network answers 0 with {tuple(r.shape)}, the network x0 with "
                f"{tuple(self.output.shape)}"
            )
        return r

    def _run(self, run: Interception, x: Tensor) -> Tensor:
        stamp, run.stop, run.transparent = self.network.stamp, self._stop, True
        stamp.require_same()
        with self.network.settings(x.device):
            y = run.run(self.network, x)
        stamp.after_run(first=isinstance(run, Record))
        if run.gradients:
            hidden = next(foreign_functions(y), None)
            if hidden is not None:
                raise UnscopedOperation(
                    f"{hidden} cannot be followed backward: it is a custom autograd Function, "
                    "whose derivative is its own"
                )
        return y

    def _record(self) -> Tape:
        """The tape of x0, without entries where nothing is to be kept."""
        if self.storage == "none":
            with torch.set_grad_enabled(self.differentiable):
                y0 = self._doubled(self.x0[:0])
            return Tape(self.model, self.policy, self.x0, y0, [])
        run = Record(self.model, self.policy)
        folder = None if self.storage == "tape" else Folder(self.storage)
        if folder is not None:
            run.keep = folder.keep
        run.watch = True
        meter = Meter() if self._watch else nullcontext()
        with torch.no_grad(), meter:
            self._run(run, self.x0)
        self._bytes_of_a_pass = meter.peak if isinstance(meter, Meter) else 0
        run.tape.folder = folder
        return run.tape

    def _replay(self, x: Tensor, affine: bool) -> Tensor:
        return self._run(Replay(self.model, self.tape, affine, self.policy), x)

    def _doubled(self, x: Tensor) -> Tensor:
        """The probes' part of the doubled batch [x0; x], or that of x0 where there is no probe."""
        run = DoubledBatch(self.model, 1, self.policy)
        run.watch = not len(x)
        y = self._run(run, torch.cat([self.x0, x]))
        if not len(x):
            return y
        if self._watch and len(x) not in self._held:
            with torch.no_grad():
                error = (y[:1] - self.output).norm() / self.output.norm()
            if error > torch.finfo(y.dtype).eps ** 0.5:
                raise UnscopedOperation(
                    "x0's answer changes with its probes: the network mixes the samples of a batch,"
                    " or moves them out of the first dimension"
                )
            self._held.add(len(x))
        return y[1:]

    def plain(self) -> Tensor:
        """The model's own output for x0, run plainly: (1, *output_shape)."""
        return self._plainly(1, self.network.plain)

    def push_forward(self, v: Tensor) -> Tensor:
        """dh(x0) v, the derivative of the model itself, past every rule: (1, *output_shape).

        NotImplementedError for a function to which torch gives no forward derivative.
        """
        return self._plainly(3, self.network.push_forward, v)

    def pull_back(self, u: Tensor) -> Tensor:
        """dh(x0)^T u, likewise: (1, *input_shape)."""
        return self._plainly(3, self.network.pull_back, u)

    @torch.no_grad()
    def _plainly(self, passes: int, product: Callable[..., Tensor], *args: Tensor) -> Tensor:
        self._passes += passes
        with self.network.settings(self.device):
            y = product(self.x0, *args, stop=self._stop)
        self.network.stamp.after_run(first=False)
        return y

    def certify(self, generator: torch.Generator | None = None) -> Certificate:
        """Measures y0 = f(x0), y0 = F x0 + r, linearity and the adjoint on random probes.

        Returns errors, a tolerance of the dtype and, where one is out of it, the first call at
        which the frozen network departs. About 13 passes; `generator` None is a fixed seed.

        >>> op.certify().ok
        """
        with torch.no_grad():
            return certify(self, generator)

    @torch.no_grad()
    def _require_linear(self) -> None:
        # Two probes together, where their products, of two passes each, fit in.
        self.max_batch = 2 if 4 * self._bytes_of_a_pass <= self.max_bytes else 1
        try:
            require_linear(self)
            self.max_batch = None if self.max_batch == 2 else 1
            return
        except (CertificateError, TapeMismatch, UnscopedOperation):
            if self.max_batch == 1 or self.storage == "none":
                raise
        self.max_batch = 1
        require_linear(self)
        self._one_at_a_time(stacklevel=4)

    def _one_at_a_time(self, stacklevel: int) -> None:
        self.max_batch = 1
        warnings.warn(
            "the network mixes the samples of a batch, or moves them out of the first dimension: "
            "its probes will run one at a time",
            stacklevel=stacklevel,
        )

    def _in_batches(self, product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """product(x); where a batch of its size is new, one of its probes is run alone, too."""
        if self._max_batch == 1 and len(x) > 1:
            return torch.cat([product(part) for part in x.split(1)])
        y = product(x)
        if not self._watch or len(x) in self._tried:
            return y
        with torch.no_grad():
            sizes = y.detach().reshape(len(y), -1).norm(dim=1)
            at = sizes.argmax()
            if not sizes[at] > 0:
                return y
            self._passes += 1
            alone = product(x[at : at + 1].detach())[0]
            same = (y[at] - alone).norm() <= tolerance(self.dtype) * alone.norm()
        if same:
            self._tried.add(len(x))
            return y
        self._one_at_a_time(stacklevel=6)
        self._passes += len(x)
        return torch.cat([product(part) for part in x.split(1)])

    def calls(self) -> list[str]:
        """The network's calls that depend on its input, in order: function and module."""
        run = DoubledBatch(self.model, 1, self.policy)
        run.names = []
        with torch.no_grad():
            self._run(run, self.x0)
        return run.names

    def cut_off(self, call: int) -> LinearInterpreter:
        """The interpreter of the network that ends with its call of that number."""
        part = copy(self)
        part._stop = call
        part._start(part._record())
        part.max_batch = self.max_batch
        return part

    @property
    def max_batch(self) -> int | None:
        """Probes computed at once: as many as `max_bytes` allows, predicted when first asked for;
        may be set.
        """
        if self._max_batch is None:
            self._max_batch = self._affordable_batch()
        return self._max_batch

    @max_batch.setter
    def max_batch(self, value: int | None) -> None:
        self._max_batch = value if value is None else max(1, as_int(value))

    def _affordable_batch(self) -> int:
        def products() -> None:
            probe = self._zeros(1, *self.input_shape).requires_grad_()
            with torch.enable_grad():
                y = self._raw_filter(probe)
            torch.autograd.grad(y, probe, self._zeros(1, *self.output_shape))

        try:
            each = peak_bytes(products)
        except Exception:  # a model may do what fake tensors cannot
            return 1
        return max(1, self.max_bytes // each)

    def _raw_filter(self, x: Tensor) -> Tensor:
        """What a product runs."""
        if self.storage == "none":
            return self._doubled(x)
        return self._replay(x, affine=False)

    def _matmat(self, x: Tensor) -> Tensor:
        return self._in_batches(self._forward_product, x)

    def _rmatmat(self, u: Tensor) -> Tensor:
        self.network.stamp.require_same()
        with normal_mode():
            return self._in_batches(self._backward_product, u)

    def _forward_product(self, x: Tensor) -> Tensor:
        if self.differentiable:
            y = self._doubled(torch.cat([x, torch.zeros_like(self.x0)]))
            self._passes += 2
            return y[:-1] - y[-1:]
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            y = self._raw_filter(x)
            if self.storage == "none":
                self._passes += 1  # x0 runs along
                return y - self.residual
            return y

    def _backward_product(self, u: Tensor) -> Tensor:
        if self.storage == "none":
            self._passes += 1
            probe = self._zeros(len(u), *self.input_shape).requires_grad_()
            with torch.enable_grad():
                y = self._doubled(probe)
            keep = self.differentiable and torch.is_grad_enabled()
            return torch.autograd.grad(y, probe, u, create_graph=keep)[0]
        probe, y = self._graph(len(u))
        keep = torch.is_grad_enabled() and u.requires_grad
        with self.network.settings(self.device):
            return torch.autograd.grad(y, probe, u, retain_graph=True, create_graph=keep)[0]

    def _graph(self, samples: int) -> tuple[Tensor, Tensor]:
        """A probe and F probe with its graph: linear, so that one graph serves every transposed
        product of its size.
        """
        if samples not in self._graphs:
            self._graphs = dict(list(self._graphs.items())[-1:])  # a size and its remainder
            probe = self._zeros(samples, *self.input_shape).requires_grad_()
            with torch.enable_grad():
                self._graphs[samples] = probe, self._raw_filter(probe)
        return self._graphs[samples]


def _check(model: nn.Module, x0: Any, storage: Storage) -> None:
    if not isinstance(x0, Tensor):
        raise TypeError(
            f"LinearInterpreter wants x0 as a torch.Tensor, was given {type(x0).__name__}"
        )
    if not x0.is_floating_point():
        raise TypeError(f"LinearInterpreter wants a floating x0, was given {x0.dtype}")
    if x0.dim() < 2 or len(x0) != 1:
        raise ValueError(
            f"LinearInterpreter wants one input, (1, *input_shape), was given {tuple(x0.shape)}"
        )
    if not x0.isfinite().all():
        raise ValueError("LinearInterpreter wants a finite x0, was given one with NaN or infinity")
    if os.path.isfile(storage):
        raise ValueError(f"storage wants 'tape', 'none' or a folder, was given a file, {storage}")
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None and weight.dtype != x0.dtype:
        raise TypeError(f"x0 is {x0.dtype}, the model's weights are {weight.dtype}")
    if weight is not None and weight.device != x0.device:
        raise ValueError(f"x0 is on {x0.device}, the model's weights are on {weight.device}")
    require_frozen(model)
