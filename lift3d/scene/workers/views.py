"""Spread the work on the views of one scan over workers; results come back in the views' order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from lift3d.scene.errors import InputError
from lift3d.scene.workers.crew import PULSE, Crew, Round, Share, Staff
from lift3d.scene.workers.job import Answer, Job
from lift3d.scene.workers.local import LocalCrew, cores, gpus

RUN = 4
"""Most consecutive views that a worker is given at a time. Chosen by hand."""
AHEAD = 3
"""Views that may be finished before they are due, in runs of every worker; bounds memory."""

Item = TypeVar("Item")
Built = TypeVar("Built")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ViewWorkers:
    """Workers for the views of one scan. They change no result, so no stage depends on them."""

    workers: int | None = None
    """Spread the work on single views (segmenting, MASt3R) over this many processes, with a GPU
    each where there are several; by default 1, and with --address as many as have room there."""
    address: str | None = None
    """Spread it over a running Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT. All nodes must
    see the same files and have this version of lift3d installed."""

    @property
    def several(self) -> bool:
        """Whether other processes do the work."""
        return self.address is not None or (self.workers or 1) > 1

    def check(self) -> None:
        """InputError for a number that makes no sense."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}; expected 1 or more")


class Pool:
    """Workers that are open for the views of one stage."""

    def __init__(self, crew: Crew, workers: int | None, say: Callable[[str], None]) -> None:
        self.say = say
        self._staff = Staff(crew, workers, say)

    def over(
        self,
        work: Callable[[Built, Item], Result],
        build: Callable[[], Built],
        items: Sequence[Item],
        names: Sequence[str],
    ) -> Iterator[Result]:
        """`work(built, item)` of each item, in order.

        Each worker calls `build` once, also where several calls of `over` have the same one.
        `work` has to be a module's function; `build` and the items have to be picklable:
        CannotSend is raised at once where the first item or `build` is not. An exception of
        `work` is raised when its item is due. `names` of the items are for messages.
        """
        send = self._staff.crew.send
        job = Job(send(work, "the work"), send(build, "the backend"))
        if items:
            send(items[0], names[0])
        return self._in_order(job, items, names)

    def _in_order(self, job: Job, items: Sequence[Any], names: Sequence[str]) -> Iterator[Any]:
        assert not any(self._staff.hands.values()), "another round is not finished"
        round_ = Round(self._staff, job, items, names, RUN)
        found: dict[int, Answer] = {}
        for due in range(len(items)):
            before = due + AHEAD * RUN * self._staff.size()
            while True:  # at least once, so that workers get more while results are used
                found.update(round_.step(before, 0.0 if due in found else PULSE))
                if due in found:
                    break
            answer = found.pop(due)
            if answer.lost:
                raise InputError(
                    f"{names[due]}: its worker died {answer.attempts} times ({answer.lost}); "
                    "if memory ran out, use fewer --workers"
                )
            yield answer.value()

    def close(self) -> None:
        """End the workers."""
        self._staff.close()


@runtime_checkable
class TakesWorkers(Protocol):
    """A backend that can spread its work on views."""

    def take(self, pool: Pool) -> None:
        """Use these workers from now on."""
        ...


@contextlib.contextmanager
def opened(
    settings: ViewWorkers, network: bool, say: Callable[[str], None]
) -> Iterator[Pool | None]:
    """The workers, for the time of the block; None where this process does the work alone.

    `network`: whether the work uses a GPU where there is one.
    """
    if not settings.several:
        yield None
        return
    with _crew(settings, network) as crew:
        pool = Pool(crew, settings.workers, say)
        try:
            yield pool
        finally:
            pool.close()


@contextlib.contextmanager
def _crew(settings: ViewWorkers, network: bool) -> Iterator[Crew]:
    if settings.address is None:
        count, known = settings.workers or 1, len(gpus())
        each = None if known < 2 else min(1.0, known / count)
        yield LocalCrew(Share(float(max(1, cores() // count)), each), count)
        return
    from lift3d.scene.workers.cluster import RayCrew, connected, nodes

    with connected(settings.address) as ray:
        graphics = network and any(node["GPUs"] >= 1 for node in nodes(ray))
        yield RayCrew(ray, Share(1.0, 1.0 if graphics else 0.0))
