"""`lift3d view`: serve the page of a run until it is interrupted."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from lift3d.run.api import backend
from lift3d.run.run import Run
from lift3d.run.stages import announced
from lift3d.scene.errors import InputError
from lift3d.scene.printing import to_stdout
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.viewing.changing import Changing
from lift3d.viewing.server import LOCAL, PageServer
from lift3d.viewing.showing import Showing


@contextlib.contextmanager
def opened(
    run: Run,
    host: str = "127.0.0.1",
    port: int = 0,
    read_only: bool = False,
    segmenter: Segmenter | None = None,
) -> Iterator[PageServer]:
    """A server of the page, answering in a thread of its own.

    `segmenter` answers clicks in pictures.

    Unless it is `read_only` it holds the run's lock, so that nothing else writes to the run.
    InputError where another process holds it, or where the address cannot be had.
    """
    with contextlib.ExitStack() as stack:
        session = Showing(run, read_only, segmenter is not None)
        if not read_only:
            stack.enter_context(session.edits.hold())
        routes = session.routes
        if not read_only:
            routes = {**routes, **Changing(session, segmenter).routes}
        server = stack.enter_context(PageServer(routes, session.events, host, port, read_only))
        if not read_only:
            stack.enter_context(announced(run.folder, server.address))
        session.prepare()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            session.close()


def promptable(name: str) -> Segmenter:
    """The segmenter for clicks; InputError where it is unknown, or of no use for clicks."""
    if name == "regions":
        raise InputError(
            "regions cannot tell an object from a click in a picture (mean IoU 0.30 on the demo); "
            "click without --clicks, by the tree of joins, or name a network such as sam"
        )
    config = backend("segmentation", name)
    if not isinstance(config, SegmenterConfig):
        raise InputError(f"{name} sees all views at once and cannot be asked about one click")
    return config.build()


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    read_only: bool = False,
    browser: bool = True,
    clicks: str | None = None,
) -> None:
    """Print the address, open the browser, and answer until Ctrl+C.

    `clicks` is the name of a segmenter.
    """
    segmenter = None if clicks is None else promptable(clicks)
    with opened(Run.open(folder), host, port, read_only, segmenter) as server:
        to_stdout(server.address)
        if host not in LOCAL:
            to_stdout(
                f"warning: everyone who reaches {host} and has this address can see the scene"
                + ("" if read_only else " and change it")
                + "; nothing is encrypted"
            )
        if browser:
            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
