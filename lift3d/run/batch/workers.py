"""Run many tasks on Ray, one worker each; tasks of dead workers are retried `retries` times."""

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
"""Seconds between two checks for finished tasks."""
GRACE = 5.0
"""Seconds that an interrupted worker has to clean up before it is killed."""
OBJECT_STORE = 100 * 2**20
"""Bytes; small, because tasks return a short message and write results to the run folders."""

State: TypeAlias = Literal["done", "input", "system", "memory", "mistake", "crash"]
"""How a task ended: `input` is bad input, `system` a full disk or a folder in use, `mistake` a
bug in lift3d, `crash` a worker that died in every attempt."""


@dataclass(frozen=True)
class Workers:
    """Machines that lift the scans, and cores, GPUs and memory per scan."""

    address: str | None = None
    """A running Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT; by default this machine alone.
    All nodes must see the same files and have lift3d installed."""
    jobs: int | None = None
    """Lift at most this many scans at a time; by default as many as the machines allow."""
    cpus: float = 1.0
    """Cores for each scan."""
    gpus: float | None = None
    """GPUs for each scan, 0.5: two share one; by default 1 for networks where there are GPUs."""
    memory: float | None = None
    """Gigabytes to reserve for each scan, so that no node runs too many."""
    retries: int = 2
    """Number of times that a scan is tried again after its worker died."""


@dataclass(frozen=True)
class Ended:
    """How one task ended."""

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
    """Yield each task's name and result when it ends. Every task ends exactly once.

    `network`: whether tasks use a GPU where there is one. `pulse` is called while waiting. When
    the caller stops early, the workers are interrupted and a Ray started here is shut down.
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
    """Run a task on the worker; exceptions come back as text, as not all can be pickled."""
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
        # A worker or node died, or Ray's memory monitor killed it. Ray would retry some of these
        # without limit, so retries are counted here.
        return Ended("crash", f"{type(error).__name__}: {error}".strip(), "", attempts)
    return Ended(ended.state, ended.error, ended.host, attempts)


def _interrupt(ray: Any, references: list[Any]) -> None:
    """Stop running tasks: first as Ctrl-C does, then by killing the worker."""
    if not references or not ray.is_initialized():
        return
    for reference in references:
        ray.cancel(reference, force=False)
    _, left = ray.wait(references, num_returns=len(references), timeout=GRACE)
    for reference in left:
        ray.cancel(reference, force=True)


@contextlib.contextmanager
def _connected(workers: Workers) -> Iterator[Any]:
    """Ray on this machine or a cluster; shut down at the end only if started here."""
    # Ray sends usage statistics over the network by default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _ray()
    if ray.is_initialized():  # by the caller
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
    """Ray's options for a task; InputError where no node has enough for one."""
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
    """Limit the threads of numba and OpenCV to the scan's cores; Ray limits OpenMP itself."""
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
    """Check for the library that ray:// addresses need in addition to Ray."""
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "a ray:// address needs Ray's client: pip install 'ray[client]'; or give HOST:PORT"
        ) from error
