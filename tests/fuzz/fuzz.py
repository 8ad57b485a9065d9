"""Read thousands of damaged inputs, and fail where lift3d answers with anything but its own errors.

    python tests/fuzz/fuzz.py --inputs 3000 --seed 0

An input is a small sample of some kind (`samples.py`) with one file damaged (`mutations.py`); seed
and number give it again: `--only 1234`. Inputs are read in forked child processes. What counts as
a fault: an exception that is not InputError, FrameError or MissingExtra; an exit status other than
0 and 2; more than `SECONDS`; more than `MEMORY`; a crash; a file written, renamed or removed
outside the input's folder; a program started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import numpy as np  # noqa: E402
from mutations import mutate, pick  # noqa: E402
from samples import MODELS, SAMPLES, Sample  # noqa: E402, F401

from lift3d.scene.errors import InputError, MissingExtra  # noqa: E402

SECONDS = 60.0
"""Most time for one input; most take 0.05 s, and the machine may be busy."""
MEMORY = 2 << 30
"""Most resident bytes; the address space may be larger, as threads reserve theirs."""
SPACE = 8 << 30
WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"}


class Stray(BaseException):
    """A file outside the input's folder, or a program; no `except Exception` catches it."""


allowed: list[str] = []
"""Folders that the process may write to."""


def watch(event: str, arguments: tuple) -> None:
    """Audit hook: refuse writing outside `allowed`, and starting programs."""
    if not allowed:
        return
    if event in STARTS:
        raise Stray(f"{event} {arguments[:2]}")
    if event == "open" and isinstance(arguments[0], str | bytes):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            inside(arguments[0])
    elif event in WRITES:
        # A name that is relative to an open folder, as shutil.rmtree uses them, is not followed.
        opened = isinstance(arguments[-1], int) and arguments[-1] >= 0
        for each in arguments[:2]:
            if isinstance(each, str | bytes) and (os.path.isabs(each) or not opened):
                inside(each)


def inside(name: str | bytes) -> None:
    path = os.path.abspath(os.fsdecode(name))
    if "__pycache__" not in path and not path.startswith(("/dev/", *allowed)):
        raise Stray(f"wrote {path}")


def prepare(home: Path) -> None:
    """Write the samples, in a process of their own: their libraries start threads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # lifts print tables
    for name, sample in SAMPLES.items():
        (home / name).mkdir(parents=True)
        sample.make(home / name)


def forked(work: object) -> int:
    """The id of a new process that calls `work` and ends."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()  # type: ignore[operator]
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def one(number: int, seed: int, home: Path, place: Path, say: Callable[[str], None] = print) -> str:
    """Read one input; what was done to it. Raises what the reader raises."""
    rng = np.random.default_rng([seed, number])
    weights = np.array([each.weight for each in SAMPLES.values()])
    name = list(SAMPLES)[int(rng.choice(len(SAMPLES), p=weights / weights.sum()))]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(home / name, place / name, copy_function=os.link, symlinks=True)
    files = [each for each in sorted((place / name).rglob("*")) if each.is_file()]
    kinds: dict[object, list[Path]] = {}
    for each in files:
        if each.relative_to(place / name).as_posix().startswith(SAMPLES[name].below):
            # Of many pictures as many inputs as of one JSON.
            kind = each if each.suffix == ".json" else (each.parent, each.suffix)
            kinds.setdefault(kind, []).append(each)
    changed = pick(rng, pick(rng, list(kinds.values())))
    done = f"{name}: {changed.relative_to(place / name)}: "
    try:
        done += mutate(changed, rng, files)
        while changed.is_file() and not changed.is_symlink() and rng.random() < 0.2:
            done += ", " + mutate(changed, rng, files)
        caches = [f"{tempfile.gettempdir()}/{each}" for each in ("numba", "torchinductor_")]
        say(done)
        allowed[:] = [str(place), *caches]
        SAMPLES[name].read(place / name, changed, rng)
    except (InputError, MissingExtra):
        pass
    except BaseException as error:
        error.add_note(done)
        raise
    finally:
        allowed.clear()
    return done


def child(numbers: list[int], seed: int, home: Path, place: Path, tell: int) -> None:
    """Read the inputs `numbers`; a line for each begin and end goes into the pipe `tell`."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place.parent)
    output = os.open(place.parent / "output.txt", os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.addaudithook(watch)

    def say(*words: object) -> None:
        data = pickle.dumps(words)
        os.write(tell, len(data).to_bytes(4, "little") + data)

    for number in numbers:
        say("begin", number, "?")
        os.ftruncate(output, 0)
        os.lseek(output, 0, os.SEEK_SET)
        fault = ""
        try:
            done = one(number, seed, home, place, lambda done, n=number: say("begin", n, done))
        except BaseException as error:
            done = getattr(error, "__notes__", ["?"])[-1]
            shown = Path(f"/proc/self/fd/{output}").read_bytes()[-300:].decode(errors="replace")
            fault = f"{traceback.format_exc()}{shown}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say("end", number, done, fault, memory)
        if memory > MEMORY:
            return  # another process goes on, whose peak is its own


class Worker:
    """One child process, started again where it was killed."""

    def __init__(self, index: int, numbers: list[int], seed: int, home: Path) -> None:
        self.index, self.numbers, self.seed, self.home = index, numbers, seed, home
        self.faults: list[tuple[int, str, str]] = []
        self.done: list[str] = []
        self.peak, self.hangs = 0, 0
        self.process, self.doing = 0, "?"
        self.start()

    def start(self) -> None:
        self.pipe, tell = os.pipe()
        place = self.home.parent / f"worker{self.index}" / "input"
        args = (list(self.numbers), self.seed, self.home, place, tell)
        self.process = forked(lambda: child(*args))
        os.close(tell)
        self.number, self.since = -1, time.monotonic()

    def step(self) -> None:
        """Take what the child says; end it where it hangs, go on where it has ended."""
        if select.select([self.pipe], [], [], 0.05)[0]:
            size = os.read(self.pipe, 4)
            if size:
                data = b""
                while len(data) < int.from_bytes(size, "little"):
                    data += os.read(self.pipe, int.from_bytes(size, "little") - len(data))
                self.heard(*pickle.loads(data))
                return
            os.waitpid(self.process, 0)
            os.close(self.pipe)
            if self.number >= 0:
                self.faults.append((self.number, self.doing, "the process died"))
                self.numbers.remove(self.number)
            if self.numbers:
                self.start()
        elif time.monotonic() - self.since > SECONDS * (1 if self.done else 5):
            if self.number >= 0:
                self.hangs += 1
                self.faults.append((self.number, self.doing, f"took more than {SECONDS:.0f} s"))
                self.numbers.remove(self.number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            self.number = -1

    def heard(
        self, what: str, number: int, done: str = "", fault: str = "", memory: int = 0
    ) -> None:
        self.since = time.monotonic()
        if what == "begin":
            self.number, self.doing = number, done
            return
        self.number = -1
        self.numbers.remove(number)
        self.done.append(done)
        if memory > MEMORY:
            fault += f"{memory >> 20} MB resident"
        self.peak = max(self.peak, memory)
        if fault:
            self.faults.append((number, done, fault))


def signature(fault: str) -> str:
    """The last line of lift3d in a traceback, and the exception."""
    lines = fault.splitlines()
    ours = [
        line.strip() for line in lines if "/lift3d/" in line and line.strip().startswith("File")
    ]
    raised = [line for line in lines if line and not line.startswith((" ", "Traceback"))]
    return f"{ours[-1] if ours else ''} {raised[0] if raised else fault}"[:300]


def fuzz(inputs: list[int], seed: int, workers: int) -> int:
    """Read the inputs; print what was found; the number of faults."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lift3d-fuzz-") as place:
        home = Path(place) / "samples"
        made = forked(lambda: prepare(home))
        if os.waitpid(made, 0)[1]:
            print("the samples could not be made")
            return 1
        ready = time.monotonic()
        running = [Worker(i, inputs[i::workers], seed, home) for i in range(workers)]
        while any(each.numbers for each in running):
            for each in running:
                if each.numbers:
                    each.step()
    faults = sorted(fault for each in running for fault in each.faults)
    kinds: dict[str, list[tuple[int, str, str]]] = {}
    for fault in faults:
        kinds.setdefault(signature(fault[2]), []).append(fault)
    for kind, several in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(several)} x {kind}")
        for number, done, _ in several[:4]:
            print(f"    {number}: {done}")
        print("\n".join(several[0][2].splitlines()[-14:]))
    counts = Counter(done.partition(":")[0] for each in running for done in each.done)
    print(f"\nby sample: {dict(counts.most_common())}")
    print(
        f"{len(inputs)} inputs of seed {seed}: {len(faults)} faults ({len(kinds)} kinds), "
        f"{sum(each.hangs for each in running)} hangs, peak memory "
        f"{max(each.peak for each in running) >> 20} MB, samples {ready - began:.0f} s, "
        f"inputs {time.monotonic() - ready:.0f} s"
    )
    return len(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", action="store_true", help="weights and model folders instead")
    parser.add_argument("--only", type=int, nargs="*", help="the numbers of single inputs")
    given = parser.parse_args()
    if given.models:
        SAMPLES.clear()
        SAMPLES.update(MODELS)
    numbers = given.only or list(range(given.inputs))
    found = [fuzz(list(numbers), given.seed + i, given.workers) for i in range(given.seeds)]
    sys.exit(min(sum(found), 1))
