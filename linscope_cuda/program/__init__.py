"""Straight lines of torch functions: recorded, taken apart, transposed, batched. They know no
network.
"""

from .line import Line as Line
from .line import Step as Step
from .line import Value as Value
from .program import Program as Program
