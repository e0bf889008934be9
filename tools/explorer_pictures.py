"""Makes the pictures of the explorer that README.md and docs/explore.md show, from the real thing:
starts `linscope explore`, looks at it in headless Chromium and photographs all of the page.

python tools/explorer_pictures.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from gallery import PICTURES, small  # noqa: E402

# Name of the picture, address, and what must be there before it is taken.
SHOTS = {
    "explore-pixel": ("model=pixelshuffle4_x3&photo=cat&pixel=61,67", "linscope.answers.field"),
    "explore-labels": (
        "model=squeezenet1_1&photo=cat",
        "linscope.answers.ledger && linscope.answers.column",
    ),
    "explore-spectrum": (
        "model=pixelshuffle4_x3&photo=cat&view=spectrum&t=0.3",
        "linscope.answers.step",
    ),
}
WIDTH, HEIGHT = 1200, 600  # at least


def main() -> int:
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    command = [sys.executable, "-m", "linscope_cuda", "explore", "--no-browser"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert server.stderr is not None
    lines = iter(server.stderr.readline, "")
    address = next(line for line in lines if line.startswith("linscope: http"))
    address = address.split()[1].partition("#")[0]
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        for flag in (*flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, service)

        def resize(height: int) -> None:
            size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

        try:
            for name, (where, ready) in SHOTS.items():
                resize(HEIGHT)
                driver.get("about:blank")
                driver.get(f"{address}#{where}")
                WebDriverWait(driver, 300).until(
                    lambda d, ready=ready: d.execute_script(f"return window.linscope && {ready}")
                )
                resize(driver.execute_script("return document.documentElement.scrollHeight"))
                time.sleep(0.5)  # for the last frame
                picture = PICTURES / f"{name}.png"
                picture.write_bytes(small(driver.get_screenshot_as_png()))
                print(picture)
        finally:
            driver.quit()
            server.terminate()
            server.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
