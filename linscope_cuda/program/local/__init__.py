"""Straight lines run only where their values are not zero."""

from .local import Local as Local
from .local import Plan as Plan
