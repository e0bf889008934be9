"""One page's questions, answered in threads: of each kind the latest wins."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..study.errors import BadInput
from .asked import Asked
from .message import Message
from .session import ANSWERS, Session

Reply = Callable[[bytes], None]

_LANES = 4


@dataclass(eq=False)
class _Counter:
    """Where questions of one kind are answered, one after the other."""

    waiting: Message | None = None
    running: threading.Event | None = None  # which stops the one that is being answered
    thread: threading.Thread | None = None


class Desk:
    """Takes packed questions and replies with packed answers, each with the question's `id`.

    A question that waits is dropped where a newer one of its kind comes, and one that is being
    answered is told to stop: what is brief ends all the same, and its answer is shown. `reply` is
    called from threads, also with the progress of what takes long. Questions with another `lane`,
    from 0 to 3, do not overtake each other: two networks side by side. {"kind": "stop", "of":
    "svd"} stops what runs.

    desk = Desk(session, reply=socket.send)
    desk.take(Message({"id": 1, "kind": "home"}).packed())
    """

    def __init__(self, session: Session, reply: Reply) -> None:
        self.session, self._reply = session, reply
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, int], _Counter] = {}
        self._closed = False

    def take(self, packed: bytes) -> None:
        """Takes a question; at once: nothing is computed here."""
        try:
            message = Message.unpacked(packed)
        except BadInput as error:
            self._send(Message({"id": None, "error": str(error)}))
            return
        kind = message.header.get("kind")
        if kind == "stop":
            self._stop(message.header.get("of"))
            return
        kind = kind if isinstance(kind, str) and kind in ANSWERS else ""
        lane = message.header.get("lane")
        lane = lane if isinstance(lane, int) and 0 <= lane < _LANES else 0
        with self._lock:
            if self._closed:
                return
            counter = self._counters.setdefault((kind, lane), _Counter())
            overtaken, counter.waiting = counter.waiting, message
            if counter.running is not None:
                counter.running.set()
            if counter.thread is None:
                counter.thread = threading.Thread(
                    target=self._work, args=(counter,), name=f"explore {kind}", daemon=True
                )
                counter.thread.start()
        if overtaken is not None:
            self._send(Message({"id": overtaken.header.get("id"), "dropped": True}))

    def close(self, wait: bool = True) -> None:
        """Drops what waits, stops what runs, and waits until it has: a freeze knows no stop."""
        with self._lock:
            self._closed = True
            counters = list(self._counters.values())
            for counter in counters:
                counter.waiting = None
                if counter.running is not None:
                    counter.running.set()
            threads = [c.thread for c in counters if c.thread is not None]
        for thread in threads if wait else ():
            if thread is not threading.current_thread():
                thread.join()

    def _stop(self, kind: Any) -> None:
        with self._lock:
            for (known, _), counter in self._counters.items():
                if known == kind and counter.running is not None:
                    counter.running.set()

    def _work(self, counter: _Counter) -> None:
        """Answers until nothing waits."""
        while True:
            with self._lock:
                message, counter.waiting = counter.waiting, None
                if message is None:
                    counter.thread = counter.running = None
                    return
                stop = counter.running = threading.Event()
            number = message.header.get("id")

            def told(share: float, text: str, number: Any = number) -> None:
                self._send(Message({"id": number, "progress": share, "text": text}))

            try:
                answer = self.session.answer(Asked(message, told, stop))
            except Exception as error:  # a fault of ours: the page goes on, and so does the thread
                traceback.print_exc()
                answer = Message({"error": f"the explorer is at fault here: {error!r:.200}"})
            self._send(Message({**answer.header, "id": number}, answer.arrays))

    def _send(self, message: Message) -> None:
        if not self._closed:
            self._reply(message.packed())
