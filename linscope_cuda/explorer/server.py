"""The explorer's page on a port of this machine: files by HTTP, questions by a WebSocket.

Whoever knows the address with its random token may ask; no page of another origin can.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from ..study.errors import BadInput
from .desk import Desk
from .pictures import MOST_BYTES
from .session import Session

LOOPBACK = "127.0.0.1"
_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "explore.js": ("explore.js", "text/javascript; charset=utf-8"),
    "explore.css": ("explore.css", "text/css; charset=utf-8"),
}
TOUR = "tour.html"
_NO_OTHERS = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' data: blob:; {_NO_OTHERS}"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOUR_HEADERS = _HEADERS | {  # one file, which runs nothing
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {_NO_OTHERS}"
    ),
    "Content-Type": "text/html; charset=utf-8",
}
_WRONG = "This address wants the token that `linscope explore` printed: open the whole address.\n"
_ROOM = 2**16  # of a message over the picture that it carries


def front(name: str) -> str:
    """A file of the front end.

    front("explore.js")
    """
    return resources.files("linscope_cuda.explorer").joinpath("front", name).read_text("utf-8")


def application(session: Session, token: str, hosts: tuple[str, ...], tour: str = "") -> Any:
    """The page as an ASGI application, for requests whose Host is one of `hosts` ("127.0.0.1:8000"
    for example) and whose path begins with the token; `tour` is the tour's page, if there is one.

    application(Session(Library()), "secret", ("127.0.0.1:8000",))
    """
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    def known(path: dict[str, Any], headers: Any) -> bool:
        right = secrets.compare_digest(path["token"].encode(), token.encode())
        return right and headers.get("host", "") in hosts

    async def file(request: Request) -> Response:
        if not known(request.path_params, request.headers):
            return PlainTextResponse(_WRONG, 403, _HEADERS)
        name = request.path_params["file"]
        if name == TOUR and tour:
            return Response(tour, 200, _TOUR_HEADERS)
        if name not in _FILES:
            return PlainTextResponse("There is no such file.\n", 404, _HEADERS)
        stored, kind = _FILES[name]
        return Response(front(stored), 200, {**_HEADERS, "Content-Type": kind})

    async def nothing(request: Request) -> Response:
        return PlainTextResponse(_WRONG, 403, _HEADERS)

    async def questions(page: WebSocket) -> None:
        origin = urlsplit(page.headers.get("origin", ""))
        if not known(page.path_params, page.headers) or origin.netloc not in hosts:
            await page.close(4403)
            return
        await page.accept()
        loop, answers = asyncio.get_running_loop(), asyncio.Queue()

        def reply(packed: bytes) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody reads
                loop.call_soon_threadsafe(answers.put_nowait, packed)

        desk = Desk(session, reply)

        async def send() -> None:
            while True:
                await page.send_bytes(await answers.get())

        sending = asyncio.create_task(send())
        try:
            while True:
                desk.take(await page.receive_bytes())
        except (WebSocketDisconnect, KeyError, RuntimeError):
            pass  # the tab was closed, or says what the page never does
        finally:
            sending.cancel()
            desk.close(wait=False)

    return Starlette(
        routes=[
            Route("/{token}/{file:path}", file),
            WebSocketRoute("/{token}/questions", questions),
            Route("/{path:path}", nothing),
        ]
    )


def serve(
    session: Session,
    ready: Callable[[str], object],
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    tour: str = "",
) -> None:
    """Serves the page until Ctrl-C, which it raises; `ready` is told its address once it can be
    opened.

    `port` 0 takes a free one. BadInput if the port cannot be had, or the extra is missing.

    serve(Session(Library()), ready=print)
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
        import websockets  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"linscope explore wants {error.name}: pip install 'linscope_cuda[explore]'"
        ) from error
    token = token or secrets.token_urlsafe(16)
    listening = _listening(host, port)
    port = listening.getsockname()[1]
    named = f"[{host}]" if ":" in host else host
    hosts = [f"{named}:{port}"]
    if host == LOOPBACK:
        hosts.append(f"localhost:{port}")

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(f"http://{named}:{port}/{token}/")

    config = uvicorn.Config(
        application(session, token, tuple(hosts), tour),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws_max_size=MOST_BYTES + _ROOM,
        timeout_graceful_shutdown=1,
        ws="websockets-sansio",
    )
    with listening:
        Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot listen on {host}, port {port}: {reason}") from error
    return made
