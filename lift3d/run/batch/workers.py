"""Run many tasks, one worker each; tasks of dead workers are retried `retries` times."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.workers.crew import RETRIES, Crew, Round, Share, Staff
from lift3d.scene.workers.job import Answer, Job, nothing
from lift3d.scene.workers.local import LocalCrew, here, room

State: TypeAlias = Literal["done", "input", "system", "memory", "mistake", "crash"]
"""How a task ended: `input` is bad input, `system` a full disk or a folder in use, `mistake` a
bug in lift3d, `crash` a worker that died in every attempt."""
Task: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Workers:
    """Machines that lift the scans, and cores, GPUs and memory per scan."""

    address: str | None = None
    """A running Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT; by default this machine alone,
    without Ray. All nodes must see the same files and have lift3d installed."""
    jobs: int | None = None
    """Lift at most this many scans at a time; by default as many as the machines allow."""
    cpus: float = 1.0
    """Cores for each scan, or for each GPU of a scan that has several."""
    gpus: float | None = None
    """GPUs for each scan, 0.5: two share one; by default, for networks where there are GPUs, 1,
    and more where scans are fewer than GPUs. The views of a scan are spread over its GPUs."""
    memory: float | None = None
    """Gigabytes to reserve for each scan, so that no node runs too many."""
    retries: int = RETRIES
    """Number of times that a scan is tried again after its worker died."""


@dataclass(frozen=True)
class Ended:
    """How one task ended."""

    state: State
    error: str = ""
    host: str = ""
    attempts: int = 1


def run_all(
    tasks: Mapping[str, Task],
    workers: Workers,
    network: bool = False,
    say: Callable[[str], None] = lambda line: None,
    pulse: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Ended]]:
    """Yield each task's name and result when it ends. Every task ends exactly once.

    `network`: whether tasks use a GPU where there is one. `pulse` is called while waiting. When
    the caller stops early, the workers are interrupted.
    """
    if workers.jobs is not None and workers.jobs < 1:
        raise InputError(f"jobs is {workers.jobs}; expected 1 or more")
    if workers.retries < 0:
        raise InputError(f"retries is {workers.retries}; expected 0 or more")
    together = min(len(tasks), workers.jobs or len(tasks))
    with _crew(workers, network, together) as crew:
        names = list(tasks)
        job = Job(crew.send(_run, "the work"), crew.send(nothing, "nothing"))
        staff = Staff(crew, workers.jobs, say)
        tried = Round(staff, job, list(tasks.values()), names, retries=workers.retries)
        try:
            while not tried.over:
                for number, answer in tried.step():
                    yield names[number], _end(answer)
                pulse()
        finally:
            staff.close()


def _run(built: None, task: Task) -> Ended:
    """Run a task on its worker; exceptions come back as text."""
    try:
        task()
    except (InputError, MissingExtra) as error:
        return Ended("input", str(error))
    except OSError as error:
        return Ended("system", str(error))
    except MemoryError:
        return Ended("memory", "out of memory: use fewer views or a larger --voxel")
    except Exception:
        return Ended("mistake", traceback.format_exc())
    return Ended("done")


def _end(answer: Answer) -> Ended:
    if answer.lost:
        return Ended("crash", f"its worker died: {answer.lost}", answer.host, answer.attempts)
    try:
        ended: Ended = answer.value()
    except Exception as error:  # the task could not be read there
        ended = Ended("mistake", "\n".join([str(error), *getattr(error, "__notes__", [])]))
    return replace(ended, host=answer.host, attempts=answer.attempts)


@contextlib.contextmanager
def _crew(workers: Workers, network: bool, together: int) -> Iterator[Crew]:
    """Workers of this machine or of the cluster, which have room for at least one task."""
    if workers.address is None:
        there = [here()]
        share = share_of(workers, network, together, there)
        room(there, share)
        yield LocalCrew(share)
        return
    from lift3d.scene.workers.cluster import RayCrew, connected, nodes

    with connected(workers.address) as ray:
        share = share_of(workers, network, together, nodes(ray))
        room(nodes(ray), share)
        yield RayCrew(ray, share)


def share_of(
    workers: Workers, network: bool, together: int, nodes: Sequence[Mapping[str, float]]
) -> Share:
    """What each of `together` tasks gets of the nodes.

    By default, networks get all GPUs: where tasks are fewer than GPUs, each gets several of one
    node, and cores for each of them, as far as there are.
    """
    memory, gpus = workers.memory or 0.0, workers.gpus
    graphics = [int(node["GPUs"]) for node in nodes if node["GPUs"] >= 1]
    if gpus is None and not (network and graphics):
        return Share(workers.cpus, None, memory)
    if gpus is None:
        fitting = range(1, max(graphics) + 1)
        fit = [k for k in fitting if k == 1 or sum(g // k for g in graphics) >= together]
        gpus = float(max(fit))
    cores = workers.cpus * max(1.0, gpus)
    for node in nodes:
        if node["GPUs"] >= gpus > 1:
            cores = min(cores, node["CPUs"] / int(node["GPUs"] / gpus))
    return Share(max(cores, workers.cpus), gpus, memory)
