"""Workers on a running Ray cluster: one actor each. Nothing here starts a Ray of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.sources import package_code
from lift3d.scene.threads import arrange_threads
from lift3d.scene.workers.crew import GRACE, Died, Done, Event, Ready, Share
from lift3d.scene.workers.job import Desk, Job, network_threads, sendable
from lift3d.scene.workers.local import GB, room

KNOWN = 5.0
"""Seconds for which the list of the cluster's nodes is used; nodes may join and leave."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module ray, connected to the cluster; disconnected at the end if connected here.

    InputError where no cluster answers at the address.
    """
    # Ray sends usage statistics over the network by default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _ray()
    if ray.is_initialized():  # by the caller
        yield ray
        return
    if address.startswith("ray://"):
        _check_client()
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {address} ({str(error).splitlines()[0]}); start one "
            "with `ray start --head`, and set RAY_AUTH_MODE and its token alike everywhere"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


class RayCrew:
    """Workers that are actors of a Ray cluster. All nodes must see the same files."""

    def __init__(self, ray: Any, share: Share) -> None:
        self.share = share
        self._ray = ray
        self._workers: dict[int, Any] = {}
        self._waiting: dict[Any, tuple[int, int | None]] = {}
        """Worker and item of each answer to come; None for the start."""
        self._jobs: dict[Job, Any] = {}
        self._room = (0, -KNOWN)

    def most(self) -> int:
        """As many workers as have room on the nodes that are there now."""
        count, when = self._room
        if time.monotonic() - when >= KNOWN:
            count = room(nodes(self._ray), self.share)
            self._room = (count, time.monotonic())
        return count

    def start(self, worker: int) -> None:
        """Ask Ray for an actor; it is ready when a node has room for it."""
        share = self.share
        options: dict[str, Any] = {
            "num_cpus": share.cores,
            "num_gpus": share.gpus or 0,
            "max_restarts": 0,
            "concurrency_groups": {"stop": 1},
        }
        if share.memory:
            options["memory"] = int(share.memory * GB)
        actor = self._ray.remote(**options)(_actor(self._ray)).remote(
            share.cores, network_threads()
        )
        self._workers[worker] = actor
        self._waiting[actor.ready.remote(os.getcwd(), package_code())] = (worker, None)

    def give(self, worker: int, job: Job, items: Sequence[tuple[int, bytes]]) -> None:
        """Call the actor once for each item; it does one after the other."""
        if job not in self._jobs:
            self._jobs = {job: self._ray.put(job)}
        for number, item in items:
            call = self._workers[worker].answer.remote(self._jobs[job], item)
            self._waiting[call] = (worker, number)

    def wait(self, timeout: float) -> list[Event]:
        """All answers that are there, in the order in which they were asked for."""
        references = list(self._waiting)
        if not references:
            time.sleep(timeout)
            return []
        ready, rest = self._ray.wait(references, timeout=timeout)
        if rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        came = set(ready)
        events: list[Event] = []
        for reference in references:
            if reference in came and reference in self._waiting:
                events.append(self._event(reference, *self._waiting.pop(reference)))
        return events

    def send(self, value: object, what: str) -> bytes:
        """Pickled, with the code of classes that no module has."""
        return sendable(value, what, self._ray.cloudpickle.dumps, by_value=True)

    def close(self, busy: Sequence[int]) -> None:
        """Interrupt those at work, wait up to `GRACE` seconds, and end them all."""
        if not self._ray.is_initialized():
            return
        for worker in busy:
            self._workers[worker].stop.remote()
        left = [each for each, (worker, _) in self._waiting.items() if worker in busy]
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=GRACE)
        for worker in list(self._workers):
            self._forget(worker)

    def _event(self, reference: Any, worker: int, item: int | None) -> Event:
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            # Its process or node died, or Ray's memory monitor killed it.
            self._forget(worker)
            return Died(worker, f"{type(error).__name__}: {_shortened(error)}")
        return Ready(worker, found) if item is None else Done(worker, item, found)

    def _forget(self, worker: int) -> None:
        self._ray.kill(self._workers.pop(worker))
        gone = [each for each, (of, _) in self._waiting.items() if of == worker]
        for each in gone:
            del self._waiting[each]


def _actor(ray: Any) -> type:
    """The class of a worker on a node."""

    class Worker:
        def __init__(self, cores: float, network_threads: int) -> None:
            arrange_threads()
            self._desk = Desk(cores, network_threads)
            self._thread: int | None = None

        def ready(self, folder: str, code: str) -> str:
            """The node's address. InputError where it lacks files or has another lift3d."""
            host = str(ray.util.get_node_ip_address())
            if not Path(folder).is_dir():
                raise InputError(
                    f"the node {host} has no folder {folder}; all nodes must see the same files"
                )
            os.chdir(folder)  # paths may be relative
            if package_code() != code:
                raise InputError(f"the node {host} has another version of lift3d; install this one")
            return host

        def answer(self, job: Job, item: bytes) -> bytes:
            self._thread = threading.get_ident()
            try:
                return self._desk.answer(job, item)
            finally:
                self._thread = None

        @ray.method(concurrency_group="stop")
        def stop(self) -> None:
            """Interrupt the work: Ray itself cannot interrupt an actor, only kill it."""
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(KeyboardInterrupt)
                )

    return Worker


def nodes(ray: Any) -> list[dict[str, float]]:
    """CPUs, GPUs and GB of each node that is alive."""
    found = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    return [
        {
            "CPUs": each.get("CPU", 0.0),
            "GPUs": each.get("GPU", 0.0),
            "GB": each.get("memory", 0.0) / GB,
        }
        for each in found
    ]


def _shortened(error: Exception) -> str:
    """The last line of Ray's message, and of that the beginning: it goes on with general advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], 120, placeholder=" ...") if lines else ""


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--address needs Ray: pip install 'lift3d[batch]'") from error
    return ray


def _check_client() -> None:
    """MissingExtra without the library that ray:// addresses need in addition to Ray."""
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "a ray:// address needs Ray's client: pip install 'ray[client]'; or give HOST:PORT"
        ) from error
