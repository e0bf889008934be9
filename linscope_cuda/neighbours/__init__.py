"""The frozen network in other libraries' terms; each wants that library (pip install
'linscope_cuda[neighbours]').
"""

from .pylops import to_pylops

__all__ = ["to_pylops"]
