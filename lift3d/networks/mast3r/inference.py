"""Run the network on pairs of pictures: every picture is encoded once, pairs in batches."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from lift3d.networks import Precision
from lift3d.networks.device import choose_device, choose_precision, out_of_memory
from lift3d.networks.mast3r.heads import Decoded
from lift3d.networks.mast3r.network import Encoded, Mast3r
from lift3d.networks.mast3r.pairstore import PairStore
from lift3d.networks.mast3r.preprocess import Prepared
from lift3d.scene.errors import InputError

Pair: TypeAlias = tuple[int, int]
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Wanted:
    """The outputs to compute of views 1 and 2; others are not computed."""

    points: tuple[int, ...] = (1, 2)
    """Views whose points and confidence are computed."""
    descriptors: tuple[int, ...] = (1, 2)
    """Views whose descriptors and confidence are computed."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a pair's arrays, as in `PairStore`."""
        return tuple(
            f"{name}_{view}"
            for views, names in (
                (self.points, ("pts3d", "conf")),
                (self.descriptors, ("desc", "desc_conf")),
            )
            for view in views
            for name in names
        )


@dataclass(frozen=True, eq=False)
class ViewPrediction:
    """The prediction for the pixels of one view of a pair; None where not computed."""

    pts3d: Float32[np.ndarray, "height width 3"] | None = None
    """In the camera frame of the pair's first view."""
    conf: Float32[np.ndarray, "height width"] | None = None
    """1 and above."""
    desc: Float32[np.ndarray, "height width channels"] | None = None
    """Unit length."""
    desc_conf: Float32[np.ndarray, "height width"] | None = None
    """0 and above."""


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """The prediction for an ordered pair."""

    first: ViewPrediction
    second: ViewPrediction

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> PairPrediction:
        """From arrays named as in `Wanted.names`."""
        views = [
            ViewPrediction(
                **{
                    name.removesuffix(suffix): array
                    for name, array in arrays.items()
                    if name.endswith(suffix)
                }
            )
            for suffix in ("_1", "_2")
        ]
        return PairPrediction(*views)


@dataclass(frozen=True)
class PredictorConfig:
    """Device, precision and memory of the network."""

    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1', ...; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of the transformer; auto is bfloat16 with hardware support, else float32."""
    batch: int | None = None
    """Pictures, or pairs, at a time; None is 8 on a GPU and 1 on a CPU. Limits GPU memory."""
    encodings_bytes: int = 2**32
    """Memory for encodings (3 MB a picture at 512x384); more go to temporary files."""
    branch_bytes: int = 2**30
    """Device memory for the encoder's branch of the points head (13 MB a picture and view)."""

    def build(self, model: Mast3r) -> Predictor:
        """The predictor with these settings."""
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch is {self.batch}; it must be 1 or more")
        return Predictor(model, self)


class Predictor:
    """Runs the network on pairs. It moves the given model and changes its precision."""

    def __init__(self, model: Mast3r, config: PredictorConfig = PredictorConfig()) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.batch = config.batch or (8 if self.device.type == "cuda" else 1)
        """Pictures or pairs at a time; halved whenever memory runs out."""
        self.model = model.to(self.device).compute_in(self.precision)

    def predict(
        self,
        images: Sequence[Prepared],
        pairs: Iterable[Pair],
        wanted: Wanted = Wanted(),
        store: PairStore | None = None,
        encoded: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Each ordered pair once, with its `wanted` outputs.

        Pairs in `store` come first and are not computed. The others follow, grouped by image
        sizes and in the given order within a group, and are put into `store`. `encoded` is
        called with (done, total) while pictures are encoded, before the first new pair.
        """
        todo = []
        for pair in dict.fromkeys(pairs):
            if store is not None and store.has(pair, wanted.names):
                yield pair, PairPrediction.from_arrays(store.get(pair, *wanted.names))
            else:
                todo.append(pair)
        encodings = self.encode(images, itertools.chain.from_iterable(todo), encoded)
        for pair, arrays in self.decode(encodings, todo, wanted):
            if store is not None:
                store.put(pair, arrays)
            yield pair, PairPrediction.from_arrays(arrays)

    def encode(
        self,
        images: Sequence[Prepared],
        which: Iterable[int],
        progress: Callable[[int, int], None] | None = None,
    ) -> Encodings:
        """The encodings of some of the images, each computed once."""
        indices = list(dict.fromkeys(which))
        encodings = Encodings(PairStore(memory_bytes=self.config.encodings_bytes))
        sizes = {index: (images[index].height, images[index].width) for index in indices}

        def run(batch: list[int]) -> list[np.ndarray]:
            pixels = torch.from_numpy(np.stack([images[index].pixels for index in batch]))
            return list(_numpy(self.model.encode(pixels.to(self.device)).tokens))

        patch = self.model.config.patch
        for group in grouped(indices, sizes.__getitem__):
            for index, tokens in self._in_batches(group, run, "encoding pictures"):
                height, width = sizes[index]
                encodings.put(index, tokens, height // patch, width // patch)
                if progress is not None:
                    progress(len(encodings), len(indices))
        return encodings

    def decode(
        self, encodings: Encodings, pairs: Sequence[Pair], wanted: Wanted = Wanted()
    ) -> Iterator[tuple[Pair, dict[str, np.ndarray]]]:
        """The arrays of each pair, named as in `Wanted.names`."""
        branches = _Branches(self.model, self.config.branch_bytes)

        def run(batch: list[Pair]) -> list[dict[str, np.ndarray]]:
            sides = [[pair[side] for pair in batch] for side in (0, 1)]
            first, second = (encodings.get(side, self.device) for side in sides)
            outputs: dict[str, Tensor] = {}
            for view, decoded in enumerate(self.model.decode(first, second), 1):
                head = self.model.head(view)
                if view in wanted.points:
                    branch = branches.get(sides[view - 1], view, decoded)
                    outputs[f"pts3d_{view}"], outputs[f"conf_{view}"] = head.points(decoded, branch)
                if view in wanted.descriptors:
                    desc, confidence = head.descriptors(decoded)
                    outputs[f"desc_{view}"], outputs[f"desc_conf_{view}"] = desc, confidence
            arrays = {name: _numpy(tensor) for name, tensor in outputs.items()}
            # Copies, so that one pair does not keep its whole batch in memory.
            single = len(batch) == 1
            return [
                {name: array[i] if single else array[i].copy() for name, array in arrays.items()}
                for i in range(len(batch))
            ]

        for group in grouped(list(pairs), lambda pair: encodings.shape(*pair)):
            yield from self._in_batches(group, run, "decoding pairs")

    def _in_batches(
        self, items: list[T], run: Callable[[list[T]], Sequence[U]], what: str
    ) -> Iterator[tuple[T, U]]:
        """Each item with its result; the batch size is halved for good when memory runs out."""
        done = 0
        while done < len(items):
            batch = items[done : done + self.batch]
            try:
                with torch.inference_mode(), self._exact():
                    results = run(batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise InputError(
                        f"out of memory {what} one at a time on {self.device}; use images of "
                        "size 224, precision 'bfloat16', smaller branch_bytes, or device 'cpu'"
                    ) from error
                self.batch = len(batch) // 2
            else:
                yield from zip(batch, results, strict=True)
                done += len(batch)
                continue
            if self.device.type == "cuda":  # outside `except`, where the error's tensors are freed
                torch.cuda.empty_cache()

    def _exact(self) -> AbstractContextManager[None]:
        """A context without TF32, which rounds the inputs of convolutions to 10 bits."""
        if self.device.type == "cuda" and self.precision == torch.float32:
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()


@dataclass
class Encodings:
    """Tokens of pictures, by index."""

    store: PairStore
    shapes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Rows and columns of tokens."""

    def __len__(self) -> int:
        return len(self.shapes)

    def put(
        self, index: int, tokens: Float32[np.ndarray, "tokens width"], rows: int, columns: int
    ) -> None:
        """Add the tokens of a picture."""
        self.store.put((index,), {"tokens": tokens})
        self.shapes[index] = rows, columns

    def one(self, index: int) -> tuple[np.ndarray, int, int]:
        """The tokens of a picture, and their rows and columns."""
        return self.store.get((index,))["tokens"], *self.shapes[index]

    def shape(self, *indices: int) -> tuple[tuple[int, int], ...]:
        """Rows and columns of tokens of each picture."""
        return tuple(self.shapes[index] for index in indices)

    def get(self, indices: list[int], device: torch.device) -> Encoded:
        """Pictures of one size as a batch."""
        tokens = np.stack([self.store.get((index,))["tokens"] for index in indices])
        return Encoded(torch.from_numpy(tokens).to(device), *self.shapes[indices[0]])


class _Branches:
    """The branch of the points head that depends on one picture only, cached for its next pair."""

    def __init__(self, model: Mast3r, budget: int) -> None:
        self.model = model
        self.budget = budget
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def get(self, indices: list[int], view: int, decoded: Decoded) -> Tensor:
        """The branches of a batch; the least recently used ones are dropped from the cache."""
        found = {index: self._kept.get((index, view)) for index in indices}
        new = [index for index, branch in found.items() if branch is None]
        if new:
            places = [indices.index(index) for index in new]
            tokens = decoded.layers[0][places]
            made = self.model.head(view).dpt.encoder_branch(
                Decoded([tokens], decoded.rows, decoded.columns)
            )
            found |= dict(zip(new, made, strict=True))
        for index, branch in found.items():
            assert branch is not None
            # A copy, so that one picture's branch does not keep its whole batch.
            self._kept[index, view] = branch.clone() if index in new and len(new) > 1 else branch
            self._kept.move_to_end((index, view))
        while self._kept and sum(map(_bytes, self._kept.values())) > self.budget:
            self._kept.popitem(last=False)
        return torch.stack([branch for index in indices if (branch := found[index]) is not None])


def grouped(items: list[T], kind: Callable[[T], object]) -> Iterator[list[T]]:
    """Items grouped by kind, in their order."""
    groups: dict[object, list[T]] = {}
    for item in items:
        groups.setdefault(kind(item), []).append(item)
    return iter(groups.values())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().contiguous().numpy()


def _bytes(tensor: Tensor) -> int:
    return tensor.nbytes
