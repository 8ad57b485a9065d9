"""Download one large file with resume; never mixes the bytes of two versions of the file."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lift3d.scene.errors import POSIX_ONLY, InputError

try:
    import fcntl
except ImportError as error:
    raise InputError(POSIX_ONLY) from error

TIMEOUT = 30.0
"""Seconds without data after which a connection counts as broken; chosen by hand."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry; any received byte resets the retries. Chosen by hand."""
CHUNK = 1 << 18
"""Most bytes read at a time; what comes is written at once."""
SLOWEST = 1000.0
"""Bytes per second, over `TIMEOUT`, below which a connection counts as broken; chosen by hand."""
RETRIED = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes of temporary errors."""


class _Broken(Exception):
    """A failure of the connection or server, not of the request: retry."""


class _Slow(_Broken):
    """Hardly any bytes come: they do not reset the retries."""


class _Stale(_Broken):
    """The stored part is not of the file on the server: delete it and retry."""


def announced(url: str) -> int | None:
    """Bytes of the file at `url` as its server says; None where it does not say."""
    headers = {"User-Agent": "lift3d", "Accept-Encoding": "identity", "Range": "bytes=0-0"}
    try:
        with _open(url, headers) as response:
            return _range(response)[1]
    except _Broken as broken:
        raise InputError(
            f"cannot fetch {url}: {broken}; try again, or get the file another way and give it "
            "with --path"
        ) from None


def download(
    url: str, part: Path, size: int, tick: Callable[[int], None], log: Callable[[str], None]
) -> None:
    """Download the `size` bytes at `url` to `part`; resumes where `part` has a beginning of them.

    Starts again where the server does not support ranges or its file has changed (by its ETag).
    The caller verifies the content.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another lift3d is fetching {part}; wait for it") from None
        waits = list(WAITS)
        while (before := _length(file)) < size:
            try:
                _continue(url, part, file, size, tick, log)
            except _Broken as broken:
                if isinstance(broken, _Stale):
                    file.truncate(0)
                have = _length(file)
                if have > before and not isinstance(broken, _Slow):
                    waits = list(WAITS)
                elif not waits:
                    raise InputError(
                        f"cannot fetch {url}: {broken}; {have:,} of {size:,} bytes are kept in "
                        f"{part}: give the same command again and it goes on from there, or get "
                        "the file another way and give it with --path"
                    ) from None
                log(f"{broken}; trying again at byte {have:,}")
                time.sleep(waits.pop(0))
    _validator(part).unlink(missing_ok=True)


def _continue(
    url: str,
    part: Path,
    file: BinaryIO,
    size: int,
    tick: Callable[[int], None],
    log: Callable[[str], None],
) -> None:
    """One connection: append to `file` until it is complete or the connection breaks."""
    have, validator = _length(file), _validator(part)
    stored = _tag(validator.read_text(errors="replace") if validator.exists() else "")
    headers = {"User-Agent": "lift3d", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if stored:
            headers["If-Range"] = stored
    with _open(url, headers) as response:
        start, total = _range(response)
        if total is not None and total != size:
            raise InputError(
                f"{url} has {total:,} bytes where {size:,} were expected: not the published "
                "file (a login page or a proxy in between?); nothing of it was kept"
            )
        tag = response.headers.get("ETag", "W/")
        if tag.startswith("W/"):  # a weak ETag does not guarantee the same bytes
            tag = response.headers.get("Last-Modified", "")
        tag = _tag(tag)
        if start not in (0, have):
            raise InputError(f"{url} answers another range than was asked for")
        if start and stored and tag and tag != stored:
            raise _Stale("the file on the server is another one now")
        if not start:
            if have:
                log(f"the server sends the whole file again, not what follows byte {have:,}")
            file.truncate(0)
            validator.write_text(tag)
        _need_room(part, size - _length(file))
        began, first = time.monotonic(), _length(file)
        for chunk in _chunks(response):
            file.write(chunk)
            file.flush()
            tick(_length(file))
            if _length(file) > size:
                return  # the caller checks the size
            seconds, more = time.monotonic() - began, _length(file) - first
            if seconds > TIMEOUT:
                if more < SLOWEST * seconds and _length(file) < size:
                    raise _Slow(f"only {more:,} bytes came in {seconds:.0f} s")
                began, first = time.monotonic(), _length(file)
    if _length(file) < size:
        raise _Broken("the connection ended too early")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other web addresses only; urllib would follow one to FTP."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, to: str
    ) -> Any:
        """The request for the address that the server names."""
        if urllib.parse.urlsplit(to).scheme not in ("http", "https"):
            fp.close()
            raise InputError(f"{req.full_url} leads to {to}, which is no web address")
        return super().redirect_request(req, fp, code, msg, headers, to)


def _open(url: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 416:
            raise _Stale(answer) from None
        if error.code in RETRIED:
            raise _Broken(answer) from None
        raise InputError(
            f"cannot fetch {url}: {answer}; get the file another way and give it with --path"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):
            raise InputError(f"cannot fetch {url}: no such file") from None
        raise _Broken(f"no connection ({error.reason})") from None
    except ValueError as error:
        raise InputError(
            f"cannot fetch {url}: what the server answers cannot be read ({error}); get the file "
            "another way and give it with --path"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"no connection ({error or type(error).__name__})") from None


def _range(response: Any) -> tuple[int, int | None]:
    """Offset of the first byte sent, and the size of the complete file where it is given."""
    if response.status == 206:
        match = re.fullmatch(
            r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if match is None:
            raise InputError(f"{response.url} sends a part of the file without a Content-Range")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "").strip()
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _chunks(response: Any) -> Iterator[bytes]:
    """The received chunks; errors of reading become `_Broken`, so that errors of writing differ."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _Broken(f"the connection broke ({error or type(error).__name__})") from None
        if not chunk:
            return
        yield chunk


def _tag(text: str) -> str:
    """An ETag or date that can be stored and sent back; empty for anything else."""
    return text if re.fullmatch(r"[\x20-\x7e]{1,200}", text) else ""


def _need_room(part: Path, more: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if more > free:
        message = f"{os.strerror(errno.ENOSPC)}: {more:,} bytes are to come, {free:,} are free"
        raise OSError(errno.ENOSPC, message, str(part.parent))


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _validator(part: Path) -> Path:
    """The file that stores the ETag (or date) of the server's file for `part`."""
    return part.with_name(f"{part.name}.etag")
