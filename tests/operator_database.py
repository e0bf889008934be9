"""torch's own operator database as networks of one call, and what an interpreter makes of them.

An answer is one of four: "right", "refused" by one of the errors that say so, "wrong", "crashed".
"""

import warnings
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_unflatten

import linscope_cuda as ls

# torch's own tests forbid what these here do: to set a flag of a backend.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

SAMPLES = 3  # of each entry
REFUSALS = (ls.UnscopedOperation, ValueError, TypeError)
DIGITS = 1e-9


def entry_name(entry):
    return entry.name + (f" {entry.variant_test_name}" if entry.variant_test_name else "")


ENTRIES = {entry_name(e): e for e in op_db}


class Call(nn.Module):
    """x, cut into the floating tensors of a sample's input, with all else of the call as it is."""

    def __init__(self, function, sample, inplace):
        super().__init__()
        self.function, self.inplace = function, inplace
        self.leaves, self.spec = tree_flatten(sample.input)
        self.args, self.kwargs = sample.args, sample.kwargs

    def input(self):
        """What stands for the sample's own input: (1, n)."""
        return torch.cat([t.reshape(1, -1) for t in self.leaves if _is_float(t)], 1)

    def forward(self, x):
        sizes = [t.numel() if _is_float(t) else 0 for t in self.leaves]
        parts = x[0].split(sizes)
        leaves = [
            part.reshape(t.shape) if _is_float(t) else t
            for part, t in zip(parts, self.leaves, strict=True)
        ]
        if self.inplace:
            leaves = [t.clone() if isinstance(t, Tensor) else t for t in leaves]
        y = self.function(tree_unflatten(leaves, self.spec), *self.args, **self.kwargs)
        made = [t for t in tree_flatten(y)[0] if isinstance(t, Tensor)]
        made = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in made]
        made = [t.reshape(1, -1) for t in made if t.is_floating_point()]
        if not made:
            raise TypeError("a call that makes no floating tensor")
        return torch.cat(made, 1)


def _is_float(value):
    dense = isinstance(value, Tensor) and value.layout == torch.strided
    return dense and value.dtype == torch.float64


def networks(entry, inplace=False):
    """The calls of an entry, as far as they take floating tensors and give finite numbers."""
    function = entry.get_inplace() if inplace else entry.op
    if function is None or torch.float64 not in entry.supported_dtypes("cpu"):
        return
    torch.manual_seed(0)  # samples are drawn
    for sample in islice(entry.sample_inputs("cpu", torch.float64), SAMPLES):
        if inplace and sample.broadcasts_input:
            continue
        network = Call(function, sample, inplace).eval()
        if any(map(_is_float, network.leaves)) and network.input().numel():
            yield network


def answer(network, policy):
    """What an interpreter makes of a network: the answer, and the reason of it."""
    x0 = network.input()
    try:
        want = network(x0.clone())
    except Exception as error:  # as it is without us
        return "refused", f"torch itself: {error}"
    if want.isnan().any() or not want.numel() or not x0.isfinite().all():
        return "refused", "nothing to freeze: no number"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            op = ls.LinearInterpreter(network, x0, policy)
            wrong = fault(op, network, x0, want, policy)
    except REFUSALS as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}"
    return ("wrong", wrong) if wrong else ("right", "")


def fault(op, network, x0, want, policy):
    """The first thing that is wrong with an interpreter, in words; None if nothing is."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    u = torch.randn(want.shape, generator=generator).to(want.dtype)
    finite = want.isfinite()
    u = u.masked_fill(~finite, 0)
    Fx0, Fa, r, Ftu = op.filter(x0), op.filter(a), op.residual, op.transpose(u)

    def largest(*values):
        return max([1e-3, *(v for t in values for v in t[finite].abs().tolist())])

    size = largest(want, r, Fx0)
    digits = DIGITS if want.dtype == torch.float64 and op.narrowest == torch.float64 else 1e-2
    if not ((Fx0 + r - want)[finite].abs() <= digits * size).all() or not torch.equal(
        (Fx0 + r)[~finite], want[~finite]
    ):
        return "F x0 + r is not the output"
    left, right = (Fa[finite] * u[finite]).sum(), (Ftu * a).sum()
    if not (left - right).abs() <= digits * largest(want, Fa) * u.numel():
        return f"<F a, u> = {left} is not <a, F^T u> = {right}"

    def same(slope):
        known = slope.isfinite()
        size = max([1.0, *slope[known].abs().tolist()])
        return ((Ftu - slope)[known].abs() <= 1e-7 * size).all()

    if policy == "taylor":
        found = list(_gradients(network, x0, u))
        return "F^T u is not torch's gradient" if found and not any(map(same, found)) else None
    # A frozen norm turns with x, which its output, a direction, does not.
    if torch.equal(network(x0 / 2), want):
        return None
    slope = _slope(network, x0, a)
    if slope is None or ((Fa - slope)[finite].abs() <= 1e-6 * (1 + slope.abs().max())).all():
        return None
    return "F a is not the slope of a function that is straight here"


def _gradients(network, x0, u):
    """F^T u as torch's backward and, where it has them, its forward derivatives have it: the one
    may round away what the other keeps.
    """
    x = x0.clone().requires_grad_()
    try:
        y = network(x)
        if not y.requires_grad:
            yield torch.zeros_like(x0)
            return
        yield torch.autograd.grad(y, x, u, allow_unused=True, materialize_grads=True)[0]
        yield u @ torch.func.jacfwd(lambda x: network(x)[0])(x0)[:, 0]
    except RuntimeError:  # what torch cannot differentiate
        return


# On the line through 0 and x0: a function that is straight at each of these is made of pieces.
_PLACES = [*torch.linspace(-1.43, 1.5, 23).double(), 1.0]


def _slope(network, x0, a):
    """The slope along a of a function made of straight pieces, at x0; None for another.

    Both sides and two steps: a curve of any interest would show.
    """
    try:
        slopes = [_straight(network, t * x0, a) for t in _PLACES]
    except RuntimeError:  # of what is not defined everywhere
        return None
    return None if any(s is None for s in slopes) else slopes[-1]


def _straight(network, x0, a):
    small, smaller = (
        [(network(x0 + s * t * a) - network(x0)) / (s * t) for s in (1, -1)] for t in (1e-4, 3e-5)
    )
    slopes = [*small, *smaller]
    if not all(s.isfinite().all() for s in slopes):
        return None
    size = 1 + slopes[0].abs().max().item()
    same = all((s - slopes[0]).abs().max().item() <= 1e-8 * size for s in slopes)
    return slopes[0] if same else None


def summary(name, inplace, policy):
    """One word for an entry's calls: what they all are, "partly" right, or "-" where there are
    none; and the reasons.
    """
    answers = [answer(network, policy) for network in networks(ENTRIES[name], inplace)]
    words = {word for word, _ in answers}
    reasons = sorted({reason for _, reason in answers if reason})
    for word in ("crashed", "wrong"):
        if word in words:
            return word, reasons
    return ("partly" if len(words) > 1 else next(iter(words), "-")), reasons


def main():
    """Writes the table anew."""
    place = Path(__file__).parent / "rules" / "operator_database.txt"
    kinds = "".join(f"{kind:10}" for kind in ("paper", "taylor", "in place", "taylor"))
    version = ".".join(torch.__version__.split(".")[:2])
    lines = [f"# torch {version}", f"# {'entry':58}{kinds}"]
    for name in ENTRIES:
        row = [summary(name, i, p)[0] for i in (False, True) for p in ("paper", "taylor")]
        lines.append(f"{name:60}" + "".join(f"{word:10}" for word in row))
    place.write_text("\n".join(line.rstrip() for line in lines) + "\n")


if __name__ == "__main__":
    main()
