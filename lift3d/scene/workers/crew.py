"""Hand out items to workers and take their answers; items of dead workers are handed out again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

from lift3d.scene.errors import InputError
from lift3d.scene.workers.job import Answer, Job

PULSE = 0.5
"""Seconds between two looks at the workers while nothing comes back."""
GRACE = 5.0
"""Seconds that an interrupted worker has to clean up before it is killed."""
RETRIES = 2
"""Number of times that an item is handed out again after its worker died."""
PATIENCE = 60.0
"""Seconds without any worker after which that is said."""


@dataclass(frozen=True)
class Ready:
    """A worker has started."""

    worker: int
    host: str


@dataclass(frozen=True)
class Done:
    """A worker has answered an item."""

    worker: int
    item: int
    data: bytes


@dataclass(frozen=True)
class Died:
    """A worker has ended, by itself or killed."""

    worker: int
    reason: str


Event: TypeAlias = Ready | Done | Died


@dataclass(frozen=True)
class Share:
    """The part of a machine that one worker gets."""

    cores: float = 1.0
    gpus: float | None = None
    """None leaves the environment as it is."""
    memory: float = 0.0
    """Gigabytes."""


@runtime_checkable
class Crew(Protocol):
    """Workers of one kind. Numbers of workers are the caller's; a dead one may be started again."""

    share: Share

    def most(self) -> int:
        """The number of workers that there is room for now; 1 or more."""
        ...

    def start(self, worker: int) -> None:
        """Start a worker; `Ready` or `Died` follows."""
        ...

    def give(self, worker: int, job: Job, items: Sequence[tuple[int, bytes]]) -> None:
        """Hand out items, to be done in their order; for each a `Done` follows, or once `Died`."""
        ...

    def wait(self, timeout: float) -> list[Event]:
        """What has happened; waits for the first event at most `timeout` seconds."""
        ...

    def send(self, value: object, what: str) -> bytes:
        """The pickled value; CannotSend where workers could not use it."""
        ...

    def close(self, busy: Sequence[int]) -> None:
        """End all workers. Those that are `busy` are interrupted first, as by Ctrl-C."""
        ...


class Staff:
    """The workers of a crew that are started, and the items that each has in hand."""

    def __init__(self, crew: Crew, most: int | None, say: Callable[[str], None]) -> None:
        """`most`: start at most so many workers, where there is room for more."""
        self.crew = crew
        self.say = say
        self._most = most
        self._hosts: dict[int, str | None] = {}
        """The node of each started worker; None until it is ready."""
        self._failed_starts = 0
        self._since = time.monotonic()
        self.hands: dict[int, deque[int]] = {}
        """Items in hand of each ready worker, in the order in which they are answered."""

    def size(self) -> int:
        """The number of workers there may be."""
        room = self.crew.most()
        return room if self._most is None else min(room, self._most)

    def grow(self, wanted: int) -> None:
        """Start workers until there are `wanted`, or as many as may be."""
        for worker in range(min(wanted, self.size())):
            if worker not in self._hosts:
                self._hosts[worker] = None
                self.crew.start(worker)
        if not self.hands and time.monotonic() - self._since > PATIENCE:
            self._since = time.monotonic()
            self.say("no worker has started yet; is there room for one?")

    def events(self, timeout: float) -> list[Event]:
        """What has happened; a worker that is ready gets empty hands."""
        found = self.crew.wait(timeout)
        for event in found:
            if isinstance(event, Ready):
                self._hosts[event.worker] = event.host
                self._failed_starts = 0
                self.hands[event.worker] = deque()
            elif isinstance(event, Died) and self._hosts.pop(event.worker, None) is None:
                self._failed_starts += 1
                if self._failed_starts > RETRIES:
                    raise InputError(f"no worker can be started: {event.reason}")
        return found

    def host(self, worker: int) -> str:
        """The node of a worker that is ready."""
        return self._hosts.get(worker) or ""

    def close(self) -> None:
        """End all workers."""
        self.crew.close([worker for worker, items in self.hands.items() if items])


class Round:
    """One job over a sequence of items: each is answered once, whoever dies meanwhile."""

    def __init__(
        self,
        staff: Staff,
        job: Job,
        items: Sequence[Any],
        names: Sequence[str],
        run: int = 1,
        retries: int = RETRIES,
    ) -> None:
        """`run`: most items handed out together. A worker that works on its last item is then
        given more; with `run` 1 it gets one item at a time.
        """
        self._staff, self._job, self._items, self._names = staff, job, items, names
        self._run, self._retries = run, retries
        self._waiting: deque[int] = deque(range(len(items)))
        self._attempts: Counter[int] = Counter()

    @property
    def over(self) -> bool:
        """Whether every item has been answered."""
        return not self._waiting and not any(self._staff.hands.values())

    def step(self, before: int | None = None, timeout: float = PULSE) -> list[tuple[int, Answer]]:
        """Hand out items, those with an index below `before`, and return what came back."""
        staff, answers = self._staff, []
        staff.grow(len(self._waiting) + sum(map(len, staff.hands.values())))
        self._hand_out(before)
        for event in staff.events(timeout):
            if isinstance(event, Done):
                staff.hands[event.worker].remove(event.item)
                answer = Answer(event.data, staff.host(event.worker))
                answers.append((event.item, replace(answer, attempts=self._attempt(event.item))))
            elif isinstance(event, Died):
                answers += self._again(event)
        return answers

    def _attempt(self, item: int) -> int:
        return self._attempts[item] + 1

    def _hand_out(self, before: int | None) -> None:
        hands = self._staff.hands
        for worker in sorted(hands, key=lambda worker: len(hands[worker])):
            if len(hands[worker]) > (self._run > 1):
                continue
            # Shorter runs towards the end, so that all workers end together.
            length = min(self._run, max(1, len(self._waiting) // (2 * self._staff.size())))
            some: list[int] = []
            while self._waiting and len(some) < length:
                if before is not None and self._waiting[0] >= before:
                    break
                some.append(self._waiting.popleft())
            if some:
                hands[worker].extend(some)
                send = self._staff.crew.send
                packed = [(each, send(self._items[each], self._names[each])) for each in some]
                self._staff.crew.give(worker, self._job, packed)

    def _again(self, died: Died) -> list[tuple[int, Answer]]:
        """Take back the items of a dead worker; the one that it worked on counts an attempt."""
        items = self._staff.hands.pop(died.worker, None)
        if not items:
            return []
        first = items[0]
        self._attempts[first] += 1
        if self._attempts[first] > self._retries:
            items.popleft()
            self._waiting.extendleft(reversed(items))
            return [(first, Answer(attempts=self._attempts[first], lost=died.reason))]
        self._waiting.extendleft(reversed(items))
        self._staff.say(
            f"{self._names[first]}: its worker died, attempt {self._attempts[first]} "
            f"({died.reason}); trying again"
        )
        return []
