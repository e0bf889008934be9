"""The one exception that means: what was asked for cannot be done; and what raises it most."""


class BadInput(ValueError):
    """What was asked for cannot be done; the message is one sentence for the person who asked.

    raise BadInput("k wants 1 ... 16, was given 0")
    """


def require_between(name: str, value: int, low: int, high: int) -> None:
    """BadInput for a number out of range.

    require_between("--points", 12, 3, 100)
    """
    if not low <= value <= high:
        raise BadInput(f"{name} wants {low} ... {high}, was given {value}")
