"""Run tasks on the GPUs or cores of this machine; the next task goes to the first free one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")


def free_devices(network: bool, workers: int | None, tasks: int) -> list[str]:
    """A device for each worker: the GPUs present in turn, or the CPU for each.

    By default one worker per GPU where there is a `network` to run, else one per core; at most
    `tasks`, at least 1.
    """
    gpus: list[str] = []
    if network:
        import torch

        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    count = workers or len(gpus) or os.cpu_count() or 1
    names = gpus or ["cpu"]
    return [names[i % len(names)] for i in range(max(1, min(count, tasks)))]


def on_devices(
    tasks: Mapping[str, Callable[[str], T]], devices: Sequence[str]
) -> Iterator[tuple[str, T | Exception]]:
    """Call each task with its device; yields the result or the exception when it ends.

    Each device has its own process, so tasks must be picklable.
    """
    context = multiprocessing.get_context("spawn")  # a fork cannot use CUDA
    free: Any = context.Queue()
    for device in devices:
        free.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    with ProcessPoolExecutor(len(devices), context, _begin, (free, threads)) as pool:
        running = {pool.submit(_on_own_device, task): name for name, task in tasks.items()}
        for future in as_completed(running):
            problem = future.exception()
            if problem is not None and not isinstance(problem, Exception):
                raise problem
            yield running[future], problem or future.result()


def one_by_one(
    tasks: Mapping[str, Callable[[str], T]], device: str
) -> Iterator[tuple[str, T | Exception]]:
    """The same as `on_devices`, in this process."""
    for name, task in tasks.items():
        try:
            yield name, task(device)
        except Exception as error:
            yield name, error


_own_device = "cpu"


def _begin(free: Any, threads: int) -> None:
    """Give a new worker its device and its share of the cores."""
    global _own_device
    _own_device = free.get()
    import cv2
    import numba
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(threads)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    threadpool_limits(threads)
    if _own_device != "cpu":
        import torch

        torch.cuda.set_device(_own_device)


def _on_own_device(task: Callable[[str], T]) -> T:
    return task(_own_device)
