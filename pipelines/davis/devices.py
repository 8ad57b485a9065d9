"""Tasks on the GPUs or cores of this machine: the next goes to the first that is free."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")


def free_devices(network: bool, workers: int | None, tasks: int) -> list[str]:
    """A device for each worker: the GPUs present in turn, or the CPU for each.

    By default a worker per GPU where there is a `network` to run, else per core; never more
    than `tasks`, nor fewer than one.
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
    """What each task gives when told its device, or why it failed; as they end.

    Each device has a process of its own, so tasks must pickle.
    """
    context = multiprocessing.get_context("spawn")  # a fork cannot use CUDA
    hand_out: Any = context.Queue()
    for device in devices:
        hand_out.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    with ProcessPoolExecutor(len(devices), context, _begin, (hand_out, threads)) as pool:
        running = {pool.submit(_on_own_device, task): name for name, task in tasks.items()}
        for future in as_completed(running):
            problem = future.exception()
            if problem is not None and not isinstance(problem, Exception):
                raise problem
            yield running[future], problem or future.result()


def one_by_one(
    tasks: Mapping[str, Callable[[str], T]], device: str
) -> Iterator[tuple[str, T | Exception]]:
    """The same in this process."""
    for name, task in tasks.items():
        try:
            yield name, task(device)
        except Exception as error:
            yield name, error


_own_device = "cpu"


def _begin(hand_out: Any, threads: int) -> None:
    """Each worker takes its device once, and its share of the cores."""
    global _own_device
    _own_device = hand_out.get()
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
