"""The explorer in a notebook's cell, by anywidget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..frozen.interpreter import LinearInterpreter
from ..frozen.program_file import FrozenProgram
from ..study.errors import BadInput
from ..study.system import System, from_least_to_most
from ..zoo import Preprocess
from .desk import Desk
from .library import GIVEN, Given, Looked
from .server import front
from .session import Session

_MOST_VIEWS = 8  # of one widget: those of a page that was reloaded never say that they are gone
_LINES = "import linscope_cuda as ls\n\n# op is the operator that ls.explore was given\n"


def explore(
    op: LinearInterpreter | FrozenProgram,
    *,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    address: str = "",
) -> Any:
    """The explorer of a frozen network, as a widget for the end of a notebook's cell.

    `preprocess` says which colours x0 and a picture y stand for; None: from x0's least to its most.
    `classes` names a classifier's scores. `address` is what to begin with, as the page shows it
    after its #; `widget.address` is what is seen. TypeError for what is no frozen network,
    ValueError unless it maps a picture to a picture or to scores, ImportError without the extra
    "explore".

    >>> ls.explore(op)
    """
    looked = given(op, preprocess, classes)
    return _widget()(Session(Given(looked)), address)


def given(
    op: LinearInterpreter | FrozenProgram,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
) -> Looked:
    """What is looked at of an operator that was handed over.

    given(op, classes=["cat", "dog"])
    """
    if not isinstance(op, LinearInterpreter | FrozenProgram):
        raise TypeError(f"explore wants a LinearInterpreter, was given {type(op).__name__}")
    picture = len(op.input_shape) == 3 and op.input_shape[0] in (1, 3)
    if not picture or len(op.output_shape) not in (1, 3):
        raise BadInput(
            "explore wants a network of a picture, (1 or 3, H, W), that makes a picture or scores; "
            f"this one makes {op.output_shape} of {op.input_shape}"
        )
    if classes is not None and len(classes) < op.shape[0]:
        raise BadInput(f"explore wants {op.shape[0]} classes, was given {len(classes)}")

    def class_name(output: int) -> str:
        return f"output {output}" if classes is None else str(classes[output])

    preprocess = preprocess or from_least_to_most(op.x0)
    return Looked(System(GIVEN, op, preprocess), _LINES, class_name)


def _widget() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError(
            f"explore wants {error.name}: pip install 'linscope_cuda[explore]'"
        ) from error

    class Explorer(anywidget.AnyWidget):
        """Questions come as custom messages, and so do answers, from the threads of desks: one for
        each view, of which a widget has several where it is shown more than once.
        """

        _esm = front("explore.js")
        _css = front("explore.css")
        address = traitlets.Unicode("").tag(sync=True)

        def __init__(self, session: Session, address: str) -> None:
            super().__init__(address=address)
            self.session, self.desks = session, {}
            self.on_msg(self._asked)

        def _asked(self, widget: Any, content: Any, buffers: list[Any]) -> None:
            view = content.get("view")
            if content.get("closed"):
                self._leave(view)
                return
            if view not in self.desks:
                self.desks[view] = Desk(
                    self.session, lambda packed: self.send({"view": view}, [packed])
                )
                for first in list(self.desks)[:-_MOST_VIEWS]:
                    self._leave(first)
            self.desks[view].take(bytes(buffers[0]))

        def _leave(self, view: Any) -> None:
            if view in self.desks:
                self.desks.pop(view).close(wait=False)

        def close(self) -> None:
            """Ends the widget, and what it computes."""
            for desk in self.desks.values():
                desk.close()
            super().close()

    return Explorer
