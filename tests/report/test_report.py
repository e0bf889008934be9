"""The report: its numbers against recomputation, its pictures pixel by pixel, its page as HTML."""

import base64
import dataclasses
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

import linscope_cuda as ls
from linscope_cuda import report
from linscope_cuda.report import pictures, writing
from linscope_cuda.report.captions import rgb
from linscope_cuda.report.digits import percent
from linscope_cuda.report.html import PAPER
from linscope_cuda.study.close_up import column_field, detailed_pixel, row_field, triplet_windows
from linscope_cuda.study.tour import TOP
from linscope_cuda.zoo import Network
from linscope_cuda.zoo.preprocess import Preprocess

HOSTILE = "<script>'$\\q$'</script> & \"co\""  # HTML, and what matplotlib takes for broken TeX


def upscaler() -> Network:
    """Three colours in, twice the size out."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)
    )
    return Network(model.eval(), Preprocess(divisor=255), None, "made for a test")


def classifier() -> Network:
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 7 * 7, 12)
    )
    names = [f"class {i}" for i in range(11)] + [HOSTILE]
    preprocess = Preprocess(size=(16, 16), order="BGR", offset=(103.9, 116.8, 123.7))
    return Network(model.eval(), preprocess, names, HOSTILE)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return ls.zoo.photo("cat").image


def x0_of(network: Network, image: Image.Image, side: int) -> torch.Tensor:
    return network.preprocess(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def tours(image) -> dict[str, report.Tour]:
    return {
        "images": report.explore(upscaler(), image, size=16, k=2, photo_name=HOSTILE),
        "scores": report.explore(classifier(), image, k=3, network_name=HOSTILE),
    }


@pytest.fixture(scope="module")
def galleries(tours):
    return {name: list(report.gallery(tour)) for name, tour in tours.items()}


# ---- Numbers ----


def test_equation_and_residual_equal_recomputation(tours, image):
    for name, network in (("images", upscaler()), ("scores", classifier())):
        found = report.summary(tours[name])
        x0 = x0_of(network, image, 16)
        op = ls.LinearInterpreter(network.model, x0)
        y, r = op.output.double(), op.residual.double()
        Fx0 = op.filter(x0).double()
        assert found["shape"] == list(op.shape)
        assert found["equation"]["norm_residual"] == pytest.approx(r.norm().item())
        assert found["equation"]["relative_error"] == pytest.approx(
            ((y - Fx0 - r).norm() / y.norm()).item()
        )
        assert found["equation"]["relative_error"] < 1e-5
        assert found["equation"]["deviation_from_unpatched"] < 1e-6
        assert found["residual"]["of_output"] == pytest.approx((r.norm() / y.norm()).item())
        share = r.norm() / (r.norm() + Fx0.norm())
        assert found["residual"]["of_parts"] == pytest.approx(share.item())
        assert found["bytes"]["tape"] == op.tape.nbytes


def test_fields_are_the_row_and_the_column_of_the_dense_filter(tours, image):
    for name, network in (("images", upscaler()), ("scores", classifier())):
        tour = tours[name]
        dense = ls.LinearInterpreter(network.model, x0_of(network, image, 16)).todense()
        row = np.ravel_multi_index(tour.row.probe, tour.y.shape)
        column = np.ravel_multi_index(tour.column.probe, tour.x0.shape)
        torch.testing.assert_close(tour.row.values.flatten(), dense[row], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            tour.column.values.flatten(), dense[:, column], rtol=1e-4, atol=1e-6
        )


def test_singular_values_are_those_of_the_dense_filter_within_the_error_bars(tours, image):
    for name, network in (("images", upscaler()), ("scores", classifier())):
        found = report.summary(tours[name])["svd"]
        dense = ls.LinearInterpreter(network.model, x0_of(network, image, 16)).todense()
        true = torch.linalg.svdvals(dense.double())[: len(found["sigma"])].tolist()
        for sigma, error, expected in zip(found["sigma"], found["error"], true, strict=True):
            assert abs(sigma - expected) <= error + 1e-6
            assert error <= 2e-3 * true[0]
        assert found["proven"] == tours[name].svd.proven.tolist()


@pytest.mark.parametrize("proven", [[True, True], [False, True], [False, False]])
def test_bars_are_told_to_be_bounds_or_estimates(proven, tours):
    found = dataclasses.replace(tours["images"].svd, proven=torch.tensor(proven))
    tour = dataclasses.replace(tours["images"], svd=found)
    assert len(found.S) == 2
    pictures = list(report.gallery(tour))
    (chart,) = (p for p in pictures if p.name == "sigma")
    words = {2: "bounds", 1: "1 of 2 are bounds, the others estimates", 0: "estimates"}[sum(proven)]
    assert chart.caption == f"The largest singular values of F, with their error bars: {words}."
    page = report.page(tour, pictures)
    assert page.count("(estimate)</h3>") == 2 - sum(proven)
    assert ("estimate is right unless" in page) == (sum(proven) < 2)


def test_best_scores_are_the_network_s_and_the_sum_of_their_parts(tours, image):
    network, tour = classifier(), tours["scores"]
    with torch.no_grad():
        best = network.model(x0_of(network, image, 16))[0].topk(5)
    assert [score.index for score in tour.top] == best.indices.tolist()
    assert [score.score for score in tour.top] == pytest.approx(best.values.tolist(), rel=1e-5)
    for score in tour.top:
        assert score.filter + score.residual == pytest.approx(score.score, rel=1e-4)
        assert network.classes and score.name == network.classes[score.index]


def test_activation_bytes_are_four_for_each_value_at_a_relu(tours):
    assert tours["images"].activation_bytes == 4 * 8 * 16 * 16
    assert tours["scores"].activation_bytes == 4 * 6 * 14 * 14


def test_the_same_call_gives_the_same_numbers_and_leaves_the_network_alone(image):
    network = upscaler()
    before = {name: weight.clone() for name, weight in network.model.state_dict().items()}
    first, second = (
        report.explore(network, image, size=16, k=1, dtype=torch.float64) for _ in range(2)
    )
    assert first.dtype == "float64"
    assert first.relative_error < 1e-14
    assert torch.equal(first.svd.V, second.svd.V)
    after = network.model.state_dict()
    for name, weight in before.items():
        assert after[name].dtype == torch.float32 and torch.equal(after[name], weight)


def test_a_chosen_pixel_is_probed(image):
    tour = report.explore(upscaler(), image, size=16, k=1, pixel=(3, 11))
    assert tour.column.probe == (1, 3, 11)
    assert tour.row.probe[1:] == (7, 23)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "size wants 16 ... 1024 pixels, was given 15"),
        ({"size": 2000}, "was given 2000"),
        ({"k": 0}, "k wants 1 ... 16"),
        ({"k": 17}, "was given 17"),
        ({"pixel": (0, 16), "size": 16}, "pixel 0,16 lies outside the 16 x 16 input"),
        ({"pixel": (-1, 0)}, "pixel -1,0 lies outside"),
    ],
)
def test_what_is_out_of_range_is_refused(image, options, message):
    with pytest.raises(report.BadInput, match=message):
        report.explore(upscaler(), image, **options)  # pyright: ignore[reportArgumentType]


def test_networks_that_a_page_cannot_show_are_refused(image):
    features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(2))
    few = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    dead = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    nn.init.zeros_(dead[0].weight)  # pyright: ignore[reportArgumentType]
    big = nn.Sequential(nn.Conv2d(3, 3, 99))
    for model, options, message in (
        (features, {}, "scores or a picture"),
        (few, {"k": 3}, "no 3 singular triplets"),
        (dead, {}, "zero"),
        (big, {}, "cannot take 48 x 48 pixels"),
    ):
        with pytest.raises(report.BadInput, match=message):
            network = Network(model.eval(), Preprocess(), None, "")
            report.explore(network, image, **options)  # pyright: ignore[reportArgumentType]


# ---- Where to look ----


def test_fields_of_an_upscaler_without_overlap_lie_where_they_are_marked(image):
    model = nn.Sequential(nn.Conv2d(3, 27, 1), nn.PixelShuffle(3)).eval()
    network = Network(model, Preprocess(divisor=255), None, "")
    tour = report.explore(network, image, size=24, k=1)
    assert tour.row.at and tour.column.at and tour.row.window
    assert (tour.row.values.abs().amax(0) > 0).nonzero().tolist() == [list(tour.row.at)]
    block = (tour.column.values.abs().amax(0) > 0).nonzero()
    assert len(block) == 9 and block[4].tolist() == list(tour.column.at)
    top, left, side = tour.row.window
    assert top <= tour.row.at[0] < top + side and left <= tour.row.at[1] < left + side


def test_windows_hold_all_that_is_visible_and_stay_inside():
    dense = torch.zeros(1600, 1600)
    op = ls.MatrixOperator(dense, (1, 40, 40), (1, 40, 40))
    for at in ((0, 0), (39, 0), (20, 39)):
        dense.zero_()
        places = [at, (min(at[0] + 4, 39), max(at[1] - 3, 0))]
        output = at[0] * 40 + at[1]
        for i, j in places:
            dense[output, i * 40 + j] = dense[i * 40 + j, output] = 1.0
        for field in (row_field(op, (0, *at), at), column_field(op, at, at)):
            assert field.window
            top, left, side = field.window
            assert 0 <= top <= 40 - side and 0 <= left <= 40 - side
            assert all(top <= i < top + side and left <= j < left + side for i, j in places)
    dense.zero_()
    dense[5 * 40 + 5, 12 * 40 + 9] = 1.0
    away = row_field(op, (0, 5, 5), (5, 5)).window
    assert away and away[0] <= 5 and away[1] <= 5 and away[0] + away[2] > 12
    dense.fill_(1.0)
    assert row_field(op, (0, 20, 20), (20, 20)).window is None


def test_windows_of_a_triplet_show_the_same_place_of_input_and_output():
    v, u = torch.zeros(3, 20, 20), torch.zeros(3, 60, 60)
    v[1, 5, 6], u[0, 21, 24] = 1.0, -1.0
    windows = triplet_windows(u, v)
    assert windows
    (top, left, side), of_input = windows
    assert (top, left, side) == tuple(3 * length for length in of_input)
    assert top <= 21 < top + side and left <= 24 < left + side
    assert triplet_windows(torch.ones(3, 60, 40), v) is None


def test_the_most_detailed_pixel_is_at_the_detail():
    picture = torch.full((3, 32, 32), 0.5)
    picture[:, 20, 11] = 1.0
    i, j = detailed_pixel(picture)
    assert abs(i - 20) <= 2 and abs(j - 11) <= 2


# ---- Pictures ----


def pixels_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_signed_pictures_are_blue_white_and_red_squares_of_one_size():
    values = torch.zeros(8, 8)
    values[2, 3], values[5, 1] = 2.0, -2.0
    drawn = pixels_of(pictures.signed(values, "title", "unit"))[: pictures.SIDE]
    side = pictures.SIDE // 8
    red = (drawn[..., 0] - drawn[..., 2] > 60) & (drawn[..., 1] < 60)
    blue = (drawn[..., 2] - drawn[..., 0] > 60) & (drawn[..., 1] < 60)
    for mask in (red, blue):
        rows, columns = np.nonzero(mask)
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == side
        assert mask.sum() == side * side
    assert np.nonzero(red)[0].min() - np.nonzero(blue)[0].min() == -3 * side
    assert np.nonzero(red)[1].min() - np.nonzero(blue)[1].min() == 2 * side


def test_a_shared_scale_makes_equal_values_equal_colours():
    low, high = torch.zeros(4, 4), torch.zeros(4, 4)
    low[1, 1], high[1, 1], high[3, 3] = 0.5, 0.5, 1.0
    corner = (44 + 14 + pictures.SIDE // 4 + 20, 78 + pictures.SIDE // 4 + 20)
    colours = [
        pixels_of(pictures.signed(x, "", "", scale=1.0))[corner].tolist() for x in (low, high)
    ]
    alone = pixels_of(pictures.signed(low, "", ""))[corner].tolist()
    assert colours[0] == colours[1] != alone


def test_numbers_of_colour_bars_are_short():
    numbers = [pictures._number(value) for value in (-0.046, 3.3, 20.0, 114.6, 2.5e6)]
    assert numbers == ["\u22120.046", "3.3", "20", "115", "2.5e+06"]


def test_a_picture_s_colours_are_the_photo_s(image):
    network = classifier()
    fitted = ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC)
    back = rgb(network.preprocess(fitted)[0], network.preprocess)
    expected = torch.tensor(np.asarray(fitted) / 255).permute(2, 0, 1)
    torch.testing.assert_close(back.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colours_come_back_from_a_scaled_and_cropped_input(image, order):
    """The tour of a network of torchvision: its input is cut out of the photo, not stretched."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))
    preprocess = Preprocess((32, 32), order, 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 0.5)
    tour = report.explore(Network(model.eval(), preprocess, None, "made up"), image, k=1)
    expected = Preprocess((32, 32), divisor=255, crop=0.5)(image)[0]
    assert torch.allclose(rgb(tour.x0, tour.preprocess), expected, atol=1e-6)


def test_drawing_leaves_matplotlib_as_it_was(tours):
    import matplotlib

    before = dict(matplotlib.rcParams)
    next(report.gallery(tours["images"]))
    assert dict(matplotlib.rcParams) == before


def test_every_picture_is_named_captioned_and_large_enough(galleries):
    for name, gallery in galleries.items():
        names = [picture.name for picture in gallery]
        assert len(names) == len(set(names))
        due = {"input", "row", "column", "probe-input", "sigma", "triplet-1-input"}
        due |= {"scores", "parts"} if name == "scores" else {"output", "filtered", "residual"}
        assert due <= set(names)
        for picture in gallery:
            assert writing._OURS.fullmatch(f"{picture.name}.png")
            assert picture.caption.endswith(".")
            height, width, _ = pixels_of(picture.png).shape
            assert min(height, width) >= 400


# ---- The page ----


class Page(HTMLParser):
    """Collects tags, the addresses they point to, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.alt: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "alt":
                self.alt.append(value or "")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module", params=["images", "scores"])
def shown(request, tours, galleries):
    text = report.page(tours[request.param], galleries[request.param])
    return tours[request.param], galleries[request.param], text, Page(text)


def test_the_page_needs_nothing_else(shown):
    _, gallery, text, page = shown
    assert page.addresses
    decoded = set()
    for address in page.addresses:
        if address == PAPER:  # a link, which nothing is fetched from
            continue
        assert address.startswith("data:image/png;base64,")
        data = base64.b64decode(address.partition(",")[2], validate=True)
        pixels_of(data)
        decoded.add(data)
    assert decoded == {picture.png for picture in gallery}
    assert "url(" not in text and "@import" not in text
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)


def test_names_are_escaped(shown):
    _, _, _, page = shown
    assert "script" not in page.tags and not page.handlers
    assert HOSTILE in page.text


def test_every_picture_has_a_text_alternative(shown):
    _, _, _, page = shown
    assert len(page.alt) == page.tags.count("img") == page.tags.count("figcaption")
    assert all(page.alt)


def test_alternatives_say_what_is_seen_and_captions_what_it_means(galleries):
    for gallery in galleries.values():
        captions = {picture.caption for picture in gallery}
        alternatives = [picture.alternative for picture in gallery]
        assert not captions & set(alternatives) and all(alternatives)
        named = [p.alternative for p in gallery if p.name.startswith("triplet-")]
        assert len(set(named)) == len(named)


def test_an_alternative_names_the_largest_weight(tours, galleries):
    row = tours["images"].row.values.double().mean(0)
    (said,) = (p.alternative for p in galleries["images"] if p.name == "row")
    i, j = divmod(int(row.argmax()), row.shape[1])
    assert f"at row {i}, column {j}" in said


def test_a_class_name_reaches_captions_escaped(image):
    network = classifier()
    named = dataclasses.replace(network, classes=[HOSTILE] * 12)
    tour = report.explore(named, image, k=1)
    text = report.page(tour, list(report.gallery(tour)))
    assert "<script" not in text
    assert HOSTILE in Page(text).text


def test_an_output_without_a_name_has_its_number(image):
    named = dataclasses.replace(classifier(), classes=["the only name"])
    names = {score.index: score.name for score in report.explore(named, image, k=1).top}
    assert len(names) == TOP
    assert all(name == "the only name" if k == 0 else f"output {k}" for k, name in names.items())


def test_the_page_states_the_tour_s_numbers(shown):
    tour, _, _, page = shown
    assert percent(tour.residual_share).replace(" ", "\u00a0") in page.text
    assert f"{tour.passes}, of them {tour.svd.passes} for the SVD" in page.text
    mantissa = f"{tour.relative_error:.1e}".split("e")[0]
    assert f"{mantissa}\u00a0\u00d7\u00a010" in page.text


def test_an_unconverged_svd_is_said_to_be_one(tours, galleries):
    stopped = dataclasses.replace(tours["images"].svd, converged=False)
    tour = dataclasses.replace(tours["images"], svd=stopped)
    assert "Stopped after" in Page(report.page(tour, galleries["images"])).text
    assert "Stopped after" not in Page(report.page(tours["images"], galleries["images"])).text


# ---- Files ----


def test_files_are_written_whole_and_old_pictures_go(tmp_path):
    out = tmp_path / "a" / "b"
    report.publish(out, {"pictures/triplet-2-input.png": b"old", "tour.html": b"old"})
    (out / "pictures" / "mine.png").write_bytes(b"kept")
    report.publish(out, {"pictures/row.png": b"new", "tour.html": b"new"})
    left = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")}
    assert left == {"pictures/row.png": b"new", "pictures/mine.png": b"kept", "tour.html": b"new"}


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    report.publish(tmp_path, {"tour.html": b"good"})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", full)
    with pytest.raises(report.BadInput, match="No space left"):
        report.publish(tmp_path, {"tour.html": b"half"})
    assert [path.name for path in tmp_path.iterdir()] == ["tour.html"]
    assert (tmp_path / "tour.html").read_bytes() == b"good"


def test_places_that_cannot_be_written_are_refused_and_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below", file / "far" / "below"):
        with pytest.raises(report.BadInput, match="cannot write"):
            report.require_writable(place)
    report.require_writable(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"
