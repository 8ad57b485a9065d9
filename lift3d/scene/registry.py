"""Backends by kind and name: those of the package, registered ones and installed plug-ins.

    KINDS["segmentation"]["regions"]        # settings of a backend, by its name
    register("segmentation", "mine", Mine)  # or @register("segmentation", "mine") above the class

An installed package offers backends by entry points in the group `lift3d.KIND`. Only names are
read at first; a module is imported when its backend is used, so that a broken one does not affect
other backends.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any, TypeVar

from lift3d.scene.errors import InputError, did_you_mean

T = TypeVar("T")
log = logging.getLogger(__name__)


class Registry(Mapping[str, Any]):
    """The backends of one kind by name: the package's in their order, then all others."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._own: dict[str, Any] = {}
        self._added: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}
        self._base: type | None = None
        self._ignored: set[str] = set()
        """Names of plug-ins that were reported as ignored."""

    def built_in(self, backends: Mapping[str, Any], base: type) -> Registry:
        """Set the package's own backends and the type that every backend must have.

        `base` is the base class of the settings, or the type of the backend objects.
        """
        self._own, self._base = dict(backends), base
        return self

    def add(self, name: str, backend: Any) -> None:
        """Add a backend in this process. InputError where the name is taken."""
        if name in self._own or self._added.get(name, backend) is not backend:
            raise InputError(f"there is a {self.kind}:{name} already; give yours another name")
        if self._base is not None:
            self._checked(name, backend, "this process")
        self._added[name] = backend

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the package's backends."""
        return tuple(self._own)

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of all other backends; imports nothing."""
        found = dict.fromkeys((*self._added, *sorted(self._points())))
        for name in found:
            if name in self._own and name not in self._ignored:
                self._ignored.add(name)
                log.warning(
                    "%s:%s of the package %s is ignored: lift3d has a backend of that name; its "
                    "author should give it another name",
                    self.kind,
                    name,
                    ", ".join(_packages(self._points()[name])),
                )
        return tuple(name for name in found if name not in self._own)

    def is_imported(self, name: str) -> bool:
        """Whether the backend's module is imported already."""
        return any(name in each for each in (self._own, self._added, self._loaded))

    def find(self, name: str) -> Any:
        """The backend; InputError with the nearest name where there is none."""
        if name not in self:
            raise InputError(did_you_mean(name, self, self.what))
        return self[name]

    def name_of(self, backend: Any) -> str | None:
        """The name of a backend; None where it has none."""
        for known in (self._own, self._added, self._loaded):
            for name, each in known.items():
                if each is backend:
                    return name
        where = f"{getattr(backend, '__module__', '')}:{getattr(backend, '__qualname__', '')}"
        for name, points in self._points().items():
            if name not in self._own and any(point.value == where for point in points):
                return name
        return None

    @property
    def what(self) -> str:
        """The word for such a backend in a message."""
        return {"reader": "reader", "export": "format"}.get(self.kind, f"{self.kind} backend")

    def __getitem__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        if name in self._added:  # perhaps added before `built_in` set the type to check
            return self._checked(name, self._added[name], "this process")
        if name in self._loaded:
            return self._loaded[name]
        self._loaded[name] = self._load(name, self._points()[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._added or name in self._points()

    def __iter__(self) -> Iterator[str]:
        return iter((*self.own, *self.plugins))

    def __len__(self) -> int:
        return len(self.own) + len(self.plugins)

    def _points(self) -> dict[str, list[metadata.EntryPoint]]:
        return _entry_points(f"lift3d.{self.kind}", tuple(sys.path))

    def _load(self, name: str, points: list[metadata.EntryPoint]) -> Any:
        packages = _packages(points)
        if len(points) > 1:
            raise InputError(
                f"{self.kind}:{name} is offered by more than one package "
                f"({', '.join(packages)}); uninstall all but one"
            )
        try:
            backend = points[0].load()
        except Exception as error:  # another package's module may raise any exception
            raise InputError(
                f"{self.kind}:{name} of the package {packages[0]} cannot be loaded "
                f"({type(error).__name__}: {error}); update that package or uninstall it"
            ) from error
        return self._checked(name, backend, f"the package {packages[0]}")

    def _checked(self, name: str, backend: Any, origin: str) -> Any:
        assert self._base is not None, f"lift3d's own backends of kind {self.kind} are not imported"
        fits = isinstance(backend, self._base) or (
            isinstance(backend, type) and self._base in backend.__mro__
        )
        if not fits or (isinstance(backend, type) and not is_dataclass(backend)):
            kind = self._base.__name__
            raise InputError(
                f"{self.kind}:{name} of {origin} is {backend!r}; expected a {kind}, "
                "settings as a frozen dataclass that is derived from it (docs/backends.md)"
            )
        return backend


def _packages(points: list[metadata.EntryPoint]) -> list[str]:
    return sorted({point.dist.name if point.dist else "?" for point in points})


@lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, list[metadata.EntryPoint]]:
    """The entry points of a group by name; `path` is the key of the cache."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    for point in metadata.entry_points(group=group):
        found.setdefault(point.name, []).append(point)
    return found


KINDS = {
    kind: Registry(kind)
    for kind in (
        *("reader", "reconstruction", "fusion", "matching", "segmentation", "tracking"),
        "export",
    )
}
"""The kinds of backends; each package adds its own when it is imported."""


def register(kind: str, name: str, backend: T | None = None) -> Any:
    """Add a backend under a name, as if it were one of lift3d's own.

    `backend` is the class of its settings, or an export's `Format`; without one the result is a
    decorator. InputError for an unknown kind, a name that is taken, or a class of another kind.

    >>> register("segmentaton", "mine", int)
    Traceback (most recent call last):
    ...
    lift3d.scene.errors.InputError: unknown kind of backend 'segmentaton'; did you mean ...
    """
    if kind not in KINDS:
        raise InputError(did_you_mean(kind, KINDS, "kind of backend"))
    if backend is not None:
        KINDS[kind].add(name, backend)
        return backend

    def decorate(decorated: T) -> T:
        KINDS[kind].add(name, decorated)
        return decorated

    return decorate
