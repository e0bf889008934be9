"""The tour's page in headless Chromium: complete, silent, offline, and as wide as its window."""

import re

import pytest
from browser import needs_browser
from classifiers import classifier
from commands import in_zoo, tiny

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.zoo import Network

pytestmark = needs_browser

WIDTHS = (400, 1400)

PHOTO = "<img src=x onerror=alert(1)>"
CLASSES = ["salt & pepper", "a < b", 'say "ah"', "</figcaption><script>alert(2)</script>", "it's"]
NETWORK = "&lt;" + 60 * "long_" + '"><svg onload=alert(3)>'


def awkward() -> Network:
    made = classifier(size=(24, 24))
    return Network(made.model, made.preprocess, CLASSES, '<b>"made"</b> & <i>tested</i>')


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A tour of a network that makes pictures, and one with awkward names of everything."""
    folder = tmp_path_factory.mktemp("pages")
    ls.zoo.photo("cat").image.crop((100, 0, 300, 200)).save(folder / f"{PHOTO}.png")
    with pytest.MonkeyPatch.context() as patch:
        in_zoo(patch, tiny=tiny, **{NETWORK: awkward})
        patch.chdir(folder)
        quick = ["tour", "-k", "2", "--size", "24"]
        assert cli.main([*quick, "--model", "tiny", "--out", "plain"]) == 0
        strange = ["--model", NETWORK, "--image", f"{PHOTO}.png", "--out", "awkward"]
        assert cli.main([*quick, *strange]) == 0
    return {name: folder / name / "tour.html" for name in ("plain", "awkward")}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["plain", "awkward"])
def test_the_page_is_whole_silent_offline_and_fits(name, width, browser, pages):
    browser.open(pages[name], width)
    assert browser.requests() == [pages[name].as_uri()]
    assert browser.said() == []
    assert browser("document.images.length") > 8 and browser.undecoded() == []
    assert browser("innerWidth") == width and browser.overflowing() == []
    page = "document.documentElement"
    assert browser(f"{page}.scrollWidth") == browser(f"{page}.clientWidth")


def test_dark_where_that_is_asked_for(browser, pages):
    colours = []
    for dark in (False, True):
        browser.look(pages["awkward"].as_uri(), 900, dark)
        style = "getComputedStyle(document.body)"
        pair = [browser(f"{style}.{name}") for name in ("backgroundColor", "color")]
        colours.append([sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in pair])
    (ground, ink), (dark_ground, dark_ink) = colours
    assert ground > 700 > 200 > ink and dark_ground < 200 < 600 < dark_ink


def test_names_are_text(browser, pages):
    browser.open(pages["awkward"], 1400)
    text = browser("document.body.innerText")
    for name in (PHOTO, NETWORK, '<b>"made"</b> & <i>tested</i>'):
        assert name in text
    assert browser("document.title") == f"{NETWORK} as a linear system"
    alternatives = browser("[...document.images].map(i => i.alt)")
    assert any(f"\u201c{label}\u201d" in alt for label in CLASSES for alt in alternatives)
    assert browser("document.querySelectorAll('script, svg, [onerror]').length") == 0


def test_the_browser_notices(browser, tmp_path):
    """What the tests above look for is found where it is."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<title>bad</title><link rel=icon href='data:,'><body><img alt=none src=missing.png>"
        "<img src='http://127.0.0.1:9/x.png' alt=away><script>console.error('oh')</script>"
        "<div style='width: 900px'>wide</div>"
    )
    browser.open(page, 400)
    assert "http://127.0.0.1:9/x.png" in browser.requests()
    assert any("oh" in message for message in browser.said())
    assert browser.undecoded() == ["none", "away"]
    assert len(browser.overflowing()) == 1 and "wide" in browser.overflowing()[0]
