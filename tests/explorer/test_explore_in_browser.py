"""`linscope explore` in headless Chromium: what is pointed at, clicked, typed and dropped shows
what op says; silent, on this machine alone, and as wide as its window.
"""

import base64
import json
import re
import struct
import zlib

import pytest
import torch
from browser import needs_browser
from explorers import (
    CLASSIFIER,
    ENDED,
    HASH,
    LABELS,
    NETWORK,
    SIZE,
    VIEWED,
    Server,
    shown,
    system,
)

import linscope_cuda as ls
from linscope_cuda.study.flips import flips
from linscope_cuda.study.votes import pixel_parts

pytestmark = needs_browser

CLOSE = dict(rtol=1e-4, atol=1e-5)


def panel(browser, number: int, row: float, column: float, rows: int, columns: int):
    """Where a pixel of the panel of that number lies in the window, which is scrolled there."""
    x, y, width, height = browser(
        "(c => (c.scrollIntoView({block: 'center'}), (r => [r.x, r.y, r.width, r.height])"
        f"(c.getBoundingClientRect())))(document.querySelectorAll('.panel canvas')[{number}])"
    )
    return x + (column + 0.5) * width / columns, y + (row + 0.5) * height / rows


def field_of(browser, at: str, pixel) -> tuple[dict, torch.Tensor]:
    """The field of that pixel, once it is shown, without the zeros around it."""
    browser.wait(
        f"(f => f && f.pixel + '' === '{pixel[0]},{pixel[1]}' && f.field === "
        f"'{'receptive' if at == 'output' else 'projective'}')(linscope.answers.field?.header)"
    )
    header, arrays = shown(browser, "field")
    return header, arrays["values"]


def whole(op, header, values, at):
    made = torch.zeros(op.input_shape if at == "output" else op.output_shape)
    made[tuple(slice(*ends) for ends in header["box"])] = values
    return made


def test_the_pointer_shows_rows_and_columns(page):
    browser = page(HASH)
    op = system().op
    browser.pointer("mouseMoved", *panel(browser, 1, 30, 41, 72, 72))
    header, values = field_of(browser, "output", (30, 41))
    row = op.rows([(c, 30, 41) for c in range(3)]).sum(0)
    torch.testing.assert_close(whole(op, header, values, "output"), row, **CLOSE)
    expected = ls.fields(op, (30, 41), at="output").receptive
    assert header["radius"] == pytest.approx(expected.radius.item())
    assert header["away"] == pytest.approx(expected.away.item(), rel=1e-4)
    assert tuple(map(tuple, header["box"][1:])) == expected.support
    readings = browser("document.querySelector('.readings').innerText")
    assert f"{float(f'{expected.radius.item():.3g}'):g} pixel" in readings
    assert "11 \u00d7 11 pixels" in readings
    browser.pointer("mouseMoved", *panel(browser, 0, 5, 17, SIZE, SIZE))
    header, values = field_of(browser, "input", (5, 17))
    column = op.columns([(c, 5, 17) for c in range(3)]).sum(0)
    torch.testing.assert_close(whole(op, header, values, "input"), column, **CLOSE)


def test_the_close_up_has_the_colours_of_its_values(page):
    browser = page(f"{HASH}&pixel=30,41")
    header, values = field_of(browser, "output", (30, 41))
    grey = values.mean(0)
    top, left, side = header["window"]
    (_, (y, _), (x, _)) = header["box"]
    largest = divmod(int(grey.abs().argmax()), grey.shape[1])

    def colour(i, j):
        place = f"({j} + .25) * c.width / {side} | 0, ({i} + .25) * c.height / {side} | 0"
        return browser(
            "(c => Array.from(c.getContext('2d').getImageData("
            f"{place}, 1, 1).data))(document.querySelectorAll('.panel canvas')[2])"
        )

    sign = grey[largest] > 0
    found = colour(largest[0] + y - top, largest[1] + x - left)
    assert found == ([103, 0, 31, 255] if sign else [5, 48, 97, 255])
    bar = browser("document.querySelector('.bar').ariaLabel")
    assert f"{float(f'{grey.abs().max().item():.3g}'):g}, red" in bar
    browser("document.querySelector('.check input').click()")
    browser.wait("linscope.state.scale")
    browser.pointer("mouseMoved", *panel(browser, 1, 10, 10, 72, 72))
    field_of(browser, "output", (10, 10))
    assert browser("document.querySelector('.bar').ariaLabel") == bar


def test_keys_and_pins(page):
    browser = page(f"{HASH}&pixel=30,41")
    field_of(browser, "output", (30, 41))
    browser("document.querySelectorAll('.panel canvas')[1].focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        browser.press(key)
    field_of(browser, "output", (31, 41))
    browser.press("Enter")
    browser.wait("document.querySelectorAll('.pins figure').length === 1")
    browser.click(*panel(browser, 0, 3, 4, SIZE, SIZE))
    browser.wait("document.querySelectorAll('.pins figure').length === 2")
    assert browser("linscope.state.pins") == "output,31,41;input,3,4"
    browser("document.querySelector('.pins [aria-label=\"unpin output 31, 41\"]').click()")
    browser.wait("document.querySelectorAll('.pins figure').length === 1")
    browser("document.querySelector('[role=tab][aria-selected=true]').focus()")
    browser.press("ArrowRight")
    browser.wait("linscope.state.view === 'compare'")
    browser.wait(VIEWED)


def test_one_colour_is_probed(page):
    browser = page(f"{HASH}&pixel=30,41&channel=1")
    header, values = field_of(browser, "output", (30, 41))
    op = system().op
    torch.testing.assert_close(
        whole(op, header, values, "output"), op.rows([(1, 30, 41)])[0], **CLOSE
    )


def test_labels_ledger_and_votes(page):
    browser = page(f"{LABELS}&show=row", until="linscope?.answers.ledger && linscope.answers.label")
    op = system(CLASSIFIER, size=None).op
    best = op.output[0].argmax().item()
    header, arrays = shown(browser, "label")
    assert header["label"] == best and header["name"] in browser("document.body.innerText")
    torch.testing.assert_close(arrays["values"], op.rows([best])[0], **CLOSE)
    other = op.output[0].argsort(descending=True)[2].item()
    browser(f"document.querySelector('[data-label=\"{other}\"]').click()")
    browser.wait(f"linscope.answers.label.header.label === {other}")
    browser.wait(f"linscope.answers.ledger.header.label === {other}")
    torch.testing.assert_close(shown(browser, "label")[1]["values"], op.rows([other])[0], **CLOSE)
    found, said = ls.ledger(op, [other]), shown(browser, "ledger")[0]
    assert said["names"] == found.names and said["input"] == pytest.approx(found.input.item())
    assert said["values"] == pytest.approx(found.values[:, 0].tolist())
    layers = "[...document.querySelectorAll('[aria-label^=\"what each layer\"] b')]"
    heights = browser(f"{layers}.map(b => b.clientHeight)")
    assert len(set(heights)) == 1  # a line each
    bars = browser(f"{layers}.map(b => b.innerText)")
    assert len(bars) == 1 + len(found.names)
    number = float(bars[1].replace("\u2212", "-"))
    assert number == pytest.approx(found.values[0, 0].item(), rel=6e-3)
    name = found.names[1]
    browser(f"document.querySelector({json.dumps(f'[data-part={json.dumps(name)}]')}).click()")
    browser.wait("linscope.answers.label.header.show === 'part'")
    part = pixel_parts(op, other, name)
    torch.testing.assert_close(shown(browser, "label")[1]["values"], part, **CLOSE)
    browser = page(f"{LABELS}&show=votes", until="linscope?.answers.votes")
    votes = shown(browser, "votes")[1]["votes"]
    order = op.output[0].argsort(descending=True).tolist()
    expected = ls.pixel_votes(op, order)
    assert ((votes == expected) | (votes == -1)).all() and (votes == expected).any()


def test_pointing_at_a_label_shows_its_row(page):
    browser = page(f"{LABELS}&show=row", until="linscope?.answers.label")
    op = system(CLASSIFIER, size=None).op
    other = op.output[0].argsort(descending=True)[3].item()
    x, y = browser(
        f"(r => [r.x + 20, r.y + 8])(document.querySelector('[data-label=\"{other}\"]')"
        ".getBoundingClientRect())"
    )
    browser.pointer("mouseMoved", x, y)
    browser.wait(f"linscope.answers.label.header.label === {other}")
    torch.testing.assert_close(shown(browser, "label")[1]["values"], op.rows([other])[0], **CLOSE)


def test_the_spectrum_and_where_it_ends(page):
    browser = page(f"{HASH}&view=spectrum&k=2", until="linscope?.answers.step")
    op = system().op
    header, arrays = shown(browser, "svd")
    found = ls.svd(op, k=2, tol=1e-5, angle=0.02, generator=torch.Generator().manual_seed(0))
    assert header["sigma"] == pytest.approx(found.S.tolist(), abs=2e-5 * found.S[0].item())
    v = arrays["V"][0]
    assert (v.flatten() @ found.V[0].flatten()).item() == pytest.approx(1, abs=1e-3)
    browser(
        "(s => (s.value = 0.4, s.dispatchEvent(new Event('input'))))"
        "(document.querySelector('[type=range]'))"
    )
    browser.wait("linscope.answers.step.header.t > 0")
    step = shown(browser, "step")[0]
    assert step["t"] == pytest.approx(0.4 * header["most"][0])
    moved = flips(op, op.x0 + step["t"] * v)
    assert 0 < step["flipped"] < step["decisions"] == moved.decisions
    assert step["flipped"] == pytest.approx(moved.flipped, abs=3)  # borderline ones may differ
    frozen = op.output + step["t"] * header["sigma"][0] * arrays["U"][0]
    departure = (moved.output - frozen).norm() / (frozen - op.output).norm()
    assert step["departure"] == pytest.approx(departure.item(), rel=1e-2)
    assert f"{step['flipped']:,} of {step['decisions']:,}" in browser("document.body.innerText")
    browser("[...document.querySelectorAll('button')].find(b => b.innerText[0] === 'H').click()")
    browser.wait("linscope.answers.reach")
    reach = shown(browser, "reach")[0]
    for end, sign in ((0.99, False), (1.05, True)):
        some = [flips(op, op.x0 + s * end * reach["first"] * v).flipped for s in (1, -1)]
        assert any(some) == sign


def test_two_policies_side_by_side(page):
    network = "cyclegan-random"
    address = f"view=compare&model={network}&photo=cat&size=16&pixel=8,9"
    address += f"&model2={network}&policy2=centered"
    browser = page(address, until="linscope?.answers.field && linscope.answers.field2")
    for name, policy in (("field", "paper"), ("field2", "centered")):
        op = system(network, policy, 16).op
        header, arrays = shown(browser, name)
        row = op.rows([(c, 8, 9) for c in range(3)]).sum(0)
        torch.testing.assert_close(
            whole(op, header, arrays["values"], "output"), row, rtol=1e-3, atol=1e-5
        )
    assert browser("document.querySelectorAll('.pane h3').length") == 2


def test_two_networks_are_asked_at_the_same_place(page):
    other = "edsr_baseline_x2-random"
    address = f"{HASH}&view=compare&pixel=61,30&model2={other}&policy2=paper&pins=output,61,30"
    browser = page(address, until="linscope?.answers.field && linscope.answers.field2")
    header, arrays = shown(browser, "field2")
    assert header["pixel"] == [41, 20]  # 61.5 and 30.5, times 48 / 72
    op = system(other).op
    row = op.rows([(c, 41, 20) for c in range(3)]).sum(0)
    found = whole(op, header, arrays["values"], "output")
    torch.testing.assert_close(found, row, rtol=1e-3, atol=1e-5)
    browser.pointer("mouseMoved", *panel(browser, 4, 11, 7, 48, 48))
    browser.wait("linscope.answers.field2.header.pixel + '' === '11,7'")
    browser.wait("linscope.answers.field.header.pixel + '' === '17,11'")
    browser.wait("document.querySelectorAll('.pins figure').length === 2")
    pinned = browser("[...document.querySelectorAll('.pins figcaption')].map(f => f.innerText)")
    assert pinned[0].startswith(f"{NETWORK}, paper: output 61, 30: ")
    assert pinned[1].startswith(f"{other}, paper: output 41, 20: ")


@pytest.mark.parametrize("how", ["chosen", "dropped"])
def test_a_picture_of_ones_own(how, page, tmp_path):
    browser = page(f"{HASH}&view=photo", until="linscope?.answers.photo")
    file = tmp_path / "mine.png"
    ls.zoo.photo("astronaut").image.crop((150, 20, 350, 220)).save(file)
    give(browser, file, how)
    browser.wait("linscope.state.photo.startsWith('dropped-') && linscope.opened")
    browser.wait("document.querySelector('[data-crop=\"2\"]').value === ''")
    browser(
        "[10, 20, 100].forEach((v, d) => (n => (n.value = v, d === 2 && n.dispatchEvent(new "
        "Event('change'))))(document.querySelector(`[data-crop=\"${d}\"]`)))"
    )
    browser.wait("linscope.state.crop === '10,20,100' && linscope.opened")
    browser("document.querySelector('[data-view=pixel]').click()")
    browser.wait("linscope.answers.field")
    image = ls.zoo.photo(file).image.crop((10, 20, 110, 120))
    op = ls.study.system.frozen(ls.zoo.load(NETWORK), image, "mine", size=SIZE).op
    header, arrays = shown(browser, "field")
    row = op.rows([(c, *header["pixel"]) for c in range(3)]).sum(0)
    torch.testing.assert_close(whole(op, header, arrays["values"], "output"), row, **CLOSE)


def give(browser, file, how="chosen"):
    if how == "chosen":
        browser.driver.find_element("css selector", "[type=file]").send_keys(str(file))
        return
    data = base64.b64encode(file.read_bytes()).decode()
    browser(
        "(d => (d.items.add(new File([Uint8Array.from(atob('" + data + "'), c => c.charCodeAt(0))],"
        f"'{file.name}')), document.querySelector('.drop').dispatchEvent(new DragEvent('drop', "
        "{dataTransfer: d, bubbles: true, cancelable: true}))))(new DataTransfer())"
    )


def huge() -> bytes:
    """A PNG of 20,000 x 20,000 white pixels, in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side = 20_000
    rows = zlib.compress((b"\0" + b"\xff" * (side // 8)) * side, 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (huge(), "'bad.png' has too many pixels"),
        (b"this is no picture", "'bad.png' is not a picture that can be read"),
        (b"\x89PNG\r\n\x1a\n", "'bad.png' is not a picture that can be read"),
        (bytes(33 * 2**20), "34,603,008 bytes, and a picture of at most 33,554,432 is wanted"),
    ],
)
def test_bad_pictures_are_refused_in_a_sentence(content, words, page, tmp_path):
    browser = page(f"{HASH}&view=photo", until="linscope?.answers.photo")
    (tmp_path / "bad.png").write_bytes(content)
    give(browser, tmp_path / "bad.png")
    said = browser.wait("(e => !e.hidden && e.innerText)(document.querySelector('.error'))")
    assert words in said
    assert browser("linscope.state.photo") == "cat"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("model=os:system&photo=cat", "there is no network 'os:system'"),
        (f"model={NETWORK}&photo=/etc/passwd", "there is no photo '/etc/passwd'"),
        (f"model={NETWORK}&photo=dropped-0", "drop it again"),
        (f"model={NETWORK}&photo=cat&size=5", "size wants 16 ... 1024 pixels, was given 5"),
        (f"{HASH}&crop=0,0,9999", "crop wants a square"),
        (f"{HASH}&policy=none", "policy wants one of paper"),
    ],
)
def test_bad_addresses_are_refused_in_a_sentence(address, words, page):
    browser = page(address, until="!document.querySelector('.error').hidden")
    assert words in browser("document.querySelector('.error').innerText")


def test_two_hundred_quick_moves_end_at_the_last(page):
    browser = page(HASH)
    places = [panel(browser, 1, i % 70, (7 * i) % 71, 72, 72) for i in (*range(199), 33)]
    for place in places:
        browser.pointer("mouseMoved", *place)
    header, values = field_of(browser, "output", (33, 7 * 33 % 71))
    op = system().op
    row = op.rows([(c, *header["pixel"]) for c in range(3)]).sum(0)
    torch.testing.assert_close(whole(op, header, values, "output"), row, **CLOSE)
    browser.wait("!location.hash || location.hash.includes('pixel=33%2C18')")


def test_two_tabs_and_a_pointer_while_triplets_are_looked_for(page, server):
    large = f"model={NETWORK}&photo=cat&size=96"
    works = "!document.querySelector('.working').hidden"
    browser = page(f"{large}&view=spectrum&k=16", until=works)
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    try:
        page(f"{large}&pixel=11,12")
        field_of(browser, "output", (11, 12))
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)
    assert browser(works)
    browser("document.querySelector('[data-view=pixel]').click()")
    browser.wait("linscope.answers.field")
    browser("document.querySelector('[data-view=spectrum]').click()")
    browser.wait(works)
    browser("document.querySelector('.working button').click()")
    browser.wait("document.querySelector('.working').hidden")


CELL = """
    const done = arguments[0];
    import(new URL("explore.js", location.href)).then(({ default: front }) => {
      const url = new URL("questions", location.href);
      url.protocol = "ws"; url.hash = "";
      const socket = new WebSocket(url), views = [];
      const traits = { address: "pixel=7,8&size=24" }, heard = [];
      const tell = (event, ...said) => {
        for (const [e, f] of [...heard]) if (e === event) f(...said);
      };
      window.cell = { traits, heard, gone: [] };
      cell.model = {
        get: (name) => traits[name],
        set(name, value) { traits[name] = value; tell("change:" + name); },
        save_changes() {},
        on: (event, f) => heard.push([event, f]),
        off: (event, f) => heard.splice(heard.findIndex(([e, g]) => e === event && g === f), 1),
        send(content, _, buffers) {
          if (content.closed) return cell.gone.push(content.view);
          views.push(content.view);
          socket.send(buffers[0]);
        },
      };
      // Each question's answer comes to every view, with the name of the one that asked.
      socket.binaryType = "arraybuffer";
      socket.onmessage = ({ data }) => {
        for (const view of new Set(views)) tell("msg:custom", { view }, [new DataView(data)]);
      };
      socket.onopen = () => {
        document.body.innerHTML = "";
        document.body.className = "host";  // Jupyter's styles of what stands in its cells
        document.styleSheets[0].insertRule(".host dt { float: left; font-weight: 700 }");
        cell.show = () => {
          const el = document.createElement("div");
          document.body.append(el);
          return [el, front.render({ model: cell.model, el })];
        };
        cell.first = cell.show();
        done();
      };
    });
"""


def test_a_notebooks_cell_shows_the_same(page, server):
    """anywidget's part is played by a few lines, the kernel's by the server."""
    browser = page(HASH)
    browser.driver.execute_async_script(CELL)
    text = "cell.first[0].innerText"
    browser.wait(f"{text}.includes('largest coefficient')")
    assert "row 7, column 8 is probed" in browser(text)
    styles = "getComputedStyle(cell.first[0].querySelector('dt'))"
    assert browser(f"[{styles}.float, {styles}.fontWeight]") == ["none", "400"]
    browser.pointer("mouseMoved", *panel(browser, 1, 9, 9, 72, 72))
    browser.wait("cell.traits.address.includes('pixel=9%2C9')")
    browser("cell.model.set('address', 'pixel=20,30&at=input')")  # as Python sets it
    browser.wait(f"{text}.includes('row 20, column 30 is probed')")
    assert browser("cell.heard.length") == 2
    browser("cell.first[1]()")
    assert browser("cell.heard.length") == 0 and len(browser("cell.gone")) == 1


def test_a_wrong_token_and_a_lost_server(browser):
    own = Server()
    wrong = re.sub(r"/[^/]+/$", "/guessed/", own.address)
    browser.look(wrong, 900)
    assert "wants the token" in browser("document.body.innerText")
    browser.look(f"{own.address}#{HASH}", 900)
    browser.wait(VIEWED)
    code, said = own.end()
    assert code == ENDED and "Traceback" not in said
    said = browser.wait("(e => !e.hidden && e.innerText)(document.querySelector('.error'))")
    assert "does not answer" in said
