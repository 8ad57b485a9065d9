"""An HTTP server for the page of one run, on the standard library.

It answers only who has the token of the printed address, only under the names of this machine, and
only pages that it served itself: a page of another origin that is open beside it can neither read
nor write.
"""

from __future__ import annotations

import json
import math
import queue
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from lift3d.scene.errors import InputError

MOST_BODY = 64 << 20
"""Bytes of a request's body."""
ALIVE = 10.0
"""Seconds after which a silent stream of events sends a comment, to notice who has left."""
LOCAL = ("127.0.0.1", "localhost", "::1")
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered: its HTTP status and the reason in words."""

    def __init__(self, status: HTTPStatus, reason: str, **more: object) -> None:
        super().__init__(reason)
        self.status, self.reason, self.more = status, reason, more


@dataclass(frozen=True)
class Answer:
    """The body of an answer and its type."""

    body: bytes
    type: str = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(content: object) -> Answer:
    """An answer in JSON; numbers that are undefined (NaN) become null."""
    text = json.dumps(_defined(content), separators=(",", ":"), allow_nan=False)
    return Answer(text.encode(), "application/json")


def _defined(content: object) -> object:
    if isinstance(content, dict):
        return {name: _defined(each) for name, each in content.items()}
    if isinstance(content, list | tuple):
        return [_defined(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@dataclass(frozen=True)
class Request:
    """What a route gets: the numbers in its path, the query, the body, and who asks."""

    numbers: tuple[int, ...]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    who: str

    def number(self, name: str, low: int, high: int) -> float:
        """A number of the query, from `low` to `high`; Refused where it is none."""
        try:
            value = float(self.query[name])
        except (KeyError, ValueError):
            raise Refused(HTTPStatus.BAD_REQUEST, f"?{name}= takes a number") from None
        if not low <= value <= high:
            raise Refused(HTTPStatus.BAD_REQUEST, f"?{name}= is outside {low} to {high}")
        return value


Route = Callable[[Request], Answer]


class Events:
    """The streams of all open pages: what one person does is told to all."""

    def __init__(self) -> None:
        self._streams: dict[queue.SimpleQueue[str], str] = {}
        self._lock = threading.Lock()
        self._again = False

    def open(self, who: str) -> queue.SimpleQueue[str]:
        """A new stream; the others are told how many people there are."""
        stream: queue.SimpleQueue[str] = queue.SimpleQueue()
        with self._lock:
            self._streams[stream] = who
            if self._again:  # it may have asked for the state before that, and heard nothing
                stream.put(json.dumps({"again": True}))
        self.send({"people": self.people})
        return stream

    def close(self, stream: queue.SimpleQueue[str]) -> None:
        """Remove a stream."""
        with self._lock:
            self._streams.pop(stream, None)
        self.send({"people": self.people})

    @property
    def people(self) -> int:
        """How many people look at the run; one person may have several pages."""
        return len(set(self._streams.values()))

    def send(self, content: Mapping[str, Any]) -> None:
        """Tell every open page."""
        text = json.dumps(content, separators=(",", ":"))
        with self._lock:
            self._again |= "again" in content
            for stream in self._streams:
                stream.put(text)


class PageServer(ThreadingHTTPServer):
    """Serves the page and the routes of a session until it is shut down."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        routes: Mapping[str, Route],
        events: Events,
        host: str = "127.0.0.1",
        port: int = 0,
        read_only: bool = False,
    ) -> None:
        """`routes`: method and pattern of the path, such as "GET /view/(\\d+)/image"."""
        self.routes = [
            (method, re.compile(pattern), route)
            for (method, pattern), route in ((key.split(" ", 1), r) for key, r in routes.items())
        ]
        self.events, self.read_only = events, read_only
        self.token = secrets.token_urlsafe(24)
        self.files = _page_files()
        self.names = {*LOCAL, host}
        self.any_address = host in ("0.0.0.0", "::", "")
        try:
            if ":" in host:
                self.address_family = socket.AF_INET6
            super().__init__((host, port), Handler)
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port} ({error.strerror}); give another --port, or none"
            ) from None
        self.cookie = f"lift3d-{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without asking for the machine's full name, which can take seconds."""
        TCPServer.server_bind(self)

    @property
    def address(self) -> str:
        """The address to open, with its token."""
        host, port = str(self.server_address[0]), self.server_address[1]
        host = "127.0.0.1" if self.any_address else host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={self.token}"

    def known_host(self, host: str) -> bool:
        """Whether the header `Host` names this machine.

        Ports may differ (a tunnel); a name of elsewhere that resolves to this machine may not.
        """
        name = urlsplit(f"//{host}").hostname or ""
        if name in self.names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return self.any_address  # a number cannot be a foreign name that was made to resolve here

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed while it was being answered is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lift3d", ""
    timeout = 60
    disable_nagle_algorithm = True  # headers and body are two writes: the second waited 40 ms

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the address and for warnings."""

    def _answer(self, method: str) -> None:
        try:
            path = urlsplit(self.path)
            query = {
                name: values[-1]
                for name, values in parse_qs(path.query, keep_blank_values=True).items()
            }
            self._check_sender(method)
            if method == "GET" and path.path == "/" and "token" in query:
                self._enter(query.pop("token"), query)
                return
            self._check_token()
            if path.path == "/api/events" and method == "GET":
                self._stream(query.get("who", ""))
                return
            answer = self._find(method, path.path, query)
            self._send(HTTPStatus.OK, answer)
        except Refused as error:
            self._refuse(error.status, error.reason, **error.more)
        except InputError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except IndexError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such thing in this run")
        except (ConnectionError, TimeoutError):
            raise  # the page was closed
        except Exception as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault in lift3d: {error!r}")
            raise

    def _check_sender(self, method: str) -> None:
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not self.server.known_host(host):
            raise Refused(HTTPStatus.FORBIDDEN, "this address is not the server's own")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refused(HTTPStatus.FORBIDDEN, "a page from elsewhere may not ask")
        if method != "GET" and origin is None:
            raise Refused(HTTPStatus.FORBIDDEN, "a change needs the header Origin")
        if method != "GET" and self.server.read_only:
            raise Refused(HTTPStatus.FORBIDDEN, "the run is shown with --read-only")

    def _check_token(self) -> None:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        given = cookies[self.server.cookie].value if self.server.cookie in cookies else ""
        if not secrets.compare_digest(given.encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "open the address that lift3d view printed; it ends in ?token=...",
            )

    def _enter(self, token: str, query: Mapping[str, str]) -> None:
        """Exchange the token for a cookie, so that it does not stay in the address."""
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is of another server; it is over")
        cookie = f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        place = "/?" + urlencode(query) if query else "/"
        empty = Answer(b"", "text/plain")
        self._send(HTTPStatus.SEE_OTHER, empty, Location=place, Set_Cookie=cookie)

    def _find(self, method: str, path: str, query: Mapping[str, str]) -> Answer:
        if method == "GET" and path in self.server.files:
            return self.server.files[path]
        for wanted, pattern, route in self.server.routes:
            match = pattern.fullmatch(path)
            if match is not None and wanted == method:
                body = self._body() if method == "POST" else {}
                who = re.sub(r"[^\w-]", "", self.headers.get("X-Person", ""))[:16]
                return route(Request(tuple(map(int, match.groups())), query, body, who))
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such address")

    def _body(self) -> Mapping[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is missing")
        if int(length) > MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BODY >> 20} MB")
        try:
            content = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
        if not isinstance(content, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        return content

    def _stream(self, who: str) -> None:
        """Send events until the page is closed."""
        self.close_connection = True
        stream = self.server.events.open(who)
        try:
            self.send_response(HTTPStatus.OK)
            self._headers({"Content-Type": "text/event-stream", "Connection": "close"})
            while True:
                try:
                    text = f"data: {stream.get(timeout=ALIVE)}\n\n"
                except queue.Empty:
                    text = ": still here\n\n"
                self.wfile.write(text.encode())
                self.wfile.flush()
        except (ConnectionError, TimeoutError):
            return
        finally:
            self.server.events.close(stream)

    def _refuse(self, status: HTTPStatus, reason: str, **more: object) -> None:
        # The rest of the body was not read; what follows on this connection is not a request.
        self.close_connection = True
        self._send(status, json_answer({"error": reason, **more}), Connection="close")

    def _send(self, status: HTTPStatus, answer: Answer, **headers: str) -> None:
        self.send_response(status)
        lengths = {"Content-Type": answer.type, "Content-Length": str(len(answer.body))}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._headers({**lengths, **answer.headers, **named})
        self.wfile.write(answer.body)

    def _headers(self, headers: Mapping[str, str]) -> None:
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _page_files() -> dict[str, Answer]:
    """Every file of the page by its address; nothing else is ever read from the disk by name."""
    folder = resources.files("lift3d.viewing") / "page"
    found = {}
    for each in folder.iterdir():
        kind = TYPES.get(each.name.rpartition(".")[2])
        if kind is not None:
            found[f"/app/{each.name}"] = Answer(each.read_bytes(), kind)
    return {**found, "/": found["/app/index.html"]}
