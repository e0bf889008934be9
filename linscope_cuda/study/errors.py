"""The one exception that means: what was asked for cannot be done."""


class BadInput(ValueError):
    """What was asked for cannot be done; the message is one sentence for the person who asked.

    raise BadInput("k wants 1 ... 16, was given 0")
    """
