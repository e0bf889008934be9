"""Looks through a built site: nothing is fetched from another host, no link leads nowhere.

python tools/site_check.py build/site
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself, and where the address stands.
_FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
}
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


class Page(HTMLParser):
    """What a page fetches, where it leads, and the places in it that one can be led to."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.fetched += [given[name] for name in _FETCHED.get(tag, ()) if given.get(name)]
        self.fetched += _IN_STYLE.findall(given.get("style", ""))
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.fetched += _IN_STYLE.findall(data)


class Site:
    def __init__(self, folder: Path):
        self.folder = folder.resolve()

    @cached_property
    def pages(self) -> dict[Path, Page]:
        return {p: Page(p.read_text(encoding="utf-8")) for p in self.folder.rglob("*.html")}

    def faults(self) -> Iterator[str]:
        """A sentence for each."""
        if not self.pages:
            yield f"{self.folder} has no page"
        for path, page in self.pages.items():
            where = path.relative_to(self.folder)
            for address in page.fetched:
                yield from self._of_fetched(path, f"{where} fetches", address)
            for address in page.links:
                parts = urlsplit(address)
                if not parts.scheme and not parts.netloc and self._missing(path, address):
                    yield f"{where} leads nowhere: {address}"
        for path in self.folder.rglob("*.css"):
            for address in _IN_STYLE.findall(path.read_text(encoding="utf-8")):
                yield from self._of_fetched(path, f"{path.name} fetches", address)

    def _of_fetched(self, path: Path, what: str, address: str) -> Iterator[str]:
        parts = urlsplit(address)
        if parts.scheme == "data" or address.startswith("#"):
            return
        if parts.scheme or parts.netloc:
            yield f"{what} from another host: {address}"
        elif self._missing(path, parts.path):
            yield f"{what} what is not there: {address}"

    def _missing(self, path: Path, address: str) -> bool:
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_relative_to(self.folder) or not target.is_file():
            return True
        page = self.pages.get(target)
        return bool(parts.fragment and page and unquote(parts.fragment) not in page.places)


def main() -> int:
    faults = sorted(set(Site(Path(sys.argv[1])).faults()))
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
