"""A server of the explorer for a file of tests, and pages of it."""

import re

import pytest
from explorers import ENDED, VIEWED, Server


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    code, said = running.end()
    assert code == ENDED and "Traceback" not in said


@pytest.fixture
def page(browser, server):
    """Opens the explorer where an address says; at the end it was silent, and asked nobody else."""

    def open(address: str, width: int = 900, dark: bool = False, until: str = VIEWED):
        browser.driver.get("about:blank")
        browser.look(f"{server.address}#{address}", width, dark)
        browser.wait(until)
        return browser

    yield open
    assert browser.said() == []
    hosts = {re.sub(r"^\w+://([^/]*).*", r"\1", url) for url in browser.requests()}
    assert hosts <= {server.address.split("/")[2], "about:blank"}
