"""What the text of a module says: definitions, the names they use, imports; kept between commands.

Parsing all modules that a lift depends on takes about a second, so what was found is kept in the
user's cache. It counts only for exactly the same bytes, read by the same code and Python.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.storage import atomic, user_cache

FILE = "sources.json"
_unwritten: list[str] = []
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One name of an import statement."""

    level: int
    """Dots before a relative import."""
    module: str
    name: str | None
    """What is imported from the module; None for the module itself."""
    bound: str
    """The name that it gets."""


@dataclass(frozen=True)
class Definition:
    """A function, class or value at the top of a module."""

    digest: str
    names: tuple[str, ...]
    """All names in it, sorted."""
    annotating: tuple[str, ...]
    """Those of them that occur only in annotations of arguments and results."""
    imports: tuple[Import, ...]


@dataclass(frozen=True)
class Parsed:
    """A module by its text alone, without comments, docstrings and layout."""

    digest: str
    imports: tuple[Import, ...]
    """All imports, also inside functions."""
    outside: tuple[Import, ...]
    """Imports outside functions and classes."""
    definitions: dict[str, Definition]


def parsed(module: str, text: bytes) -> Parsed:
    """What a module's source says; ValueError or SyntaxError where it is no Python."""
    digest = blake2b(text + _reader(), digest_size=16).hexdigest()
    known = _kept().get(module)
    if known is None or known[0] != digest:
        known = _kept()[module] = digest, _parse(text)
        _unwritten.append(module)
    return known[1]


def write_parsed() -> None:
    """Keep what was parsed since the last call for other processes."""
    folder = user_cache()
    if not _unwritten or folder is None:
        return
    _unwritten.clear()
    with contextlib.suppress(OSError), atomic(folder / FILE) as part:  # only for speed
        part.write_text(json.dumps(_kept(), default=vars))


@cache
def _kept() -> dict[str, tuple[str, Parsed]]:
    """Digest and content of each module that was parsed before."""
    folder = user_cache()
    if folder is None:
        return {}
    try:
        stored = load_json(folder / FILE, kind=dict)
        return {module: (digest, _of_json(found)) for module, (digest, found) in stored.items()}
    except (InputError, TypeError, ValueError, KeyError, AttributeError):
        return {}  # missing, damaged, or of another version


@cache
def _reader() -> bytes:
    """What else the result depends on."""
    return Path(__file__).read_bytes() + sys.version.encode()


def _of_json(stored: Any) -> Parsed:
    def imports(listed: Any) -> tuple[Import, ...]:
        return tuple(Import(*each) for each in listed)

    definitions = {
        name: Definition(
            each["digest"],
            tuple(each["names"]),
            tuple(each["annotating"]),
            imports(each["imports"]),
        )
        for name, each in stored["definitions"].items()
    }
    return Parsed(
        stored["digest"], imports(stored["imports"]), imports(stored["outside"]), definitions
    )


def _parse(text: bytes) -> Parsed:
    digest = blake2b(digest_size=16)
    imports: list[Import] = []
    outside: list[Import] = []
    definitions: dict[str, Definition] = {}
    with _uncollected():
        for statement in _without_texts(ast.parse(text)):
            nodes = list(ast.walk(statement))
            own = tuple(each for node in nodes for each in _imports(node))
            code = blake2b(ast.dump(statement).encode(), digest_size=16).hexdigest()
            digest.update(code.encode())
            imports += own
            if isinstance(statement, Function | ast.ClassDef):
                definitions[statement.name] = _definition(code, nodes, own)
                continue
            outside += own  # also those under `if` and `try`
            for node in nodes:
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    definitions[node.id] = _definition(code, nodes, own)
    return Parsed(digest.hexdigest(), tuple(imports), tuple(outside), definitions)


def _without_texts(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a module, without docstrings at any depth."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, block, None), list):
                setattr(node, block, [each for each in statements if not _is_text(each)])
    return tree.body


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which looks at every new node again and again."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _definition(code: str, nodes: list[ast.AST], imports: tuple[Import, ...]) -> Definition:
    counts: Counter[str] = Counter()
    for each in nodes:
        if isinstance(each, ast.Name):
            counts[each.id] += 1
        annotations = [each.annotation] if isinstance(each, ast.arg) else []
        annotations += [each.returns] if isinstance(each, ast.FunctionDef) else []
        for annotation in filter(None, annotations):
            counts.subtract(n.id for n in ast.walk(annotation) if isinstance(n, ast.Name))
    annotating = tuple(sorted(name for name, count in counts.items() if count == 0))
    return Definition(code, tuple(sorted(counts)), annotating, imports)


def _is_text(statement: object) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(0, alias.name, None, alias.asname or alias.name.partition(".")[0])
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield Import(node.level, node.module or "", alias.name, alias.asname or alias.name)
