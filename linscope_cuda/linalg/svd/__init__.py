"""Singular triplets of a matrix-free operator, F = U S V^T, largest first.

`solve` checks and finishes; `lanczos` and `paper` find the directions, with what `problem` gives
them; `bounds` says how far the values can be from the true ones; `checkpoint` keeps a state on
disk.
"""

from .problem import Step
from .solve import METHODS, SVD, svd

__all__ = ["METHODS", "SVD", "Step", "svd"]
