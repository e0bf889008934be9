"""How results show themselves: ten lines of text, a table, a picture."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

_FIRST, _LAST = 6, 3


class Display:
    """What has a __str__, whole; its repr is that in ten lines at most."""

    def __repr__(self) -> str:
        lines = str(self).splitlines()
        if len(lines) > _FIRST + 1 + _LAST:
            left = f"... {len(lines) - _FIRST - _LAST} more lines: print() shows all"
            lines[_FIRST:-_LAST] = [left]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks: its text or its table, and its picture."""
        return _drawing().html(self)


class Tabular(Display):
    """What is a table, too."""

    def _columns(self) -> dict[str, list[Any]]:
        """The cells of each column, by its name."""
        raise NotImplementedError

    def to_pandas(self) -> DataFrame:
        """The table as a pandas.DataFrame, a row for each entry.

        ModuleNotFoundError without pandas (the extra "pandas").

        >>> ls.svd(op, k=4).to_pandas()
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_pandas wants pandas: pip install pandas") from error
        return pandas.DataFrame(self._columns())


class Drawn(Display):
    """What can be drawn, too."""

    def plot(self, axes: Any = None, **options: Any) -> Any:
        """Draws into matplotlib's `axes`, one, or an array of as many as there are pictures (None:
        those of a new figure), and returns them. TypeError for an option that it has not,
        ValueError for the wrong number of axes.

        >>> ls.fields(op, (24, 24)).plot()
        """
        return _drawing().plot(self, axes, **options)


def _drawing() -> Any:
    """The module that draws: from far above, and with matplotlib, once something is drawn."""
    return importlib.import_module(".report.drawing", __package__)
