"""Straight lines of torch functions: recorded, taken apart, transposed, batched. They know no
network.
"""

from .line import Line as Line
from .program import Program as Program
from .step import Step as Step
from .step import Value as Value
