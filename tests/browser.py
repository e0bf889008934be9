"""Headless Chromium, for the tests of pages.

Skipped where there is no chromium with its chromedriver, unless LINSCOPE_BROWSER=1 demands them.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
MISSING += [] if importlib.util.find_spec("selenium") else ["Python's selenium"]

needs_browser = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("LINSCOPE_BROWSER") != "1",
    reason=f"the page is looked at with {' and '.join(MISSING)}, not installed here",
)

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


_CODES = {"Tab": 9, "Enter": 13}


class Browser:
    """A window, and what was said and asked for in it."""

    def __init__(self, profile: Path):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)

    def open(self, page: Path, width: int) -> None:
        """Loads the page and waits until each of its pictures is decoded, or cannot be."""
        self.look(page.as_uri(), width)
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "Promise.allSettled([...document.images].map(i => i.decode())).then(() => done())"
        )

    def look(self, address: str, width: int, dark: bool = False) -> None:
        """Loads an address in a window of that width."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(address)

    def wait(self, expression: str, seconds: float = 60):
        """What an expression gives, once that is something; AssertionError if it never does."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, poll_frequency=0.02)
        try:
            return waiting.until(lambda _: self(expression))
        except TimeoutException:
            raise AssertionError(f"{expression} never came: {self.said()}") from None

    def pointer(self, kind: str, x: float, y: float) -> None:
        """A real event of the mouse: "mouseMoved", "mousePressed", "mouseReleased"."""
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        event = {"type": kind, "x": x, "y": y, **button}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.pointer(kind, x, y)

    def press(self, key: str) -> None:
        """A real key, with what the browser itself does at it: Tab goes on, Enter clicks."""
        event: dict[str, str | int] = {"key": key}
        if key in _CODES:
            event |= {"code": key, "windowsVirtualKeyCode": _CODES[key]}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if (kind, key) == ("keyDown", "Enter") else {}
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **event, **text})

    def __call__(self, expression: str):
        return self.driver.execute_script(f"return {expression}")

    def said(self) -> list[str]:
        """Messages on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for data within the page."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        addresses = [request["request"]["url"] for request in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def undecoded(self) -> list[str]:
        """Pictures without pixels."""
        return self("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt || i.src)")

    def overflowing(self) -> list[str]:
        """Elements that reach beyond the window."""
        return self(
            "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right >"
            " document.documentElement.clientWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
        )
