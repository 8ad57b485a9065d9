"""Keep this process and its browser before other jobs of the machine, so that times mean something.

A nice value alone does not do it: Chromium sets those of its threads itself, and the threads that
draw without a graphics card get 0. Linux; a negative value needs the right to it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

EVERY = 1.0
"""Seconds after which new threads are looked for."""


def prefer(nice: int) -> None:
    """Give this process, those it starts, and all of their threads a nice value from now on."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)  # told at once where it is not allowed

    def again_and_again() -> None:
        while True:
            for thread in _threads(os.getpid()):
                try:
                    os.setpriority(os.PRIO_PROCESS, thread, nice)
                except ProcessLookupError:
                    continue  # it has ended
            time.sleep(EVERY)

    threading.Thread(target=again_and_again, daemon=True).start()


def _threads(process: int) -> list[int]:
    """The threads of a process and of all that it has started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [process]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        found += [int(each.name) for each in Path(f"/proc/{one}/task").glob("*")]
    return found
