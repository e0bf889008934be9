"""What is seen goes on: as JSON, as PNG, by its address, and by Python lines that make the same
numbers.
"""

import json

import classifiers  # noqa: F401 (which the lines import by name)
import pytest
import torch
from browser import needs_browser
from explorers import HASH, VIEWS, answered, tensors

import linscope_cuda as ls

pytestmark = needs_browser

CLOSE = dict(rtol=1e-3, atol=1e-5)


def same(made, header, arrays, name):
    torch.testing.assert_close(made[name].detach().float().cpu(), arrays["values"], **CLOSE)


def same_field(made, header, arrays):
    box = tuple(slice(*ends) for ends in header["box"])
    torch.testing.assert_close(made["values"][box], arrays["values"], **CLOSE)
    assert made["values"].count_nonzero() == arrays["values"].count_nonzero()
    assert made["radius"].item() == pytest.approx(header["radius"])
    assert made["away"].item() == pytest.approx(header["away"], rel=1e-3)


def same_ledger(made, header, arrays):
    assert made["names"] == header["names"]
    assert made["added"].tolist() == pytest.approx(header["values"], rel=1e-3, abs=1e-5)
    total = made["added"].sum() + made["of_input"]
    assert total.item() == pytest.approx(header["score"], rel=1e-3)


def same_votes(made, header, arrays):
    votes = arrays["votes"]
    assert (votes == made["votes"])[votes >= 0].all() and (votes >= 0).any()


def same_triplets(made, header, arrays):
    assert made["sigma"].tolist() == pytest.approx(header["sigma"], rel=1e-4)
    for name in "UV":
        torch.testing.assert_close(made[name], arrays[name], rtol=1e-2, atol=1e-3)


def same_step(made, header, arrays):
    real, frozen, y = made["real"].output, made["frozen"], made["op"].output
    departure = (real - frozen).norm() / (frozen - y).norm()
    assert header["departure"] == pytest.approx(departure.item(), rel=1e-2)
    assert header["flipped"] == pytest.approx(made["real"].flipped, abs=3)  # borderline ones
    assert header["decisions"] == made["real"].decisions


def same_reach(made, header, arrays):
    assert made["first"] == pytest.approx(header["first"], rel=1e-2)
    assert made["close"] == pytest.approx(header["close"], rel=3e-2)


def same_parts(made, header, arrays):
    for name in ("filtered", "residual"):
        torch.testing.assert_close(made[name], arrays[name], **CLOSE)


def same_system(made, header, arrays):
    op = made["op"]
    assert [op.input_shape, op.output_shape] == [
        tuple(header[f"{end}_shape"]) for end in ("input", "output")
    ]
    ratio = op.residual.norm() / op.output.norm()
    assert header["norm_residual_over_output"] == pytest.approx(ratio.item(), rel=1e-4)


SAME = {
    "open": same_system,
    "field": same_field,
    "label": lambda *all: same(*all, "values"),
    "column": lambda *all: same(*all, "column"),
    "ledger": same_ledger,
    "votes": same_votes,
    "svd": same_triplets,
    "step": same_step,
    "reach": same_reach,
    "parts": same_parts,
}


def saved(browser):
    """What the button gives, as it is read back."""
    browser("(linscope.save = (blob, end) => blob.text().then(t => window.saved = [end, t])) && 0")
    browser("document.querySelector('[data-save=json]').click()")
    end, text = browser.wait("window.saved")
    assert end == "json"
    return json.loads(text)


@pytest.mark.parametrize("view", VIEWS)
def test_the_lines_of_what_is_saved_make_its_numbers(view, page):
    address, names = VIEWS[view]
    browser = page(address, until=answered(view))
    if "step" in names:
        browser(
            "[...document.querySelectorAll('button')].find(b => b.innerText[0] === 'H').click()"
        )
        names += ("reach",)
        browser.wait("linscope.answers.reach")
    said = saved(browser)
    assert {*names, "open"} <= set(said["shown"])
    whole: dict = {}
    exec(browser("document.querySelector('pre').textContent").split("# the second")[0], whole)
    for name, answer in said["shown"].items():
        if "python" not in answer:
            continue
        made: dict = {}
        exec(answer["python"], made)
        arrays = tensors(answer["arrays"])
        SAME[name.rstrip("2")](made, answer, arrays)
        if not name.endswith("2"):
            SAME[name](whole, answer, arrays)
    assert said["python"].startswith("import linscope_cuda as ls")


def test_pins_are_saved_and_shown_again(page):
    browser = page(f"{HASH}&pixel=20,31&pins=output,10,11;input,3,4")
    browser.wait("document.querySelectorAll('.pins figure').length === 2")
    first, second = saved(browser)["pinned"]
    assert [first["pixel"], first["field"]] == [[10, 11], "receptive"]
    for answer in (first, second):
        made: dict = {}
        exec(answer["python"], made)
        same_field(made, answer, tensors(answer["arrays"]))
    address = browser("location.hash.slice(1)")
    browser = page(address)
    browser.wait("document.querySelectorAll('.pins figure').length === 2")
    assert browser("linscope.answers.field.header.pixel") == [20, 31]


@pytest.mark.parametrize("view", VIEWS)
def test_the_picture_that_is_saved_has_what_is_seen(view, page):
    browser = page(VIEWS[view][0], until=answered(view))
    found = browser.driver.execute_async_script(
        """
        const done = arguments[0];
        const mean = (image, x, y, width, height) => {
          const canvas = new OffscreenCanvas(40, 40), to = canvas.getContext("2d");
          to.drawImage(image, x, y, width, height, 0, 0, 40, 40);
          const sum = [0, 0, 0];
          const { data } = to.getImageData(0, 0, 40, 40);
          data.forEach((v, n) => n % 4 < 3 && (sum[n % 4] += v / 1600));
          return sum;
        };
        linscope.save = (blob, end) => createImageBitmap(blob).then((image) => {
          const shown = [...document.querySelectorAll(".body figure.panel canvas, .body h3")]
            .filter((e) => e.checkVisibility());
          if (shown[0].tagName === "H3") return done([end, image.width, image.height]);
          const [first] = shown, scale = Math.min(360 / first.width, 360 / first.height);
          done([end, image.width, image.height, mean(first, 0, 0, first.width, first.height),
            mean(image, 18, 52, first.width * scale, first.height * scale)]);
        });
        if (document.querySelector(".sigmas")) document.querySelector(".sigmas").remove();
        document.querySelector("[data-save=png]").click();
        """
    )
    end, width, height, *colours = found
    assert (end, width) == ("png", 3 * 378 + 18) and height > 400
    if colours:
        on_page, in_file = map(torch.tensor, colours)
        assert (on_page - in_file).abs().max() < 3
        assert in_file.min() < 250  # of 255, white


@pytest.mark.parametrize("allowed", [True, False])
def test_the_address_is_copied_or_shown_to_be_copied(allowed, page):
    browser = page(f"{HASH}&pixel=20,31")
    browser(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => {"
        f"if (!{str(allowed).lower()}) throw new Error('refused'); window.taken = text}}}}}}) && 0"
    )
    browser("document.querySelector('[data-save=link]').click()")
    said = browser.wait("document.querySelector('.copied').innerText")
    link = browser("location.href")
    assert "pixel=20%2C31" in link
    if allowed:
        assert browser("window.taken") == link and said == "The address is copied."
        return
    chosen = browser(
        "(f => f.value.slice(f.selectionStart, f.selectionEnd))(document.activeElement)"
    )
    assert chosen == link and "does not let this page copy" in said


def test_a_dropped_file_is_named_by_the_lines(page, tmp_path, monkeypatch):
    browser = page(f"{HASH}&view=photo", until="linscope?.answers.photo")
    file = tmp_path / "mine's.png"
    ls.zoo.photo("astronaut").image.crop((150, 20, 350, 220)).save(file)
    browser.driver.find_element("css selector", "[type=file]").send_keys(str(file))
    browser.wait("linscope.state.photo.startsWith('dropped-') && linscope.answers.parts")
    monkeypatch.chdir(tmp_path)
    answer = saved(browser)["shown"]["parts"]
    made: dict = {}
    exec(answer["python"], made)
    same_parts(made, answer, tensors(answer["arrays"]))
