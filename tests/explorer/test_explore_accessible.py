"""The explorer for all: as wide as its window, every control with a name and in reach of the
keyboard, every text legible in both colour modes.
"""

import pytest
from browser import needs_browser
from explorers import HASH, LABELS, VIEWS, answered

pytestmark = needs_browser

# Roles of the accessibility tree that mean nothing without a name.
NAMED = {
    *("button", "checkbox", "combobox", "spinbutton", "searchbox", "textbox", "slider", "tab"),
    *("tablist", "tabpanel", "application", "image", "img", "list", "table", "progressbar"),
    *("region", "DisclosureTriangle", "link"),
}
# Every element with a text of its own whose contrast with what lies beneath is below 4.5.
FAINT = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) &&
    !e.matches("script, noscript, option, .told")).map((e) => {
      const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
    }).filter(([ratio]) => ratio < 4.5);
})()
"""
REACHABLE = (
    "[...document.querySelectorAll('button, select, input, summary, canvas.touched')]"
    ".filter(e => e.checkVisibility() && e.tabIndex >= 0)"
)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 900, 1600])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_its_window_and_is_legible(view, width, dark, page):
    browser = page(VIEWS[view][0], width, dark, until=answered(view))
    assert browser("innerWidth") == width and browser.overflowing() == []
    root = "document.documentElement"
    assert browser(f"{root}.scrollWidth") == browser(f"{root}.clientWidth")
    assert browser("document.querySelector('.sentence').innerText.split('. ').length") == 1
    assert browser(FAINT.strip()) == []
    sizes = browser(
        "[...document.querySelectorAll('.linscope *')].filter(e => e.checkVisibility())"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 13


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_has_a_name_and_is_reached_by_the_keyboard(view, page):
    browser = page(VIEWS[view][0], until=answered(view))
    browser("(document.querySelector('.working').hidden = false)")  # as while triplets are sought
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in tree
        if not node["ignored"]
    ]
    assert [role for role, name in seen if role in NAMED and not name] == []
    assert len({name for role, name in seen if role == "tab"}) == 4
    wanted = browser(f"{REACHABLE}.length")
    browser("(window.found = new Set(), document.activeElement.blur())")
    for _ in range(wanted + 40):  # there are more: what scrolls, the lines
        browser.press("Tab")
        outline = browser(
            "(e => e && e !== document.body ? (found.add(e), (s => [s.outlineStyle, "
            "parseFloat(s.outlineWidth), e.outerHTML.slice(0, 80)])(getComputedStyle(e))) : null)"
            "(document.activeElement)"
        )
        if outline is None or browser("found.size") > wanted + 39:
            break
        assert outline[0] != "none" and outline[1] >= 2, outline[2]
    missed = browser(f"{REACHABLE}.filter(e => !found.has(e)).map(e => e.outerHTML.slice(0, 80))")
    assert missed == []


def test_keys_alone_choose_a_label_and_read_a_pixel(page):
    browser = page(LABELS, until="linscope?.answers.column")
    browser("document.querySelectorAll('.labels button')[1].focus()")
    browser.press("Enter")
    browser.wait("linscope.state.label")
    browser("document.querySelector('canvas.touched').focus()")
    before = browser("linscope.answers.column.header.pixel")
    browser.press("ArrowDown")
    browser.wait(f"linscope.answers.column.header.pixel[0] === {before[0] + 1}")
    told = browser.wait(
        "(t => t.includes('moves') && t)(document.querySelector('.told').textContent)"
    )
    assert f"row {before[0] + 1}, column {before[1]} moves \u201c" in told


def test_keys_that_move_the_pixel_are_told_to_who_listens(page):
    browser = page(f"{HASH}&pixel=30,41")
    browser("document.querySelectorAll('canvas.touched')[1].focus()")
    for _ in range(3):
        browser.press("ArrowLeft")
    told = browser.wait(
        "(t => t.includes('column 38') && t)(document.querySelector('.told').textContent)"
    )
    radius = browser("linscope.answers.field.header.radius")
    assert f"output row 30, column 38: 90 % of the energy within {float(f'{radius:.3g}'):g}" in told
    assert browser("document.querySelector('.told').getAttribute('role')") == "status"
