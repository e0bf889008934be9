"""What results say of themselves: ten lines, tables, pictures anywhere."""

import base64
import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from networks import Image, Spellings, build, example
from PIL import Image as Photo
from torch import nn

import linscope_cuda as ls
from linscope_cuda.display import Drawn, Tabular

TABLES = [
    "svd",
    "ledger",
    "activations",
    "fields",
    "field",
    "certificate",
    "tape",
    "program",
    "region",
    "drift",
]
PICTURES = {
    "svd": 1,
    "ledger": 1,
    "activations": 2,
    "fields": 2,
    "field": 2,
    "drift": 2,
    "sweep": 1,
    "op": 4,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Each kind of result, and the network that they are of, by name."""
    op = ls.LinearInterpreter(build(Image), example(Image))
    d = torch.randn(op.input_shape, dtype=op.dtype)
    fields = ls.fields(op, (3, 5), channels="each")
    path = tmp_path_factory.mktemp("sweep") / "rows.zarr"
    return {
        "op": op,
        "tape": ls.LinearInterpreter(build(Spellings), example(Spellings)).tape,
        "program": op.program,
        "svd": ls.svd(op, 12, progress=False),
        "ledger": ls.ledger(op, [0, 7, 5]),
        "activations": ls.ledger(op, [0, 7, 5], of="head"),
        "fields": fields,
        "field": fields.receptive,
        "certificate": op.certify(),
        "region": ls.region(op, d, k=20),
        "drift": ls.drift(op, d, [0.1, 0.2, 0.5, 1.0]),
        "sweep": ls.sweep(op, path, "rows", progress=False) if _has_zarr() else None,
    }


def _has_zarr() -> bool:
    try:
        import zarr  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def drawn(found, name) -> Drawn:
    if found[name] is None:
        pytest.skip("zarr is not installed")
    return found[name]


class Cells(HTMLParser):
    """The cells of each row, and the bytes of the pictures."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.pictures, self.within = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.within = tag in ("th", "td")
        if tag == "tr":
            self.rows.append([])
        if self.within:
            self.rows[-1].append("")
        if tag == "img":
            source = dict(attrs)["src"].removeprefix("data:image/png;base64,")
            self.pictures.append(base64.b64decode(source, validate=True))
            assert dict(attrs)["alt"]

    def handle_endtag(self, tag):
        self.within = False

    def handle_data(self, data):
        if self.within:
            self.rows[-1][-1] += data


@pytest.mark.parametrize("name", [*TABLES, "op", "sweep"])
def test_ten_lines_say_what_there_is(name, found):
    thing = drawn(found, name)
    whole, short = str(thing).splitlines(), repr(thing).splitlines()
    assert len(short) <= 10
    if len(whole) <= 10:
        assert short == whole
    else:
        assert short[:6] + short[7:] == whole[:6] + whole[-3:]
        assert f" {len(whole) - 9} more lines" in short[6]
    assert object.__repr__(thing) not in short


def test_what_the_lines_say(found):
    op = found["op"]
    assert repr(op).splitlines() == [
        "LinearInterpreter((2, 9, 10) -> (3, 12, 12), 432 x 180, float64, cpu)",
        f"y = F x + r of Image; tape of {len(op.tape)} decisions, {op.tape.nbytes:,} bytes",
        f"Policy('paper'), {op.passes:,} passes so far",
    ]
    ledger = found["ledger"]
    name, *values = str(ledger).splitlines()[-1].split()
    assert name == "total" and len(values) == 3
    want = op.output.flatten()[[0, 7, 5]]
    torch.testing.assert_close(
        torch.tensor(list(map(float, values))).double(), want, rtol=1e-3, atol=0
    )
    field = found["field"]
    assert f"{field.radius[1].item():.4g} pixels" in str(field).splitlines()[2]
    assert str(found["fields"]).count("theoretical field") == 2
    drift = found["drift"]
    assert str(drift).splitlines()[-2].split()[0] == "1"
    assert str(drift).splitlines()[-2].endswith(f" {drift.flipped[-1].sum().item():,}")


def test_outputs_that_are_no_pictures_and_networks_without_a_tape():
    op = ls.LinearInterpreter(build(Spellings), example(Spellings), storage="none")
    assert "nothing kept" in repr(op)
    (axes,) = np.atleast_1d(op.plot(Figure().subplots(1, 1)))
    assert axes.get_title(loc="left").startswith("x0: ")
    flat = ls.LinearInterpreter(nn.Linear(3, 2), torch.randn(1, 3))
    assert "<img" not in flat._repr_html_() and "<pre>LinearInterpreter" in flat._repr_html_()


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, found):
    thing = found[name]
    frame, columns = thing.to_pandas(), thing._columns()
    assert list(frame) == list(columns) and len(frame) == len(next(iter(columns.values())))
    for column, values in columns.items():
        assert frame[column].tolist() == values


def test_what_the_tables_hold(found):
    svd, ledger, fields, drift = (found[n] for n in ("svd", "ledger", "fields", "drift"))
    assert torch.equal(torch.tensor(svd.to_pandas()["sigma"].to_numpy()), svd.S)
    frame = ledger.to_pandas().set_index("entry")
    sums = torch.tensor(frame.to_numpy().sum(0))
    torch.testing.assert_close(sums, found["op"].output.flatten()[[0, 7, 5]])
    assert frame.loc["input", "output 1"] == ledger.input[1].item()
    assert fields.to_pandas()["kind"].tolist() == ["receptive"] * 3 + ["projective"] * 2
    assert drift.to_pandas()["share"].iloc[-1] == drift.share[-1].item()
    assert found["certificate"].to_pandas()["ok"].all()
    bad = ls.Certificate({"F x0 + r = y0": 1.0, "other": 1e-9}, 1e-6)
    assert bad.to_pandas()["ok"].tolist() == [False, True]
    units = found["region"].to_pandas()
    assert units["t"].is_monotonic_increasing and units["t"].max() == found["region"].ahead[-1].t
    assert found["tape"].to_pandas()["bytes"].sum() == found["tape"].nbytes
    assert len(found["program"].to_pandas()) == len(found["op"].program.line.steps)


def test_without_pandas(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_pandas wants pandas"):
        found["svd"].to_pandas()


@pytest.mark.parametrize(("name", "pictures"), PICTURES.items())
def test_pictures_go_where_they_are_wanted(name, pictures, found):
    thing = drawn(found, name)
    figure = Figure()
    given = figure.subplots(1, pictures)
    assert thing.plot(given) is given
    for axes in np.atleast_1d(given):
        assert axes.has_data() and axes.get_title(loc="left")
    figure.savefig(io.BytesIO())
    with pytest.raises(ValueError, match=f"draws {pictures} pictures"):
        thing.plot(Figure().subplots(1, pictures + 1))
    with pytest.raises(TypeError, match="sideways"):
        thing.plot(given, sideways=True)


def test_pictures_of_ones_own(found):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    try:
        assert found["svd"].plot().get_figure() is pyplot.gcf()
        assert len(found["fields"].plot()) == 2
    finally:
        pyplot.close("all")


def test_what_the_pictures_show(found):
    op, svd, ledger, fields = (found[n] for n in ("op", "svd", "ledger", "fields"))
    lines = svd.plot(Figure().subplots()).lines
    assert lines[0].get_ydata().tolist() == svd.S.tolist()
    axes = ledger.plot(Figure().subplots(), output=2, most=3)
    parts = torch.cat([ledger.input[None], ledger.values])[:, 2]
    largest = parts.abs().topk(3).indices.sort().values
    assert [bar.get_width() for bar in axes.patches] == parts[largest].tolist()
    names = ["input", *ledger.names]
    assert [t.get_text() for t in axes.get_yticklabels()] == [names[i] for i in largest.tolist()]
    for axes, field in zip(
        fields.plot(Figure().subplots(1, 2), probe=1),
        (fields.receptive, fields.projective),
        strict=True,
    ):
        want = field.values[1].mean(0).numpy()
        np.testing.assert_allclose(axes.images[0].get_array(), want, rtol=1e-12, atol=1e-15)
    shown = op.plot(Figure().subplots(1, 4))
    y = op.output[0]
    np.testing.assert_allclose(
        shown[3].images[0].get_array(), ((y - y.min()) / (y.max() - y.min())).permute(1, 2, 0)
    )
    np.testing.assert_allclose(shown[0].images[0].get_array(), op.x0[0].mean(0))
    r = op.residual[0]
    assert f"r: {r.min().item():.3g} ... {r.max().item():.3g}" == shown[2].get_title(loc="left")


def test_maps_of_a_sweep(found):
    sweep = drawn(found, "sweep")
    for what in ("radius", "energy", "away", "origin"):
        axes = sweep.plot(Figure().subplots(), what=what)
        assert np.array_equal(
            axes.images[0].get_array().filled(np.nan), getattr(sweep, what), equal_nan=True
        )
    with pytest.raises(ValueError, match="radius, energy, away, origin, was given 'size'"):
        sweep.plot(what="size")


@pytest.mark.parametrize("name", [*TABLES, "op", "sweep"])
def test_notebooks_show_it(name, found):
    thing = drawn(found, name)
    text = thing._repr_html_()
    cells = Cells(text)
    if isinstance(thing, Tabular):
        columns = thing._columns()
        rows = list(zip(*columns.values(), strict=True))
        assert cells.rows[0] == list(columns) and len(cells.rows) == 1 + min(len(rows), 20)
        assert all(len(row) == len(columns) for row in cells.rows)
        assert (f"{len(rows) - 20:,} more rows" in text) == (len(rows) > 20)
    else:
        assert repr(thing).splitlines()[0].split("(")[0] in text
    assert len(cells.pictures) == (name in PICTURES)
    for picture in cells.pictures:
        assert min(Photo.open(io.BytesIO(picture)).size) > 100


def test_names_are_text():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<b>&", nn.ReLU())

        def forward(self, x):
            return self.get_submodule("<b>&")(x)

    tape = ls.LinearInterpreter(Odd(), torch.randn(1, 3)).tape
    assert "&lt;b&gt;&amp;" in tape._repr_html_() and not re.search("<b>", tape._repr_html_())
