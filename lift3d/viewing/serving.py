"""`lift3d view`: serve the page of a run until it is interrupted."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from lift3d.run.run import Run
from lift3d.run.stages import announced
from lift3d.viewing.changing import Changing
from lift3d.viewing.server import LOCAL, PageServer
from lift3d.viewing.showing import Showing


@contextlib.contextmanager
def opened(
    run: Run, host: str = "127.0.0.1", port: int = 0, read_only: bool = False
) -> Iterator[PageServer]:
    """A server of the page, answering in a thread of its own.

    Unless it is `read_only` it holds the run's lock, so that nothing else writes to the run.
    InputError where another process holds it, or where the address cannot be had.
    """
    with contextlib.ExitStack() as stack:
        session = Showing(run, read_only)
        if not read_only:
            stack.enter_context(session.edits.hold())
        routes = session.routes if read_only else {**session.routes, **Changing(session).routes}
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


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    read_only: bool = False,
    browser: bool = True,
) -> None:
    """Print the address, open the browser, and answer until Ctrl+C."""
    with opened(Run.open(folder), host, port, read_only) as server:
        print(server.address, flush=True)
        if host not in LOCAL:
            print(
                f"warning: everyone who reaches {host} and has this address can see the scene"
                + ("" if read_only else " and change it")
                + "; nothing is encrypted",
                flush=True,
            )
        if browser:
            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
