"""Many tasks on Ray, one worker each: nothing lost where a worker dies, nothing tried for ever."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lift3d.scene.errors import InputError, MissingExtra

GB = 10**9
PULSE = 0.5
"""Seconds between two looks at what is done."""
GRACE = 5.0
"""Seconds that a worker has to tidy up when it is interrupted."""
OBJECT_STORE = 100 * 2**20
"""Bytes; results are a few words, the rest goes through the run folders."""

State: TypeAlias = Literal["done", "input", "system", "memory", "mistake", "crash"]
"""How a task ended: `input` is bad input, `system` a full disk or a folder in use, `mistake` an
error of ours, `crash` a worker that died again and again."""


@dataclass(frozen=True)
class Workers:
    """Where scans are worked on, and what each may use."""

    address: str | None = None
    """A running Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT; by default this machine.
    Its nodes see the same files and have lift3d installed."""
    jobs: int | None = None
    """At most this many scans at a time; by default as many as there is room for."""
    cpus: float = 1.0
    """Cores for each scan."""
    gpus: float | None = None
    """GPUs for each scan, 0.5 puts two on one; by default 1 where there are any and a network
    is used."""
    memory: float | None = None
    """Gigabytes set aside for each scan, so that no node takes on too many."""
    retries: int = 2
    """How often a scan is tried again whose worker died."""


@dataclass(frozen=True)
class Ended:
    """What became of one task."""

    state: State
    error: str = ""
    host: str = ""
    attempts: int = 1


def run_all(
    tasks: Mapping[str, Callable[[], None]],
    workers: Workers,
    network: bool = False,
    say: Callable[[str], None] = lambda line: None,
    pulse: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Ended]]:
    """Each task's name and end, as they end. Every task ends exactly once.

    `network` says that tasks use a GPU where there is one; `pulse` is called while waiting.
    When the caller stops early, workers are interrupted and what was started here is ended.
    """
    if workers.jobs is not None and workers.jobs < 1:
        raise InputError(f"jobs is {workers.jobs}; expected 1 or more")
    if workers.retries < 0:
        raise InputError(f"retries is {workers.retries}; expected 0 or more")
    with _connected(workers) as ray:
        remote = ray.remote(_run).options(**_needs(ray, workers, network))
        waiting = deque(tasks)
        running: dict[Any, str] = {}
        attempts: Counter[str] = Counter()
        try:
            while waiting or running:
                while waiting and (workers.jobs is None or len(running) < workers.jobs):
                    name = waiting.popleft()
                    attempts[name] += 1
                    running[remote.remote(tasks[name], workers.cpus)] = name
                ready, _ = ray.wait(list(running), timeout=PULSE)
                for reference in ready:
                    name = running.pop(reference)
                    ended = _end(ray, reference, attempts[name])
                    if ended.state == "crash" and attempts[name] <= workers.retries:
                        say(f"{name}: its worker died, attempt {attempts[name]}; trying again")
                        waiting.append(name)
                    else:
                        yield name, ended
                pulse()
        finally:
            _interrupt(ray, list(running))


def _run(work: Callable[[], None], cpus: float) -> Ended:
    """On the worker: errors come back as words, whatever they are made of."""
    host = _host()
    try:
        _use_cores(max(1, round(cpus)))
        work()
    except (InputError, MissingExtra) as error:
        return Ended("input", str(error), host)
    except OSError as error:
        return Ended("system", str(error), host)
    except MemoryError:
        return Ended("memory", "out of memory: use fewer views or a larger --voxel", host)
    except Exception:
        return Ended("mistake", traceback.format_exc(), host)
    return Ended("done", "", host)


def _end(ray: Any, reference: Any, attempts: int) -> Ended:
    try:
        ended: Ended = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Ended("mistake", str(error), "", attempts)
    except ray.exceptions.RayError as error:
        # Died workers and nodes, memory monitors: Ray would also try again by itself, some of
        # them for ever. Counted here, each is told and bounded.
        return Ended("crash", f"{type(error).__name__}: {error}".strip(), "", attempts)
    return Ended(ended.state, ended.error, ended.host, attempts)


def _interrupt(ray: Any, references: list[Any]) -> None:
    """End what still runs: first as Ctrl-C does, then hard."""
    if not references or not ray.is_initialized():
        return
    for reference in references:
        ray.cancel(reference, force=False)
    _, left = ray.wait(references, num_returns=len(references), timeout=GRACE)
    for reference in left:
        ray.cancel(reference, force=True)


@contextlib.contextmanager
def _connected(workers: Workers) -> Iterator[Any]:
    """Ray, local or joined. What was started here is ended here, and nothing else."""
    # Ray reports its use over the network unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _ray()
    if ray.is_initialized():  # by whoever called us
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if workers.address is None:
        ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
    else:
        if workers.address.startswith("ray://"):
            _client()
        try:
            ray.init(workers.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster at {workers.address} ({str(error).splitlines()[0]}); start one "
                "with `ray start --head`, and set RAY_AUTH_MODE and its token alike everywhere"
            ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _needs(ray: Any, workers: Workers, network: bool) -> dict[str, Any]:
    """Ray's options for a task; InputError where no node could ever take one."""
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    most_gpus = max((each.get("GPU", 0.0) for each in nodes), default=0.0)
    gpus = workers.gpus
    if gpus is None:
        gpus = 1.0 if network and most_gpus else 0.0
    memory = int((workers.memory or 0) * GB)
    wanted = {"CPU": workers.cpus, "GPU": gpus, "memory": memory}
    if not any(all(each.get(k, 0) >= v for k, v in wanted.items()) for each in nodes):
        have = "; ".join(
            f"{each.get('CPU', 0):g} CPUs, {each.get('GPU', 0):g} GPUs, "
            f"{each.get('memory', 0) / GB:.1f} GB"
            for each in nodes
        )
        raise InputError(
            f"a scan needs {workers.cpus:g} CPUs, {gpus:g} GPUs, {memory / GB:g} GB, and no node "
            f"has that (there are: {have}); lower --cpus, --gpus or --memory"
        )
    options = {"num_cpus": workers.cpus, "num_gpus": gpus, "max_retries": 0}
    return options | ({"memory": memory} if memory else {})


def _use_cores(count: int) -> None:
    """Kernels of one scan keep to its cores; Ray tells OpenMP itself."""
    import cv2
    import numba

    numba.set_num_threads(min(count, numba.get_num_threads()))
    cv2.setNumThreads(count)


def _host() -> str:
    return str(_ray().util.get_node_ip_address())


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("lift3d batch needs Ray: pip install 'lift3d[batch]'") from error
    return ray


def _client() -> None:
    """The library that ray:// addresses need beyond Ray itself."""
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "a ray:// address needs Ray's client: pip install 'ray[client]'; or give HOST:PORT"
        ) from error
