"""The explorer from pointer to picture: milliseconds in headless Chromium, by events of a real
mouse.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Case(NamedTuple):
    what: str
    address: str
    moved: str  # what the pointer moves over: a selector
    wanted: tuple[int, int] | None  # median and 95th percentile


CASES = [
    Case(
        "PixelShuffle-4 x3 at 256x256, fields",
        "model=pixelshuffle4_x3&photo=cat&size=256",
        ".panel:nth-of-type(2) canvas",
        (40, 80),
    ),
    Case(
        "upconv7 x2 at 256x256, fields",
        "model=upconv7_photo&photo=cat&size=256",
        ".panel:nth-of-type(2) canvas",
        (80, 150),
    ),
    Case(
        "SqueezeNet 1.1 at 227x227, rows of scores",
        "model=squeezenet1_1&photo=cat&show=row",
        ".labels",
        (120, 250),
    ),
]
SMALL_CASES = [
    Case(
        "PixelShuffle-4 x3 at 24x24, fields",
        "model=pixelshuffle4_x3&photo=cat&size=24",
        ".panel:nth-of-type(2) canvas",
        None,
    )
]
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row for each network; none, with a word, where there is no browser to measure in."""
    try:
        from selenium.common.exceptions import WebDriverException
    except ImportError:
        print("benchmarks: explore wants selenium and chromium: left out", file=sys.stderr)
        return []
    cases = SMALL_CASES if quick else CASES
    try:
        with _server(device) as address, _browser() as driver:
            return [_row(driver, address, case, 20 if quick else 100) for case in cases]
    except WebDriverException as error:
        reason = str(error).splitlines()[0]
        print(f"benchmarks: explore found no browser: {reason}", file=sys.stderr)
        return []


@contextmanager
def _server(device: torch.device) -> Iterator[str]:
    command = [sys.executable, "-m", "linscope_cuda", "explore", "--no-browser"]
    started = subprocess.Popen(
        [*command, "--device", str(device)], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert started.stderr is not None
    try:
        lines = iter(started.stderr.readline, "")
        found = next((line for line in lines if line.startswith("linscope: http")), "")
        if not found:
            raise RuntimeError("linscope explore did not start")
        yield found.split()[1].partition("#")[0]
    finally:
        started.terminate()
        started.wait(30)


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, service)
        try:
            driver.set_window_size(1400, 900)
            yield driver
        finally:
            driver.quit()


def _row(driver: Any, address: str, case: Case, moves: int) -> dict:
    print(f"benchmarks: explore, {case.what}", file=sys.stderr)
    driver.get("about:blank")
    driver.get(f"{address}#{case.address}")
    _wait(driver, "linscope.view && (linscope.answers.field || linscope.answers.ledger)", 300)
    box = f"document.querySelector('{case.moved}').getBoundingClientRect()"
    x, y, width, height = driver.execute_script(
        f"return (r => [r.x, r.y, r.width, r.height])({box})"
    )
    taken = []
    for i in range(-3, moves):  # the first are not counted
        across, down = 0.1 + 0.8 * (0.618 * i % 1), 0.05 + 0.9 * (0.382 * i % 1)
        driver.execute_script("linscope.timings.length = 0")
        place = {"x": x + across * width, "y": y + down * height}
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})
        shown = _wait(driver, "linscope.timings[0]", 2)
        if i >= 0 and shown is not None:  # between two labels there is nothing to show
            taken.append(shown)
    taken.sort()
    median, late = statistics.median(taken), taken[int(0.95 * (len(taken) - 1))]
    row = {"what": case.what, "moves": len(taken), "median ms": median, "95 % within ms": late}
    goal = f"{case.wanted[0]} / {case.wanted[1]}" if case.wanted else None
    return {**row, "wanted": goal}


def _wait(driver: Any, expression: str, seconds: float) -> Any:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found = driver.execute_script(f"return {expression}")
        if found:
            return found
        time.sleep(0.005)
    return None
