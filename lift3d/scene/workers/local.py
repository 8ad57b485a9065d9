"""Worker processes of this machine. They need no network: each has a pipe to this process."""

from __future__ import annotations

import math
import os
import pickle
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from lift3d.scene.errors import InputError
from lift3d.scene.workers.crew import GRACE, Died, Done, Event, Ready, Share
from lift3d.scene.workers.job import Job, network_threads, sendable

GB = 10**9
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Settings of the number of threads; libraries read them when they are loaded. Not OpenMP's: torch
uses it, and on a CPU its last digits depend on the number of its threads."""


class LocalCrew:
    """Workers that are processes of this machine."""

    def __init__(self, share: Share, count: int | None = None) -> None:
        """`count` workers, or by default as many as have room."""
        self.share = share
        self._count = count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._pipes: dict[int, Connection] = {}
        self._told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        """Worker and what it sent; None where it has ended."""

    def most(self) -> int:
        """The given number, or as many workers as have room on this machine."""
        return self._count or room([here()], self.share)

    def start(self, worker: int) -> None:
        """Start the process; it imports its libraries before it is ready."""
        ours, theirs = Pipe()
        handle = theirs.fileno()
        module, numbers = f"{__package__}.process", (handle, self.share.cores, network_threads())
        self._processes[worker] = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, numbers)],
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
            env=os.environ | self._environment(worker),
        )
        theirs.close()
        self._pipes[worker] = ours
        # Read at once, so that no worker has to wait until its answer is used.
        Thread(target=_read, args=(worker, ours, self._told), daemon=True).start()

    def give(self, worker: int, job: Job, items: Sequence[tuple[int, bytes]]) -> None:
        """Send the items through the pipe."""
        try:
            for number, item in items:
                self._pipes[worker].send((job, number, item))
        except OSError:
            pass  # it has died: `wait` finds that out, after its last answers

    def wait(self, timeout: float) -> list[Event]:
        """All events that are there."""
        events: list[Event] = []
        try:
            events.append(self._event(*self._told.get(timeout=timeout)))
            while True:
                events.append(self._event(*self._told.get_nowait()))
        except Empty:
            return events

    def send(self, value: object, what: str) -> bytes:
        """Pickled; classes must be in a module."""
        return sendable(value, what)

    def close(self, busy: Sequence[int]) -> None:
        """Interrupt those at work, wait up to `GRACE` seconds, and kill."""
        for worker in busy:
            self._processes[worker].send_signal(signal.SIGINT)
        until = time.monotonic() + GRACE
        for worker in busy:
            try:
                self._processes[worker].wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        for worker in list(self._processes):
            self._processes[worker].kill()  # which ends the thread that reads its pipe
            self._processes[worker].wait()
        left = len(self._processes)
        while left:
            worker, told = self._told.get()
            if told is None:
                self._end(worker)
                left -= 1

    def _event(self, worker: int, told: bytes | None) -> Event:
        if told is None:
            return Died(worker, self._end(worker))
        found = pickle.loads(told)
        return Ready(worker, platform.node()) if found is None else Done(worker, *found)

    def _end(self, worker: int) -> str:
        """Forget a worker; returns how it ended."""
        self._pipes.pop(worker).close()
        process = self._processes.pop(worker)
        try:
            status = process.wait(GRACE)
        except subprocess.TimeoutExpired:  # it closed its pipe and goes on
            process.kill()
            status = process.wait()
        if status >= 0:
            return f"exit status {status}"
        return f"killed by {signal.Signals(-status).name}"

    def _environment(self, worker: int) -> dict[str, str]:
        cores = str(max(1, int(self.share.cores)))
        own = dict.fromkeys(THREADS, cores) | {"PYTHONPATH": os.pathsep.join(map(_place, sys.path))}
        known, each = gpus(), self.share.gpus
        if each is not None and (known or each == 0):
            first = int(worker * each) if each < 1 else worker * int(each)
            chosen = [known[(first + more) % len(known)] for more in range(math.ceil(each))]
            own[VISIBLE] = ",".join(chosen)
        return own


def _read(worker: int, pipe: Connection, told: SimpleQueue[tuple[int, Any]]) -> None:
    """Pass on all that a worker sends, and None at its end."""
    try:
        while True:
            told.put((worker, pipe.recv_bytes()))
    except (EOFError, OSError):
        told.put((worker, None))


def gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Found without a library: those load CUDA, which takes memory of each GPU.
    """
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [each.strip() for each in given.split(",") if each.strip() not in ("", "-1")]
    there = [each for each in Path("/dev").glob("nvidia*") if each.name[6:].isdecimal()]
    return [str(index) for index in range(len(there))]


def cores() -> int:
    """The cores that this process may use; fewer in a worker."""
    import numba

    return int(numba.get_num_threads())


def here() -> dict[str, float]:
    """CPUs, GPUs and GB of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    return {"CPUs": float(cores()), "GPUs": float(len(gpus())), "GB": memory}


def room(nodes: Sequence[dict[str, float]], share: Share) -> int:
    """How many workers with this share fit on the nodes; InputError where none does."""
    wanted = {"CPUs": share.cores, "GPUs": share.gpus or 0.0, "GB": share.memory}
    count = sum(
        min((int(node[what] / each) for what, each in wanted.items() if each > 0), default=0)
        for node in nodes
    )
    if count < 1:
        have = "; ".join(
            ", ".join(f"{have:.4g} {what}" for what, have in node.items()) for node in nodes
        )
        needs = ", ".join(f"{each:g} {what}" for what, each in wanted.items())
        raise InputError(
            f"a worker needs {needs}, and no node has that (there are: {have}); lower --cpus, "
            "--gpus or --memory"
        )
    return count


def _place(entry: str) -> str:
    return entry or os.getcwd()
