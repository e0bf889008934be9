"""See a neural network as the linear system it is for one input: y = F(x0) x + r(x0).

import linscope_cuda as ls

op = ls.LinearInterpreter(model, x0)    # F(x0), matrix-free
op.residual, op @ v, op.T @ u           # r, F v, F^T u
ls.svd(op, k=8)                         # singular triplets of F
with ls.patch(model) as scoped:         # the paper's doubled batch
    y = scoped(torch.cat([x0, x1]))
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import ctrl_c as _ctrl_c  # noqa: F401  before all else
from .capture.doubled_batch import patch
from .capture.stamp import StaleTape
from .capture.tape import Tape, TapeMismatch
from .frozen.certificate import Certificate, CertificateError
from .frozen.interpreter import LinearInterpreter
from .frozen.program_file import FrozenProgram, load
from .layers import (
    GELUScope,
    HardtanhScope,
    InstanceNorm2dScope,
    LeakyReLUScope,
    LinearScope,
    MaxPool2dScope,
    PReLUScope,
    ReLU6Scope,
    ReLUScope,
    SigmoidScope,
    SiLUScope,
    TanhScope,
)
from .linalg.estimates import Estimate, frobenius, trace
from .linalg.matrix import MatrixOperator
from .linalg.operator import MatrixFreeOperator
from .linalg.scipy import from_scipy
from .linalg.svd import SVD, svd
from .neighbours import to_pylops
from .operators import decompositions, reference, sharding
from .operators import functions as ops
from .rules import UnscopedOperation, register_rule
from .rules.policy import Policy
from .study.activations import Activations
from .study.attack import Attack, fgsm
from .study.drift import Drift, drift
from .study.fields import Field, Fields, fields
from .study.ledger import Ledger, ledger
from .study.region import Region, region
from .study.sweep import Sweep, open_sweep, sweep
from .study.votes import pixel_discussion, pixel_votes

if TYPE_CHECKING:
    from . import zoo
    from .explorer.notebook import explore

__version__ = "0.1.0"

__all__ = [
    "SVD",
    "Activations",
    "Attack",
    "Certificate",
    "CertificateError",
    "Drift",
    "Estimate",
    "Field",
    "Fields",
    "FrozenProgram",
    "GELUScope",
    "HardtanhScope",
    "InstanceNorm2dScope",
    "LeakyReLUScope",
    "Ledger",
    "LinearInterpreter",
    "LinearScope",
    "MatrixFreeOperator",
    "MatrixOperator",
    "MaxPool2dScope",
    "PReLUScope",
    "Policy",
    "ReLU6Scope",
    "ReLUScope",
    "Region",
    "SiLUScope",
    "SigmoidScope",
    "StaleTape",
    "Sweep",
    "TanhScope",
    "Tape",
    "TapeMismatch",
    "UnscopedOperation",
    "decompositions",
    "drift",
    "explore",
    "fgsm",
    "fields",
    "frobenius",
    "from_scipy",
    "ledger",
    "load",
    "open_sweep",
    "ops",
    "patch",
    "pixel_discussion",
    "pixel_votes",
    "reference",
    "region",
    "register_rule",
    "sharding",
    "svd",
    "sweep",
    "to_pylops",
    "trace",
    "zoo",
]

# Imported when they are first asked for: they bring Pillow and h5py, which F and r do without.
_LATER = {"zoo": (".zoo", None), "explore": (".explorer.notebook", "explore")}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, within = _LATER[name]
    found = importlib.import_module(module, __name__)
    globals()[name] = found if within is None else getattr(found, within)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
