"""Numbers as people read them: as many digits as say something, and never a zero that is none."""

from __future__ import annotations

import math

_RAISED = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


def significant(value: float, digits: int = 4) -> str:
    """With so many significant digits, in plain ASCII.

    significant(0.0000123), significant(32.1234)    # "1.230e-05", "32.12"
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    plain = 1e-4 <= abs(value) < 10 ** max(digits, 6)
    if not plain:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"


def percent(share: float) -> str:
    """A share of one, to a tenth of a per cent, or to its first two digits where that is less.

    percent(0.0425), percent(0.00012)    # "4.2 %", "0.012 %"
    """
    value = 100 * share
    if value == 0:
        return "0 %"
    small = 0 < abs(value) < 0.95
    return f"{significant(value, 2) if small else f'{value:.1f}'} %"


def scientific(number: float) -> str:
    """2.8e-07 as it is printed: 2.8 x 10 to the -7.

    scientific(2.8e-7)
    """
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}\u00a0\u00d7\u00a010{str(int(exponent)).translate(_RAISED)}"


def minus(text: str) -> str:
    """With a minus sign instead of hyphens.

    minus("-0.3")
    """
    return text.replace("-", "\u2212")
