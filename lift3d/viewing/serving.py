"""`lift3d view`: serve the page of a run until it is interrupted."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from lift3d.networks.clip import TextConfig
from lift3d.run.prompting import segmenter_of
from lift3d.run.run import Run
from lift3d.run.stages import announced
from lift3d.run.wording import Scorer
from lift3d.scene.printing import to_stdout
from lift3d.scene.protocols import Segmenter
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
    scorer: Scorer | None = None,
) -> Iterator[PageServer]:
    """A server of the page, answering in a thread of its own.

    `segmenter` answers clicks in pictures; `scorer` (CLIP) proposes names.

    Unless it is `read_only` it holds the run's lock, so that nothing else writes to the run.
    InputError where another process holds it, or where the address cannot be had.
    """
    with contextlib.ExitStack() as stack:
        session = Showing(run, read_only, segmenter is not None, scorer)
        if not read_only:
            stack.enter_context(session.edits.hold())
        routes = session.routes
        if not read_only:
            changing = Changing(session, segmenter)
            stack.callback(changing.close)
            routes = {**routes, **changing.routes}
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
    segmentation: object | None = None,
    clip: str | None = None,
) -> None:
    """Print the address, open the browser, and answer until Ctrl+C.

    `segmentation`: settings of the segmenter that answers clicks in pictures. `clip`: a CLIP or
    SigLIP that proposes names.
    """
    scorer = None if clip is None else TextConfig(clip).build()
    segmenter = None if segmentation is None or read_only else segmenter_of(segmentation)
    with opened(Run.open(folder), host, port, read_only, segmenter, scorer) as server:
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
