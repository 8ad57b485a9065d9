"""A worker process of this machine: `python -m lift3d.scene.workers.process HANDLE CORES THREADS`.

It gets items through a pipe and ends when the other end of the pipe is closed, so also when the
process that started it was killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lift3d.scene.threads import arrange_threads
from lift3d.scene.workers.job import Desk


def main(handle: int, cores: float, network_threads: int) -> None:
    """Answer items until the pipe is closed."""
    # A shell that starts a command in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.set_inheritable(handle, False)
        connection = Connection(handle)
        given: SimpleQueue[Any] = SimpleQueue()
        Thread(target=_listen, args=(connection, given), daemon=True).start()
        arrange_threads()
        desk = Desk(cores, network_threads)
        connection.send(None)
        while True:
            job, number, item = given.get()
            # In this thread: an answer has left before the next item, which may end the process.
            connection.send((number, desk.answer(job, item)))
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)


def _listen(connection: Connection, given: SimpleQueue[Any]) -> None:
    try:
        while True:
            given.put(pickle.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)  # what started this process has ended


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
