"""The tour's page beside the explorer: what a picture shows is what its link shows."""

import re

import pytest
import torch
from browser import needs_browser
from explorers import CLASSIFIER, ENDED, NETWORK, SIZE, Server, shown, system

import linscope_cuda as ls
from linscope_cuda.cli import main
from linscope_cuda.explorer.library import Library
from linscope_cuda.explorer.subject import Subject
from linscope_cuda.explorer.toured import toured
from linscope_cuda.report import explore, files

CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module", params=[NETWORK, CLASSIFIER])
def server(request):
    size = ["--size", str(SIZE)] if request.param == NETWORK else []
    running = Server("--tour", *size, first=request.param)
    running.op = system(request.param, size=SIZE if size else None).op
    yield running
    code, said = running.end()
    assert code == ENDED and "Traceback" not in said


@pytest.fixture
def page(browser, server):
    """A function that follows the link of the tour's picture with these words beneath it, and gives
    the words and what the explorer shows.
    """

    def follow(words: str, name: str):
        browser.look(server.address + "tour.html", 900)
        link, caption = browser(
            "(f => [f.querySelector('a').href, f.querySelector('figcaption').innerText])([..."
            f"document.querySelectorAll('figure')].find(f => f.innerText.includes({words!r})))"
        )
        assert link.startswith(server.address + "#")
        browser.driver.find_element(
            "css selector", f'a[href="./#{link.partition("#")[2]}"]'
        ).click()
        browser.wait(f"window.linscope?.answers.{name}")
        return caption, *shown(browser, name)

    yield follow
    assert browser.said() == []


@needs_browser
def test_links_show_what_the_pictures_show(page, server, browser):
    op = server.op
    v = ls.svd(op, k=2, tol=1e-5, angle=0.02, generator=torch.Generator().manual_seed(0)).V
    _, _, arrays = page("Eigen-input v\u2082", "svd")
    assert (arrays["V"][1].flatten() @ v[1].flatten()).abs().item() == pytest.approx(1, abs=1e-3)
    if len(op.output_shape) == 1:
        best = op.output[0].argmax().item()
        for words in ("The row of F", "best scores y"):
            _, header, arrays = page(words, "label")
            assert (header["label"], header["show"]) == (best, "row")
            torch.testing.assert_close(arrays["values"], op.rows([best])[0], **CLOSE)
        colours = ("blue", "green", "red")  # as the classifier takes them
        probed, header, arrays = page("The probed input pixel", "column")
        pixel = [int(n) for n in re.findall(r"\d+", probed)]
        assert header["pixel"] == pixel
        (channel,) = [c for c, name in enumerate(colours) if name in probed]
        (column,) = op.columns([(channel, *pixel)])
        torch.testing.assert_close(arrays["values"], column, **CLOSE)
        _, header, arrays = page("The column of F for that pixel", "column")
        torch.testing.assert_close(arrays["values"], column, **CLOSE)
        _, header, arrays = page("the sum of its two parts", "parts")
        filtered, residual = op.filter(op.x0)[0], op.residual[0]
        torch.testing.assert_close(arrays["filtered"], filtered, **CLOSE)
        torch.testing.assert_close(arrays["residual"], residual, **CLOSE)
        first, *_ = header["best"]
        assert first["label"] == best
        assert first["filtered"] == pytest.approx(filtered[best].item(), rel=1e-4)
        assert first["residual"] == pytest.approx(residual[best].item(), rel=1e-4)
        return
    for words in ("The filter\u2019s part F x\u2080", "The residual r", "The input x\u2080"):
        _, _, arrays = page(words, "parts")
        torch.testing.assert_close(arrays["filtered"], op.filter(op.x0)[0], **CLOSE)
        torch.testing.assert_close(arrays["residual"], op.residual[0], **CLOSE)
    said = browser("document.querySelector('.body').innerText")
    for words in (
        "part F x\u2080, in the colours of y",
        "The residual r",
        "x\u2080, 24 \u00d7 24 pixels",
    ):
        assert words in said
    for words, at in (("probed output pixel", "output"), ("probed input pixel", "input")):
        caption, header, arrays = page(words, "field")
        pixel = [int(n) for n in re.findall(r"\d+", caption)]
        assert header["pixel"] == pixel and "green" in caption
        (whole,) = (op.rows if at == "output" else op.columns)([(1, *pixel)])
        box = tuple(slice(*ends) for ends in header["box"])
        torch.testing.assert_close(arrays["values"], whole[box], **CLOSE)


def test_the_pages_links_are_all_that_it_has_beside_the_tour():
    subject = Subject(NETWORK, "cat", size=16, crop=(10, 20, 200))
    linked = toured(Library([NETWORK]), subject)
    image = subject.cut(ls.zoo.photo("cat").image)
    found = explore(ls.zoo.load(NETWORK), image, network_name=NETWORK, photo_name="cat", size=16)
    alone = files(found)["tour.html"].decode()
    links = re.findall('<a href="([^"]*)"><img', linked)
    assert len(links) == linked.count("<figure") > 10
    assert all("size=16" in link and "crop=10%2C20%2C200" in link for link in links)
    assert not re.search('<a href="[^"]*"><img', alone)
    time = r"\d+\.\d s on"
    assert re.sub(time, "", re.sub("</?a[^>]*>", "", linked)) == re.sub(
        time, "", re.sub("</?a[^>]*>", "", alone)
    )


def test_a_page_without_a_server_has_no_tour_beside_it(capsys, tmp_path):
    assert main(["explore", "--tour", "--static", str(tmp_path / "cat.html")]) == 2
    assert "--static has none" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
