"""The page that `linscope explore --static` writes, alone in headless Chromium."""

import pytest
import torch
from browser import needs_browser
from commands import refused
from explorers import shown, system

from linscope_cuda import cli
from linscope_cuda.explorer import static
from linscope_cuda.study.fields import fields

SIZE = 16


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("static") / "cat.html"
    assert cli.main(["explore", "--static", str(file), "--size", str(SIZE)]) == 0
    return file


@needs_browser
@pytest.mark.parametrize("at", ["output", "input"])
@pytest.mark.parametrize("channel", ["", "2"])
def test_every_field_is_there_to_what_is_said(at, channel, page, browser):
    op = system(size=SIZE).op
    side = 3 * SIZE if at == "output" else SIZE
    kind = "receptive" if at == "output" else "projective"
    for pixel in ((0, 0), (7, 9), (side - 1, 5)):
        text = f"at={at}&pixel={pixel[0]},{pixel[1]}&channel={channel}"
        browser.driver.get("about:blank")
        browser.look(f"{page.as_uri()}#{text}", 900)
        browser.wait("window.linscope?.answers.field")
        header, arrays = shown(browser, "field")
        channels = "sum" if channel == "" else [int(channel)]
        found = getattr(fields(op, pixel, at, channels), kind)
        made = torch.zeros_like(found.values[0])
        made[tuple(slice(*ends) for ends in header["box"])] = arrays["values"]
        error = (made - found.values[0]).abs().max().item()
        assert 0 < error <= header["rounding"] * (1 + 1e-4) < 0.02 * found.values.abs().max().item()
        assert header["radius"] == pytest.approx(found.radius.item(), rel=1e-5)
        assert header["away"] == pytest.approx(found.away.item(), rel=1e-3)
        assert "off by at most" in browser("document.body.innerText")
        scope: dict = {}
        exec(header["python"], scope)
        torch.testing.assert_close(scope["values"], found.values[0])
    assert browser.said() == [] and browser.requests()[0].startswith(page.as_uri())
    assert {url.partition("#")[0] for url in browser.requests()} <= {page.as_uri(), "about:blank"}
    assert browser.overflowing() == []


@needs_browser
def test_the_pointer_moves_there_too(page, browser):
    browser.look(page.as_uri(), 900)
    browser.wait("window.linscope?.answers.field")
    x, y, width, height = browser(
        "(r => [r.x, r.y, r.width, r.height])(document.querySelectorAll('.panel canvas')[0]"
        ".getBoundingClientRect())"
    )
    browser.click(x + 4.5 * width / SIZE, y + 6.5 * height / SIZE)
    browser.wait("linscope.answers.field.header.pixel + '' === '6,4'")
    browser.wait("document.querySelectorAll('.pins figure').length === 1")


def test_pages_that_cannot_be(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(static, "MOST_VALUES", 1000)
    where = ["explore", "--size", "16", "--static"]
    assert "a page holds 1,000" in refused([*where, "a.html"], tmp_path, capsys)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(static, "MOST_BYTES", 1000)
    assert "0 are allowed" in refused([*where, "a.html"], tmp_path, capsys)
    classifier = ["--model", "classifiers:classifier"]
    said = refused(["explore", *classifier, "--static", "a.html"], tmp_path, capsys)
    assert "wants a network that makes a picture" in said
