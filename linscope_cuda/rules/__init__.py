"""How each nonlinear torch function is frozen. A rule is a function of `freeze` and of the call's
own arguments; what it gets from `freeze` is a decision, what else it does must be linear.
"""

from .choices import Choice, Places
from .entry import Entry, Fused, Role, Rule, UnscopedOperation
from .table import RULES, register_rule

__all__ = [
    "RULES",
    "Choice",
    "Entry",
    "Fused",
    "Places",
    "Role",
    "Rule",
    "UnscopedOperation",
    "register_rule",
]
