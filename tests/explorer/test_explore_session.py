"""What the explorer answers, without a browser: its questions, its desks, its safety."""

import asyncio
import io
import json
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from classifiers import classifier
from commands import tiny
from explorers import ENDED, SIZE, SLOW, Server
from networks import build, example

import linscope_cuda as ls
from linscope_cuda.explorer import pictures
from linscope_cuda.explorer.asked import Asked
from linscope_cuda.explorer.desk import Desk
from linscope_cuda.explorer.library import MOST_UPLOADS, Given, Library
from linscope_cuda.explorer.message import Message
from linscope_cuda.explorer.notebook import given
from linscope_cuda.explorer.session import Session
from linscope_cuda.explorer.subject import Subject
from linscope_cuda.study.errors import BadInput
from linscope_cuda.study.fields import fields, local_field
from linscope_cuda.study.flips import flips, radius
from linscope_cuda.study.votes import pixel_parts

SUBJECT = {"model": "op", "photo": "op"}


def frozen(network, size=(16, 20)):
    generator = torch.Generator().manual_seed(3)
    return ls.LinearInterpreter(network.model, torch.rand(1, 3, *size, generator=generator))


def ask(session, kind, **fields):
    return session.answer(Asked(Message({"kind": kind, "subject": SUBJECT, **fields})))


@pytest.fixture(scope="module")
def op():
    return frozen(tiny())


@pytest.fixture(scope="module")
def session(op):
    return Session(Given(given(op)))


@pytest.fixture(scope="module")
def scores():
    return frozen(classifier(), (20, 16))


class TestMessages:
    def test_a_message_comes_back(self):
        arrays = {
            "a": np.arange(6, dtype=np.float32).reshape(2, 3),
            "b": np.array([255, 0, 1], dtype=np.uint8),
            "none": np.zeros((0, 4), dtype=np.int32),
        }
        packed = Message({"kind": "x", "text": "\u00e9", "nan": float("nan")}, arrays).packed()
        back = Message.unpacked(packed)
        assert back.header == {"kind": "x", "text": "\u00e9", "nan": None}
        for name, array in arrays.items():
            assert back.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(back.arrays[name], array)

    @pytest.mark.parametrize("cut", [0, 3, 4, 10, -1, -8])
    def test_a_damaged_one_is_refused(self, cut):
        packed = Message({"kind": "x"}, {"a": np.zeros(4)}).packed()
        with pytest.raises(BadInput, match="none of the explorer's"):
            Message.unpacked(packed[:cut])

    @pytest.mark.parametrize(
        "header", ["[]", "1", '{"arrays": 3}', '{"arrays": [["a", "object", [1], 0]]}', "{}"]
    )
    def test_a_made_up_one_is_refused(self, header):
        with pytest.raises(BadInput):
            Message.unpacked(len(header).to_bytes(4, "little") + header.encode())

    def test_a_dtype_that_pages_cannot_read(self):
        with pytest.raises(ValueError, match="int64"):
            Message({}, {"a": np.zeros(3, dtype=np.int64)}).packed()


class TestFields:
    @pytest.mark.parametrize("at", ["input", "output"])
    @pytest.mark.parametrize("channel", [None, 1])
    def test_a_local_field_is_the_field_in_its_box(self, op, at, channel):
        kind = "receptive" if at == "output" else "projective"
        found = local_field(op, kind, (3, 11), channel)
        channels = "sum" if channel is None else [channel]
        whole = getattr(fields(op, (3, 11), at, channels), kind)
        inside = tuple(slice(*ends) for ends in found.box)
        torch.testing.assert_close(found.values, whole.values[0][inside])
        assert whole.values[0].abs().sum() == pytest.approx(found.values.abs().sum().item())
        assert found.radius == pytest.approx(whole.radius.item())
        assert found.away == pytest.approx(whole.away.item(), rel=1e-5)
        assert found.centre == whole.centre and found.box[1:] == whole.support

    def test_an_answer_is_the_row(self, op, session):
        answer = ask(session, "field", at="output", pixel=[20, 7])
        box = [slice(*ends) for ends in answer.header["box"]]
        row = op.rows([(c, 20, 7) for c in range(3)]).sum(0)
        np.testing.assert_allclose(answer.arrays["values"], row[tuple(box)], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"pixel": [99, 0]}, "pixel 99,0 lies outside the 32 x 40 output"),
            ({"pixel": [1]}, "pixel wants row and column"),
            ({"pixel": [1, "2"]}, "pixel wants row and column"),
            ({"pixel": [1, 2], "channel": 3}, "channel wants a whole number, 0 ... 2"),
            ({"pixel": [1, 2], "at": "left"}, "at wants one of output, input"),
            ({"pixel": [1, 2], "share": 2}, "share wants a number above 0"),
            ({"pixel": [1, 2], "share": "x"}, "share wants a number"),
            ({"subject": 3}, "a network and a photo are wanted"),
            ({"subject": {"model": "other", "photo": "op"}}, "there is op alone"),
        ],
    )
    def test_bad_questions_get_a_sentence(self, session, asked, words):
        error = ask(session, "field", **asked).header["error"]
        assert words in error and "\n" not in error

    def test_the_two_parts_are_the_filters_and_the_residual(self, op, session):
        answer = ask(session, "parts")
        filtered, residual = answer.arrays["filtered"], answer.arrays["residual"]
        np.testing.assert_allclose(filtered, op.filter(op.x0)[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(residual, op.residual[0], rtol=1e-5, atol=1e-6)
        assert answer.arrays["shown"].shape == (*op.output_shape[1:], 3)

    def test_what_is_no_question(self, session):
        assert "there is no question" in ask(session, "exec").header["error"]
        assert "labels want a classifier" in ask(session, "label").header["error"]


class TestScores:
    def test_parts_are_the_discussion(self, scores):
        names = ls.ledger(scores, [2]).names
        parts = [pixel_parts(scores, 2, name) for name in (None, *names)]
        torch.testing.assert_close(sum(parts), ls.pixel_discussion(scores, [2])[0])
        assert sum(part.abs().max() > 0 for part in parts) > 3
        with pytest.raises(ValueError, match="no entry 'nobody'"):
            pixel_parts(scores, 2, "nobody")

    def test_answers(self, scores):
        session = Session(Given(given(scores, classes=list("abcde"))))
        answer = ask(session, "label", label=3, show="row")
        np.testing.assert_allclose(answer.arrays["values"], scores.rows([3])[0], rtol=1e-5)
        assert answer.header["name"] == "d"
        assert "5 classes" not in str(answer.header)
        assert "no entry" in ask(session, "label", show="part", part="x").header["error"]
        assert "label wants a whole number" in ask(session, "label", label=5).header["error"]
        answer = ask(session, "column", pixel=[4, 9], channel=1)
        np.testing.assert_allclose(answer.arrays["values"], scores.columns([(1, 4, 9)])[0], 1e-5)
        answer = ask(session, "column", pixel=[4, 9])
        column = scores.columns([(c, 4, 9) for c in range(3)]).sum(0)
        np.testing.assert_allclose(answer.arrays["values"], column, rtol=1e-4, atol=1e-6)
        said = ask(session, "column", pixel=[20, 9]).header["error"]
        assert said == "pixel 20,9 lies outside the 20 x 16 input"
        assert "channel wants" in ask(session, "column", pixel=[0, 0], channel=3).header["error"]
        assert "row and column" in ask(session, "column").header["error"]
        told = ask(session, "votes", candidates=3).header
        assert told["candidates"] == 3 and sum(p["votes"] for p in told["popular"]) <= 320


class TestFlips:
    def test_decisions_are_counted_as_by_hand(self):
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.Conv2d(5, 4, 3), torch.nn.ReLU6()
        ).eval()
        x0 = torch.randn(1, 3, 9, 11)
        op = ls.LinearInterpreter(model, x0)
        for size in (0.0, 0.1, 3.0):
            x = x0 + size * torch.randn_like(x0)
            with torch.no_grad():
                sides = [model[0](v) > 0 for v in (x0, x)]
                inner = [model[2](model[1](model[0](v))) for v in (x0, x)]
            pieces = [(z > 0).int() + (z >= 6).int() for z in inner]
            by_hand = (sides[0] != sides[1]).sum() + (pieces[0] != pieces[1]).sum()
            found = flips(op, x)
            assert found.flipped == by_hand
            assert found.decisions == sides[0].numel() + pieces[0].numel()
            torch.testing.assert_close(found.output, model(x))

    def test_winners_of_pools_and_not_means(self):
        model = torch.nn.Sequential(torch.nn.InstanceNorm2d(3), torch.nn.MaxPool2d(2)).eval()
        x0 = torch.randn(1, 3, 8, 8)
        found = flips(ls.LinearInterpreter(model, x0), -x0)
        assert found.decisions == found.flipped == 3 * 16

    def test_the_radius(self):
        assert radius(lambda t: t < 0.3, 1.0) == pytest.approx(0.3, rel=1 / 200)
        assert radius(lambda t: True, 2.0) == 2.0 and radius(lambda t: False, 1.0) == 0.0


class TestSubjects:
    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"size": 8}, "size wants 16 ... 1024"),
            ({"size": "48"}, "size wants a whole number"),
            ({"policy": "best"}, "policy wants one of"),
            ({"crop": [1, 2]}, "crop wants left, top and side"),
            ({"crop": [0, 0, 999]}, "crop wants a square"),
            ({"crop": [0, 0, 2]}, "crop wants a square"),
            ({"model": "os:getcwd"}, "there is no network 'os:getcwd'"),
            ({"photo": "/etc/hostname"}, "there is no photo '/etc/hostname'"),
            ({"photo": "dropped-123"}, "drop it again"),
            ({"model": None}, "names of a network and a photo"),
        ],
    )
    def test_bad_ones_get_a_sentence(self, asked, words):
        session = Session(Library(["pixelshuffle4_x3"], ["cat"]))
        subject = {"model": "pixelshuffle4_x3", "photo": "cat", **asked}
        assert words in ask(session, "open", subject=subject).header["error"]

    def test_the_last_uploads_are_kept(self):
        library = Library()
        images = [ls.zoo.photo("cat").image.crop((0, 0, 20 + i, 20)) for i in range(10)]
        names = [library.add(image) for image in images]
        assert library.photo(names[-1]).size == (29, 20)
        assert library.add(images[-1]) == names[-1]
        with pytest.raises(BadInput, match="drop it again"):
            library.photo(names[-1 - MOST_UPLOADS])

    def test_a_system_is_frozen_once(self):
        library = Library(["pixelshuffle4_x3"], ["cat"])
        subject = Subject("pixelshuffle4_x3", "cat", size=16)
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(library.looked(subject))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3 and len({id(one) for one in found}) == 1


class TestPictures:
    def test_formats(self):
        image = ls.zoo.photo("cat").image
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
            buffer = io.BytesIO()
            image.save(buffer, kind)
            assert pictures.picture(buffer.getvalue(), "a").size == image.size

    def test_others_start_no_program(self):
        buffer = io.BytesIO()
        ls.zoo.photo("cat").image.save(buffer, "EPS")
        with pytest.raises(BadInput, match="not a picture that can be read"):
            pictures.picture(buffer.getvalue(), "a.eps")

    def test_pixels_are_counted_before_they_are_decoded(self, monkeypatch):
        buffer = io.BytesIO()
        ls.zoo.photo("cat").image.save(buffer, "PNG")
        monkeypatch.setattr(pictures, "MOST_PIXELS", 451 * 300 - 1)
        monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("decoded"))
        with pytest.raises(BadInput, match=r"too many pixels \(451 x 300\)"):
            pictures.picture(buffer.getvalue(), "a")


class Slow:
    """A session whose answers wait until they are let go."""

    def __init__(self):
        self.began, self.go, self.seen = threading.Semaphore(0), threading.Semaphore(0), []

    def answer(self, asked):
        self.seen.append(asked.message.header["id"])
        self.began.release()
        self.go.acquire()
        if asked.message.header.get("fails"):
            raise KeyError("a fault")
        return Message({"answer": asked.message.header["id"], "stopped": asked.stop.is_set()})


class Replies:
    def __init__(self):
        self.heard, self.more = [], threading.Condition()

    def __call__(self, packed):
        with self.more:
            self.heard.append(Message.unpacked(packed).header)
            self.more.notify_all()

    def wait(self, count):
        with self.more:
            assert self.more.wait_for(lambda: len(self.heard) >= count, 30)
            return self.heard


class TestDesks:
    def question(self, id, kind="field", **more):
        return Message({"id": id, "kind": kind, **more}).packed()

    def test_the_latest_of_a_kind_wins_and_none_are_queued(self):
        slow, replies = Slow(), Replies()
        desk = Desk(slow, replies)
        desk.take(self.question(1))
        slow.began.acquire()
        for id in range(2, 100):
            desk.take(self.question(id))
        dropped = [h["id"] for h in replies.wait(97)]
        assert dropped == list(range(2, 99)) and all(h["dropped"] for h in replies.heard)
        slow.go.release()
        slow.go.release()
        answers = replies.wait(99)[97:]
        assert [(a["id"], a["stopped"]) for a in answers] == [(1, True), (99, False)]
        assert slow.seen == [1, 99]

    def test_kinds_and_lanes_do_not_wait_for_each_other(self):
        slow, replies = Slow(), Replies()
        desk = Desk(slow, replies)
        desk.take(self.question(1))
        desk.take(self.question(2, lane=1))
        desk.take(self.question(3, "svd"))
        for _ in range(3):
            slow.began.acquire()
        desk.take(self.question(None, "stop", of="svd"))
        for _ in range(3):
            slow.go.release()
        stopped = {h["id"]: h["stopped"] for h in replies.wait(3)}
        assert stopped == {1: False, 2: False, 3: True}

    def test_a_fault_is_told_and_the_next_question_answered(self, capsys):
        slow, replies = Slow(), Replies()
        desk = Desk(slow, replies)
        for id, fails in ((1, True), (2, False)):
            slow.go.release()
            desk.take(self.question(id, fails=fails))
            replies.wait(id)
        assert "at fault" in replies.heard[0]["error"] and replies.heard[1]["answer"] == 2
        assert "KeyError" in capsys.readouterr().err

    def test_closed_it_says_nothing_more(self):
        slow, replies = Slow(), Replies()
        desk = Desk(slow, replies)
        desk.take(self.question(1))
        slow.began.acquire()
        slow.go.release()
        desk.close()
        desk.take(self.question(2))
        assert len(replies.heard) <= 1 and slow.seen == [1]

    def test_what_is_no_message(self):
        replies = Replies()
        Desk(Slow(), replies).take(b"nonsense")
        assert "none of the explorer's" in replies.wait(1)[0]["error"]


class TestServer:
    @pytest.fixture(scope="class")
    def address(self):
        pytest.importorskip("uvicorn", reason="the extra explore is not installed")
        server = Server()
        yield server.address
        code, said = server.end()
        assert code == ENDED and "Traceback" not in said

    def get(self, address, **headers):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as page:
                return page.status, page.headers, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def test_the_page_is_there_for_who_has_the_token(self, address):
        assert address.startswith("http://127.0.0.1:")
        status, headers, text = self.get(address)
        assert status == 200 and "<main" in text
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert self.get(address + "explore.js")[0] == 200
        assert self.get(address + "../server.py")[0] in (403, 404)
        assert self.get(address + "server.py")[0] == 404

    def test_not_for_others(self, address):
        root = "{0.scheme}://{0.netloc}/".format(urlsplit(address))
        for wrong in (root, root + "x/", address[:-2] + "/", root + "explore.js"):
            status, _, text = self.get(wrong)
            assert status == 403 and "token" in text
        assert self.get(address, Host="evil.example")[0] == 403

    def test_no_other_origin_asks(self, address):
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus

        url = address.replace("http", "ws") + "questions"
        own = address.rsplit("/", 2)[0]

        async def ask(url, origin):
            async with connect(url, origin=origin) as socket:
                await socket.send(Message({"id": 7, "kind": "home"}).packed())
                return Message.unpacked(await socket.recv()).header

        answer = asyncio.run(ask(url, own))
        assert answer["id"] == 7 and "pixelshuffle4_x3" in answer["networks"]
        elsewhere = url.replace("/questions", "x/questions")
        bad = ((url, "http://evil.example"), (url, None), (elsewhere, own))
        for where, origin in bad:
            with pytest.raises(InvalidStatus):
                asyncio.run(ask(where, origin))

    def test_nonsense_and_too_much_do_no_harm(self, address):
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        url, own = address.replace("http", "ws") + "questions", address.rsplit("/", 2)[0]

        async def talk():
            async with connect(url, origin=own) as socket:
                await socket.send(b"nonsense")
                said = Message.unpacked(await socket.recv()).header
                assert "none of the explorer's" in said["error"]
                await socket.send(bytes(40 * 2**20))
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
            async with connect(url, origin=own) as socket:
                await socket.send("text")
                with pytest.raises(ConnectionClosed):
                    await socket.recv()

        asyncio.run(talk())
        assert self.get(address)[0] == 200


def test_nothing_is_written_to_disk(tmp_path, tmp_path_factory, monkeypatch):
    """Neither at home, nor where it was started, nor among what is temporary."""
    pytest.importorskip("uvicorn", reason="the extra explore is not installed")
    from websockets.sync.client import connect

    buffer = io.BytesIO()
    ls.zoo.photo("cat").image.save(buffer, "PNG")
    file = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    fonts = tmp_path_factory.mktemp("fonts")  # of which matplotlib keeps a list, whoever imports it
    monkeypatch.setenv("MPLCONFIGDIR", str(fonts))
    monkeypatch.chdir(tmp_path)
    server = Server()
    with connect(
        server.address.replace("http", "ws") + "questions", origin=server.address.rsplit("/", 2)[0]
    ) as socket:

        def answer(kind, arrays=(), **fields):
            socket.send(Message({"id": kind, "kind": kind, **fields}, dict(arrays)).packed())
            while True:
                found = Message.unpacked(socket.recv()).header
                assert found["id"] == kind and "error" not in found
                if "progress" not in found:
                    return found

        photo = answer("photo", {"file": file}, name="mine.png")["photo"]
        subject = {"model": "pixelshuffle4_x3", "photo": photo, "size": SIZE}
        answer("open", subject=subject)
        answer("parts", subject=subject)
        answer("field", subject=subject, at="output", pixel=[7, 9])
        answer("svd", subject=subject, k=2)
        answer("step", subject=subject, k=2, t=0.1)
    code, _ = server.end()
    assert code == ENDED and list(tmp_path.rglob("*")) == []


def test_ctrl_c_ends_a_freeze_under_way():
    from websockets.sync.client import connect

    server = Server("--model", SLOW)
    subject = {"model": SLOW, "photo": "cat", "size": SIZE}
    with connect(
        server.address.replace("http", "ws") + "questions", origin=server.address.rsplit("/", 2)[0]
    ) as socket:
        socket.send(Message({"id": 1, "kind": "open", "subject": subject}).packed())
        said = Message.unpacked(socket.recv()).header
        assert said["text"] == f"freezing {SLOW}"
        began = time.monotonic()
        code, said = server.end()
    assert time.monotonic() - began < 5  # of the minute that it takes
    assert code == ENDED and "Traceback" not in said and said.endswith("linscope: interrupted\n")


class TestNotebooks:
    @pytest.mark.parametrize("kind", ["a module", "a matrix"])
    def test_what_is_no_frozen_network(self, kind):
        with pytest.raises(TypeError, match="explore wants a LinearInterpreter"):
            ls.explore(torch.nn.ReLU() if kind == "a module" else torch.eye(3))

    def test_what_has_no_picture(self):
        op = ls.LinearInterpreter(torch.nn.Linear(4, 3).eval(), torch.randn(1, 4))
        with pytest.raises(ValueError) as refused:
            ls.explore(op)
        assert str(refused.value) == (
            "explore wants a network of a picture, (1 or 3, H, W), that makes a picture or scores; "
            "this one makes (3,) of (4,)"
        )

    def test_too_few_classes(self, scores):
        with pytest.raises(ValueError, match="wants 5 classes, was given 1"):
            ls.explore(scores, classes=["cat"])

    def test_each_view_of_a_widget_is_answered_by_itself(self, op):
        pytest.importorskip("anywidget", reason="the extra explore is not installed")
        widget, replies = ls.explore(op), Replies()
        sent = []

        def send(content, buffers):
            sent.append(content["view"])
            replies(buffers[0])

        widget.send = send
        question = {"id": 1, "kind": "field", "at": "output", "subject": SUBJECT}
        for view, pixel in (("a", [1, 2]), ("b", [3, 4])):
            asked = Message({**question, "pixel": pixel}).packed()
            widget._asked(widget, {"view": view}, [asked])
        headers = replies.wait(2)
        assert not any(header.get("dropped") for header in headers)
        of_views = {view: header["pixel"] for view, header in zip(sent, headers, strict=True)}
        assert of_views == {"a": [1, 2], "b": [3, 4]}
        assert set(widget.desks) == {"a", "b"}
        widget._asked(widget, {"view": "a", "closed": True}, [])
        assert set(widget.desks) == {"b"}
        for n in range(20):
            widget._asked(widget, {"view": n}, [Message({"id": 2, "kind": "home"}).packed()])
        assert len(widget.desks) == 8 and 19 in widget.desks
        widget.close()

    def test_without_the_extra(self, op, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
        with pytest.raises(ImportError, match="pip install 'linscope_cuda\\[explore\\]'"):
            ls.explore(op)


def test_a_question_about_each_network_of_the_tests():
    """Whatever can be frozen of a picture is explored, or refused in a sentence."""
    from networks import PIECEWISE

    seen = 0
    for kind in PIECEWISE:
        op = ls.LinearInterpreter(build(kind), example(kind))
        try:
            session = Session(Given(given(op)))
        except BadInput:
            continue
        answer = ask(session, "open")
        json.dumps(answer.header)
        seen += not answer.header.get("error")
    assert seen
