"""The table of operators: an entry for each, from which all of its registration with torch follows.

Shapes without data and the plain torch that stands in (native.py), batching (batching.py),
derivatives (autograd.py), what compilers and several devices need (decompositions.py, sharding.py)
are loops over it.
"""

from ..operator import Operator
from . import gate, instance_norm, max_pool2d, piecewise

OPERATORS: dict[str, Operator] = {
    entry.name: entry
    for entries in (piecewise.ENTRIES, gate.ENTRIES, max_pool2d.ENTRIES, instance_norm.ENTRIES)
    for entry in entries
}
