"""The code that a result depends on, and a digest of it, found from the sources.

Imports are followed without running the code. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

from lift3d.scene.parsed import Definition, Import, parsed, write_parsed

OWN = "lift3d"
CHOOSING = ("lift3d", "lift3d.run.settings", "lift3d.datasets.selection", "lift3d.datasets")
"""Modules that choose among backends, readers and views. They import all of them, so they are not
followed; the value and code of the chosen one are in the key of a stage."""
RECORDING = (
    *("lift3d.run.stages", "lift3d.scene.storage", "lift3d.scene.progress", "lift3d.run.record"),
    *("lift3d.scene.fingerprint", "lift3d.scene.contents", "lift3d.scene.sources"),
    "lift3d.scene.parsed",
    *("lift3d.scene.printing", "lift3d.scene.compiled"),
    *("lift3d.scene.workers.job", "lift3d.scene.workers.crew", "lift3d.scene.workers.views"),
    *("lift3d.scene.workers.local", "lift3d.scene.workers.cluster", "lift3d.scene.threads"),
)
"""Modules that affect when and where a stage runs, not its result."""


@dataclass(frozen=True)
class _Source:
    """One module's source, read once."""

    package: str
    """The package that relative imports start from."""
    digest: bytes
    imports: tuple[tuple[str, str | None], ...]
    """Modules, and the name imported from each; None for the whole module."""
    names: dict[str, tuple[str, str | None]]
    """Names bound by imports at the top of the module, and what each stands for."""
    definitions: dict[str, Definition]
    """Functions, classes and values at the top, by name."""


def code_of(*roots: Any) -> str:
    """A digest of the code of functions and classes and of all code they use in their packages.

    Of a root's own module only the definitions it uses count; of every other module, all. A class
    of its own module that only annotates an argument does not count: it was built elsewhere.
    """
    digest = blake2b(digest_size=16)
    for root in sorted({_root(each) for each in roots}):
        digest.update(_code(*root))
    write_parsed()
    return digest.hexdigest()


def modules_of(*roots: Any) -> set[str]:
    """The modules that count as code of these functions and classes."""
    found: set[str] = set()
    for module, name in {_root(each) for each in roots}:
        found |= _reached(module, name)[0] | {module}
    return found


def package_code() -> str:
    """A digest of all modules of lift3d."""
    folder = Path(sys.modules[OWN].__path__[0])
    digest = blake2b(digest_size=16)
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder).with_suffix("").parts
        name = ".".join((OWN, *relative)).removesuffix(".__init__")
        digest.update(_digest_of(name))
    write_parsed()
    return digest.hexdigest()


def _root(value: Any) -> tuple[str, str]:
    """Module and top-level name of a function or class, also of one inside a function."""
    return value.__module__, value.__qualname__.partition(".")[0]


@cache
def _code(module: str, name: str) -> bytes:
    reached, parts = _reached(module, name)
    digest = blake2b(f"{name} {parts}".encode())
    for each in sorted(reached):
        digest.update(_digest_of(each))
    return digest.digest()


def _reached(module: str, name: str) -> tuple[set[str], list[str]]:
    """Modules that a definition uses, and the parts of its own module that it uses."""
    source = _source(module)
    if source is None:
        return set(), []
    if (record := _installed(module)) is not None:
        return _closure(each for each in source.imports if _top(each[0]) == OWN), [record]
    wanted, parts, imports = [name], {}, set()
    while wanted:
        each = wanted.pop()
        node = source.definitions.get(each)
        if node is None or each in parts:
            continue
        parts[each] = node.digest
        imports |= {source.names[name] for name in node.names if name in source.names}
        imports |= {target for _, target in _resolved(node.imports, source.package, module)}
        wanted += set(node.names) - set(node.annotating)
    if not parts:  # made by other means, such as exec: all of the module counts
        imports.add((module, None))
    return _closure(imports), [parts[each] for each in sorted(parts)]


def _closure(imports: Iterable[tuple[str, str | None]]) -> set[str]:
    """All modules reached by imports, except those in `CHOOSING` and `RECORDING`."""
    found: set[str] = set()
    wanted = list(imports)
    while wanted:
        module = _origin(*wanted.pop())
        if module in found or module in CHOOSING or module in RECORDING:
            continue
        source = _source(module)
        if source is not None:
            found.add(module)
            wanted += source.imports
    return found


def _origin(module: str, name: str | None) -> str:
    """The module that defines a name, where a package only re-exports it."""
    source = _source(module)
    if name is None or source is None or source.package != module or name not in source.names:
        return module
    return _origin(*source.names[name])


def _digest_of(module: str) -> bytes:
    source = _source(module)
    return module.encode() + (b"" if source is None else source.digest)


@cache
def _source(module: str) -> _Source | None:
    """The parsed source of a module; None where it has none that can be read."""
    path = _file(module)
    if path is None:
        return None
    try:
        found = parsed(module, path.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    digest = blake2b(found.digest.encode() + _beside(path.parent))
    imports = tuple({target for _, target in _resolved(found.imports, package, module)})
    names = dict(_resolved(found.outside, package, module))
    return _Source(package, digest.digest(), imports, names, found.definitions)


@cache
def _beside(folder: Path) -> bytes:
    """A digest of data files in a package's folder, such as a trained model: they count as code."""
    digest = blake2b()
    if (folder / "__init__.py").is_file():
        for each in sorted(folder.iterdir()):
            code = each.suffix in (".py", ".pyc")
            if each.is_file() and not code and not each.name.startswith("."):
                digest.update(each.read_bytes())
    return digest.digest()


def _resolved(
    imports: Iterable[Import], package: str, module: str
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """The names that imports of a module bind, each with what it stands for."""
    for each in imports:
        origin = each.module
        if each.level:
            above = package.split(".")[: len(package.split(".")) - each.level + 1]
            origin = ".".join([*above, *([origin] if origin else [])])
        if not _followed(origin, module):
            continue
        if each.name is None or each.name == "*":
            yield each.bound, (origin, None)
        else:
            inner = f"{origin}.{each.name}"
            yield each.bound, (inner, None) if _file(inner) else (origin, each.name)


def _followed(name: str, importer: str) -> bool:
    """Whether a module belongs to lift3d or to the importer's own package."""
    return _top(name) in (OWN, _top(importer))


def _top(module: str) -> str:
    return module.partition(".")[0]


@cache
def _installed(module: str) -> str | None:
    """The RECORD of an installed package other than lift3d: its files with their hashes.

    Hashing all of NumPy instead takes seconds. The Python version for the standard library; None
    for a module that is not installed.
    """
    path, top = _file(module), _top(module)
    if path is None or top == OWN:
        return None
    if path.is_relative_to(sysconfig.get_path("stdlib")) and "site-packages" not in path.parts:
        return sys.version
    if not any(path.is_relative_to(sysconfig.get_path(each)) for each in ("purelib", "platlib")):
        return None
    names = metadata.packages_distributions().get(top, [])
    return "".join(metadata.distribution(name).read_text("RECORD") or "" for name in sorted(names))


@cache
def _file(module: str) -> Path | None:
    """The source file of a module, found without importing it."""
    top, *inner = module.split(".")
    loaded = sys.modules.get(top)
    if loaded is None:
        return None
    folders = getattr(loaded, "__path__", None)
    if folders is None or not inner:
        given = getattr(loaded, "__file__", None)
        path = Path(given) if given and not inner else None
        return path if path is not None and path.suffix == ".py" else None
    for folder in map(Path, folders):
        place = folder.joinpath(*inner)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None
