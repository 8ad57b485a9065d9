"""Cache of image embeddings: the last few in memory, optionally all on disk."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.scene import Image
from lift3d.scene.errors import InputError, MissingExtra

log = logging.getLogger(__name__)
SUFFIX = ".embedding"
"""Suffix of the cached files; other files in the folder are ignored."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """Where image embeddings are cached: 4 MB an image for SAM, 16 MB for SAM 2."""

    memory: int = 4
    """Number of images whose embeddings are kept in memory."""
    folder: Path | None = None
    """Folder that also keeps them, for other runs over the same pictures; by default none."""
    gigabytes: float = 10.0
    """Maximum size of that folder; the least recently used files are removed first."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The encoder's output for one image, and the placement of the image in the input square."""

    tensors: Mapping[str, Any]
    """Tensors by name, as the network's decoder needs them."""
    height: int
    """Height of the image in pixels."""
    width: int
    side: int
    """Side of the square input of the network, in pixels."""
    padded: tuple[int, int] | None
    """Height and width of the image in the square's upper left corner, the rest being padding;
    None where the image was stretched to the full square."""

    def on(self, device: Any) -> Embedding:
        """The same embedding with its tensors on a device."""
        tensors = {name: each.detach().to(device) for name, each in self.tensors.items()}
        return replace(self, tensors=tensors)

    @property
    def fitted(self) -> tuple[int, int]:
        """Height and width of the image in the square."""
        return (self.side, self.side) if self.padded is None else self.padded


class EmbeddingCache:
    """Embeddings by the content of the image and the identity of the network."""

    def __init__(self, config: EmbeddingConfig, identity: Callable[[], str]) -> None:
        """`identity` returns a text unique to the network; called once, and only with a folder."""
        if config.memory < 1 or config.gigabytes <= 0:
            raise InputError(
                "embeddings need memory >= 1 and gigabytes > 0, got "
                f"{config.memory} and {config.gigabytes:g}"
            )
        if config.folder is not None and config.folder.exists() and not config.folder.is_dir():
            raise InputError(f"{config.folder} is a file; embeddings are kept in a folder")
        self._config = config
        self._identity = identity
        self._known: str | None = None
        self._held: OrderedDict[str, Embedding] = OrderedDict()

    def get(self, image: Image, compute: Callable[[Image], Embedding], device: Any) -> Embedding:
        """The image's embedding, on `device`; `compute` is called where it is not cached."""
        key = self._key(image)
        found = self._held.pop(key, None) or self._read(key, device)
        if found is None:
            found = compute(image)
            self._write(key, found)
        self._held[key] = found
        while len(self._held) > self._config.memory:
            self._held.popitem(last=False)
        return found

    def _key(self, image: Image) -> str:
        if self._config.folder is not None and self._known is None:
            self._known = self._identity()
        content = hashlib.blake2b(f"{self._known} {image.shape}".encode(), digest_size=16)
        content.update(np.ascontiguousarray(image).data)
        return content.hexdigest()

    def _path(self, key: str) -> Path | None:
        return None if self._config.folder is None else self._config.folder / f"{key}{SUFFIX}"

    def _read(self, key: str, device: Any) -> Embedding | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        library = _safetensors()
        try:
            tensors = library.torch.load_file(path)
            height, width, side, *padded = tensors.pop("layout").tolist()
            os.utime(path)  # marks it as recently used
        except (OSError, KeyError, ValueError, library.SafetensorError) as error:
            log.warning("%s cannot be read (%s); computed again", path, error)
            return None
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        return Embedding(on_device, height, width, side, (padded[0], padded[1]) if padded else None)

    def _write(self, key: str, embedding: Embedding) -> None:
        """Write it to disk and keep to the budget. Errors of the disk are only logged."""
        path = self._path(key)
        if path is None:
            return
        import torch

        layout = [embedding.height, embedding.width, embedding.side, *(embedding.padded or ())]
        tensors = {
            name: each.detach().cpu().contiguous() for name, each in embedding.tensors.items()
        }
        # Unique to this process: several may write to the same folder.
        part = path.with_name(f".{key}.{os.getpid()}{SUFFIX}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _safetensors().torch.save_file(tensors | {"layout": torch.tensor(layout)}, part)
            os.replace(part, path)
            self._evict(path.parent)
        except OSError as error:
            log.warning("the embedding is not kept in %s: %s", path.parent, error)
        finally:
            part.unlink(missing_ok=True)

    def _evict(self, folder: Path) -> None:
        """Remove the least recently used files until the rest is within the budget."""
        files = []
        for path in folder.glob(f"*{SUFFIX}"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another process removed it
            files.append((stat.st_mtime_ns, stat.st_size, path))
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= self._config.gigabytes * 1e9:
                break
            path.unlink(missing_ok=True)
            left -= size


def _safetensors() -> Any:
    """The library safetensors; MissingExtra without it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtra(
            "keeping embeddings needs safetensors, which is not installed: "
            "pip install 'lift3d[sam]'"
        ) from error
    return safetensors
