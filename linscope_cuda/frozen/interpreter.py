"""LinearInterpreter: a network, frozen for one input, as the matrix-free affine map y = F(x0) x +
r(x0).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..capture.inputs import Batch, Given, Inputs, inputs
from ..capture.model import Network, plain_model, require_frozen, settings
from ..capture.record import Place, Record
from ..capture.replay import Replay
from ..capture.tape import Tape
from ..rules.policy import Policy
from . import program_file, tape_file
from .certificate import Certificate, certify, require_linear
from .cut import Between, CutOff
from .doubled import Differentiable, Doubled
from .inside import require_module
from .network import FrozenNetwork
from .sources import Source
from .split import Parts, parts
from .taped import Taped, record, recorded_by

Storage = str | os.PathLike
Output = str | int | Callable[[Any], Tensor] | None


class LinearInterpreter(FrozenNetwork):
    """The network's filter F and residual r for x0, the linear system that its decisions leave
    (equations 1 and 5).

    x0 is (1, *input_shape), of the model's dtype and on its device; a tuple, or a dict of arguments
    by name, is probed together: F acts on all of them, one after the other, which
    `inputs.join((a, b))` puts together and `inputs.split(x)` takes apart. A batch x0, (B, *shape),
    is one input of that shape, probed by (K, B, *shape), and `op.output` is model(x0)[None]: F has
    a block for each sample, unless the model mixes them; then F is that of the whole batch.

    - `policy`: how nonlinear functions are frozen, a name or a `Policy`.
    - `storage`: "tape" records the decisions once and spends one plain pass per product; "none" is
      the paper's doubled batch, which keeps nothing and runs x0 each time; a Path, or a string with
      a separator ("tapes/"), is a folder, where the tape lies in files of its own that are mapped
      into memory; the next record there removes them once the tape is gone.
    - `max_bytes`: products are cut into batches whose working memory fits in.
    - `output`: which of the model's outputs counts: a key, an index, an attribute, or a function.
    - `kwargs`: what else the model is called with; tensors of one sample stand for all, those of a
      batch's length for one each.
    - `at`: the name of the module whose output is the input of F, for models of whole numbers; x0
      is then what the model is given.
    - `differentiable`: `output`, `residual` and products carry gradients for the model's weights,
      through the decisions as well. Runs the doubled batch.
    - `fold`: batch norms' scales go into convolutions, and on the CPU convolutions to few channels
      make blocks of pixels: quicker products, for a copy of these weights and another rounding.
    - `check`: looks for hidden operations, and measures that F and r are what they should be, in
      about 7 passes.

    ValueError for a wrong shape, a non-finite x0, a model in training mode, a file as storage or an
    unknown policy or storage; TypeError for a wrong dtype; UnscopedOperation for a function that is
    neither linear nor has a rule; CertificateError for a network that turns out to be something
    else.

    >>> op = ls.LinearInterpreter(model, x0)
    >>> op.filter(x0) + op.residual                       # op.output, which is model(x0)
    """

    def __init__(
        self,
        model: nn.Module,
        x0: Given,
        policy: str | Policy = "paper",
        storage: Storage = "tape",
        max_bytes: int = 2**30,
        *,
        output: Output = None,
        at: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        differentiable: bool = False,
        check: bool = True,
        fold: bool = True,
    ):
        model = plain_model(model)
        policy = policy if isinstance(policy, Policy) else Policy(policy)
        self.inputs = inputs(model, x0, at, kwargs)
        x0 = self.inputs.x0
        _check(model, x0, storage)
        self.network = Network(model, kwargs, output, self.inputs)
        folder = isinstance(storage, os.PathLike)  # also where it is called "tape"
        self.storage = os.path.join(storage, "") if folder else storage
        self.storage = "none" if differentiable else self.storage
        self.differentiable = differentiable
        source, self.tape = self._recorded(policy, x0.detach().clone(), check, fold)
        super().__init__(source, policy, max_bytes)
        if check:
            with torch.no_grad():
                require_linear(self)

    def _recorded(self, policy: Policy, x0: Tensor, check: bool, fold: bool) -> tuple[Source, Tape]:
        if self.storage == "none":
            kind = Differentiable if self.differentiable else Doubled
            source = kind(self.network, x0, policy, check)
            return source, Tape(self.model, policy, x0, source.output, [])
        folder = None if self.storage == "tape" else self.storage
        return record(self.network, x0, policy, folder, fold)

    @staticmethod
    def from_tape(
        model: nn.Module,
        path: str | os.PathLike,
        max_bytes: int = 2**30,
        *,
        output: Output = None,
        kwargs: Mapping[str, Any] | None = None,
        x0: Given | None = None,
        at: str | None = None,
    ) -> LinearInterpreter:
        """The interpreter whose tape was saved with `tape.save`, after one pass that holds it
        against the model.

        FileNotFoundError without such a file; ValueError for a damaged or altered one, for a model
        of another structure, other weights or another forward, and for decisions that it cannot
        have taken for the tape's x0. Nothing in the file is executed. `x0` and `at` are wanted as
        they were where that was several inputs or for a module's output.

        >>> op = ls.LinearInterpreter.from_tape(model, "cat.tape")
        """
        model = plain_model(model)
        given = None if x0 is None else inputs(model, x0, at, kwargs)
        return _FromTape(model, path, max_bytes, Network(model, kwargs, output), given)

    @property
    def model(self) -> nn.Module:
        """The model itself, which is not modified."""
        return self.network.model

    def _about(self) -> list[str]:
        kept = (
            f"tape of {len(self.tape)} decisions, {self.tape.nbytes:,} bytes"
            if self.storage != "none"
            else "nothing kept: x0 runs in each product"
        )
        return [f"y = F x + r of {type(self.model).__name__}; {kept}", *super()._about()]

    def plain(self, stop: int | None = None) -> Tensor:
        """The model's own output for x0, run plainly: (1, *output_shape); or, flattened, the result
        of its call of number `stop`.
        """
        return self._plainly(1, self.network.plain, stop)

    def push_forward(self, v: Tensor, stop: int | None = None) -> Tensor:
        """dh(x0) v, the derivative of the model itself, past every rule: (1, *output_shape).

        NotImplementedError for a function to which torch gives no forward derivative.
        """
        return self._plainly(3, self.network.push_forward, stop, v)

    def pull_back(self, u: Tensor, stop: int | None = None) -> Tensor:
        """dh(x0)^T u, likewise: (1, *input_shape)."""
        return self._plainly(3, self.network.pull_back, stop, u)

    @torch.no_grad()
    def reenact(self, x: Tensor, stop: int | None = None) -> Tensor:
        """F x + r for one probe by the model's own Python, run anew with the decisions for x0."""
        if isinstance(self.source, Doubled):
            return self.source.reenact(x, stop)
        return self.replay(Replay(self.model, self.tape, self.policy, stop), x)

    @torch.no_grad()
    def replay(self, run: Replay, x: Tensor) -> Tensor:
        """What a run beside the tape makes of x (1, *input_shape); the run keeps what it saw."""
        self.source.require_same()
        self._passes += 1
        with settings(self.device, self.network.compiled):
            y = run.run(self.network, x)
        self.network.stamp.after_run(first=False)
        return y

    @torch.no_grad()
    def _plainly(
        self, passes: int, product: Callable[..., Tensor], stop: int | None, *args: Tensor
    ) -> Tensor:
        self._passes += passes
        with settings(self.device, self.network.compiled):
            y = product(self.x0, *args, stop=stop)
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

    def save(self, path: str | os.PathLike) -> None:
        """Writes the program, its constants, x0 and the output to one safetensors file, whole or
        not at all; `ls.load` reads it, without the model.

        ValueError where products run the model itself (storage="none", differentiable) and for a
        program of functions that a file may not hold; FileNotFoundError where the folder is
        missing.

        >>> op.save("cat.linscope")
        """
        program_file.save(self, type(self.model).__name__, path)

    def between(self, start: str, stop: str) -> FrozenNetwork:
        """The map from one module's output to another's, with the decisions for x0: F and r of that
        part. What reaches the second past the first counts as r.

        ValueError for a module that is called more than once, or not in between, and where x0 is a
        batch.

        >>> op.between("layer2", "layer4").filter(v)
        """
        if isinstance(self.inputs, Batch):
            shape = tuple(self.input_shape)
            raise ValueError(f"between wants an x0 of one sample, which is a batch here, {shape}")
        for name in (start, stop):
            require_module(self.modules, name)
        return Between(self, start, stop)

    @property
    def modules(self) -> dict[str, nn.Module]:
        named = dict(self.model.named_modules(remove_duplicate=False))
        return {name: module for name, module in named.items() if name}

    def watching(self, places: Sequence[Place]) -> Taped:
        if not places:
            return super().watching(places)
        modules = self.modules
        run = Record(self.model, self.policy, watched={p: modules[p[0]] for p in places})
        self._passes += 1
        return recorded_by(run, self.network, self.x0, self.program.fold)

    def split(self) -> Parts:
        """F as a local part and one of low rank, `local` + `low_rank`: what goes through a sum over
        all places (the means of norms under the policies "centered" and "taylor", a pool at the
        end) reaches everything, by as many numbers as there are such sums; the rest has small
        fields, and is sparse.

        >>> local, low_rank = op.split()
        >>> F = local.tosparse(), low_rank.U, low_rank.V    # F[0] + F[1] @ F[2]
        """
        return parts(self)

    def calls(self) -> list[str]:
        """The network's calls that depend on its input, in order: function and module."""
        return self.source.recorded().calls

    def cut_off(self, call: int) -> CutOff:
        """The interpreter of the network that ends with its call of that number."""
        return CutOff(self, call)


class _FromTape(LinearInterpreter):
    """An interpreter by a tape from a file."""

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike,
        max_bytes: int,
        network: Network,
        given: Inputs | None,
    ):
        require_frozen(model)
        self.network = network
        self.differentiable = False
        source, self.tape = tape_file.load(network, path, given)
        self.inputs = self.network.inputs or Inputs(source.x0)
        FrozenNetwork.__init__(self, source, self.tape.policy, max_bytes)


def _check(model: nn.Module, x0: Any, storage: Storage) -> None:
    if not isinstance(x0, Tensor):
        raise TypeError(
            f"LinearInterpreter wants x0 as a torch.Tensor, was given {type(x0).__name__}"
        )
    if not x0.is_floating_point():
        raise TypeError(
            f"LinearInterpreter wants a floating x0, was given {x0.dtype}; at= names the module, "
            "an embedding for example, whose output is probed instead"
        )
    if x0.dim() < 2 or len(x0) != 1:
        raise ValueError(
            "LinearInterpreter wants one input, (1, *shape), or a batch, (B, *shape), was given "
            f"{tuple(x0.shape)}"
        )
    if not x0.isfinite().all():
        raise ValueError("LinearInterpreter wants a finite x0, was given one with NaN or infinity")
    folder = 'a folder: a Path, or a string with a separator such as "tapes/"'
    if os.path.isfile(storage):
        raise ValueError(f'storage wants "tape", "none" or {folder}; {storage!r} is a file')
    named = isinstance(storage, str) and storage not in ("tape", "none")
    if named and not os.path.dirname(storage):
        raise ValueError(f'storage wants "tape", "none" or {folder}; was given {storage!r}')
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None and weight.dtype != x0.dtype:
        raise TypeError(f"x0 is {x0.dtype}, the model's weights are {weight.dtype}")
    if weight is not None and weight.device != x0.device:
        raise ValueError(f"x0 is on {x0.device}, the model's weights are on {weight.device}")
    require_frozen(model)
