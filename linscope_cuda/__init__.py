"""See a neural network as the linear system it is for one input: y = F(x0) x + r(x0).

import linscope_cuda as ls

op = ls.LinearInterpreter(model, x0)    # F(x0), matrix-free
op.residual, op @ v, op.T @ u           # r, F v, F^T u
ls.svd(op, k=8)                         # singular triplets of F
with ls.patch(model) as scoped:         # the paper's doubled batch
    y = scoped(torch.cat([x0, x1]))
"""

from . import zoo
from .capture.doubled_batch import patch
from .capture.stamp import StaleTape
from .capture.tape import Tape, TapeMismatch
from .explorer.notebook import explore
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
from .study.attack import Attack, fgsm
from .study.fields import Field, Fields, fields
from .study.ledger import Ledger, ledger
from .study.sweep import Sweep, open_sweep, sweep
from .study.votes import pixel_discussion, pixel_votes

__version__ = "0.1.0"

__all__ = [
    "SVD",
    "Attack",
    "Certificate",
    "CertificateError",
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
    "SiLUScope",
    "SigmoidScope",
    "StaleTape",
    "Sweep",
    "TanhScope",
    "Tape",
    "TapeMismatch",
    "UnscopedOperation",
    "decompositions",
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
    "register_rule",
    "sharding",
    "svd",
    "sweep",
    "to_pylops",
    "trace",
    "zoo",
]
