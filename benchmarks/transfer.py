"""Carry masks between real views whose true masks are known, beside two floors.

python benchmarks/transfer.py DATA [--head OUT/last.pth] [--out benchmarks/results/transfer.json]

DATA has `open3d_livingroom1_clean` and `hololens_dvmvs_000` with `real_truth/`, whose annotated
surfaces give the masks of all views by depth; `apc_shelf_scene0000` with its own masks; and
`spinnerf_statue`, photos with drawn masks. Pairs of views at growing distances are drawn with a
seed. Methods, all measured as Ego-Exo4D does (`lift3d.evaluation.metrics.correspondence`):

- copied: the mask unchanged, at the size of the other picture;
- tracks: the mask moved by a similarity fitted (RANSAC) to its tracked points; the tracks are those
  of `matching:flow`, forward and backward, which the network's target points are from too;
- warped: every pixel has the label of the nearest tracked pixel within 8 pixels, of all tracks of
  the picture: a dense warp rather than single tracks;
- network: `--head`, a checkpoint of pipelines/train_vggt_segmentor.py; without it the floors alone;
- untrained: the same network with random weights;
- network, true points: target points drawn in the true mask, so that tracks are not to blame.

Existence: for the network by its rule, for the others whether the mask is not empty.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from plyfile import PlyData
from scipy.spatial import cKDTree

from lift3d import open_scene
from lift3d.evaluation.metrics.correspondence import PRESENT, correspondence
from lift3d.geometry import transform
from lift3d.geometry.lens import rays_at
from lift3d.networks.vggt_s.network import load
from lift3d.networks.vggt_s.points import of_mask
from lift3d.run.record import host, versions
from lift3d.scene import Matches, View
from lift3d.scene.labelmaps import read_label_map
from lift3d.segmentation.matching.flow import FlowMatcherConfig
from lift3d.segmentation.transfer import Transfer, TransferConfig

REACH = 0.03
"""Metres within which a pixel has the label of the nearest vertex of the truth."""
LEAST, MOST = 0.004, 0.4
"""Size of source masks as a share of the picture."""
SEEN = 0.002
"""Least size of a mask that counts as there; smaller ones, unless empty, are not used."""


@dataclass(frozen=True, eq=False)
class Scan:
    """Views with true masks."""

    name: str
    views: tuple[View, ...]
    labels: Callable[[View], np.ndarray]
    gaps: tuple[int, ...]
    """Distances of the views of a pair."""


@dataclass(frozen=True, eq=False)
class Case:
    """Objects of one view to find in another."""

    scan: str
    gap: int
    a: View
    b: View
    masks: np.ndarray
    truth: np.ndarray


def scans(data: Path) -> Iterator[Scan]:
    """Those that are there."""
    for name, first in (("open3d_livingroom1_clean", 0), ("hololens_dvmvs_000", 30)):
        if (data / name).exists() and (data / "real_truth" / name).exists():
            views = open_scene(data / name).views[first:]
            yield Scan(name, views, Rendered(data / "real_truth" / name), (1, 2, 4, 8))
    if (data / "apc_shelf_scene0000").exists():
        views = open_scene(data / "apc_shelf_scene0000").views
        yield Scan("apc_shelf_scene0000", views, lambda view: view.instances(), (1, 2, 4, 8))
    statue = data / "spinnerf_statue"
    if statue.exists():
        views = open_scene(statue / "images").views

        def drawn(view: View) -> np.ndarray:
            return (read_label_map(statue / "masks" / f"{view.name}.png") > 0).astype(np.int32)

        yield Scan("spinnerf_statue", views, drawn, (1, 2, 4, 8))


class Rendered:
    """True label maps from an annotated surface and depth; walls and floor are left out."""

    def __init__(self, truth: Path) -> None:
        vertex = PlyData.read(str(truth / "truth.ply"))["vertex"]
        self.tree = cKDTree(np.c_[vertex["x"], vertex["y"], vertex["z"]])
        self.label = np.asarray(vertex["label"], np.int32)
        self.label[
            np.isin(self.label, json.loads((truth / "classes.json").read_text())["void"])
        ] = 0
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, view: View) -> np.ndarray:
        """The label map of a view."""
        if view.name not in self.known:
            self.known[view.name] = self._of(view)
        return self.known[view.name]

    def _of(self, view: View) -> np.ndarray:
        """Every second pixel is looked up, and small gaps of the depth are closed."""
        camera, depth = view.geometry_camera, view.depth()
        assert depth is not None
        half = depth[::2, ::2]
        row, column = np.nonzero(half > 0)
        xyz = transform(
            camera.pose, rays_at(camera, 2 * column, 2 * row) * half[row, column][:, None]
        )
        far, near = self.tree.query(xyz, distance_upper_bound=REACH)
        found = np.isfinite(far)
        labels = np.zeros(half.shape, np.int32)
        labels[row[found], column[found]] = self.label[near[found]]
        size = (view.camera.width, view.camera.height)
        large = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        return large.astype(np.int32)


def cases(scan: Scan, pairs: int, rng: np.random.Generator) -> Iterator[Case]:
    """`pairs` pairs of views for each distance; at most 6 objects of each."""
    for gap in scan.gaps:
        for start in rng.permutation(len(scan.views) - gap)[:pairs]:
            a, b = scan.views[start], scan.views[start + gap]
            labels, other = scan.labels(a), scan.labels(b)
            ids, count = np.unique(labels[labels > 0], return_counts=True)
            share = count / labels.size
            ids = ids[(share >= LEAST) & (share <= MOST)]
            seen = np.array([(other == each).mean() for each in ids])
            ids = ids[(seen == 0) | (seen >= SEEN)]
            ids = np.sort(rng.permutation(ids)[:6])
            if len(ids):
                masks, truth = (each[None] == ids[:, None, None] for each in (labels, other))
                yield Case(scan.name, gap, a, b, masks, truth)


@lru_cache(maxsize=4)
def flow() -> Any:
    """The tracker of the floors and of the network's points."""
    return Remembering(FlowMatcherConfig().build())


class Remembering:
    """A matcher that keeps its last answers: several methods ask for the same."""

    def __init__(self, matcher: Any) -> None:
        self.matcher, self.known = matcher, {}

    def match(self, a: View, b: View) -> Matches:
        """The matcher's answer."""
        key = (a.name, b.name, id(a), id(b))
        if key not in self.known:
            if len(self.known) > 8:
                self.known.clear()
            self.known[key] = self.matcher.match(a, b)
        return self.known[key]


class TruePoints:
    """Target points from the true masks: what a perfect tracker would give."""

    def __init__(self) -> None:
        self.case: Case | None = None

    def match(self, a: View, b: View) -> Matches:
        """Points of each mask, with points of its true mask; none where the object is absent."""
        assert self.case is not None
        case = self.case
        masks, truth = (case.masks, case.truth) if a is case.a else (case.truth, case.masks)
        pairs = [
            (of_mask(thinned(m), 20), of_mask(thinned(t), 20))
            for m, t in zip(masks, truth, strict=True)
            if m.any() and t.any()
        ]
        if not pairs:
            return Matches(*(np.zeros((0, 2), np.float32),) * 2, np.zeros(0, np.float32))
        xy_a, xy_b = (np.concatenate(each) for each in zip(*pairs, strict=True))
        return Matches(xy_a, xy_b, np.ones(len(xy_a), np.float32))


def thinned(mask: np.ndarray, most: int = 1000) -> np.ndarray:
    """Some of the mask's pixels: K-Means is slow on many."""
    place = np.flatnonzero(mask)
    kept = np.zeros_like(mask)
    kept.flat[place[np.linspace(0, len(place) - 1, min(most, len(place))).astype(int)]] = True
    return kept


def copied(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The floor of no motion at all."""
    height, width = case.truth.shape[1:]
    found = np.stack(
        [
            cv2.resize(m.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
            for m in case.masks
        ]
    )
    return found, found.any((1, 2)).astype(float)


def by_tracks(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Each mask moved by the similarity of its own tracks; empty with fewer than 3 tracks."""
    matches = flow().match(case.a, case.b)
    column, row = np.rint(matches.xy_in_a).astype(int).T
    height, width = case.truth.shape[1:]
    found = np.zeros_like(case.truth)
    for number, mask in enumerate(case.masks):
        own = mask[row, column]
        if own.sum() < 3:
            continue
        cv2.setRNGSeed(0)
        matrix, _ = cv2.estimateAffinePartial2D(
            matches.xy_in_a[own], matches.xy_in_b[own], ransacReprojThreshold=4.0
        )
        if matrix is not None:
            found[number] = (
                cv2.warpAffine(
                    mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST
                )
                > 0
            )
    return found, found.any((1, 2)).astype(float)


def warped(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The labels of all tracks, each at its end and around it."""
    matches = flow().match(case.a, case.b)
    height, width = case.truth.shape[1:]
    if not len(matches.xy_in_a):
        return np.zeros_like(case.truth), np.zeros(len(case.truth))
    column, row = np.rint(matches.xy_in_a).astype(int).T
    y, x = np.mgrid[:height:2, :width:2]  # every second pixel is looked up
    far, near = cKDTree(matches.xy_in_b).query(np.c_[x.ravel(), y.ravel()], distance_upper_bound=8)
    near = np.where(np.isfinite(far), near, 0)
    labels = (mask[row, column][near] & np.isfinite(far) for mask in case.masks)
    halves = (each.reshape(x.shape).repeat(2, 0).repeat(2, 1) for each in labels)
    found = np.stack([each[:height, :width] for each in halves])
    return found, found.any((1, 2)).astype(float)


def carried(transfer: Transfer, cues: list[tuple[bool, float, float, float]] | None = None) -> Any:
    """The network's answers; `cues` gets (there, cycle, certainty, share of tracks) of each."""

    def method(case: Case) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(transfer.matcher, TruePoints):
            transfer.matcher.case = case
        found = transfer.carry(case.a, case.b, case.masks)
        if cues is not None:
            matches = flow().match(case.a, case.b)
            column, row = np.rint(matches.xy_in_a).astype(int).T
            scale = case.masks.shape[2] / 512
            for number, mask in enumerate(case.masks):
                share = mask[row, column].sum() * (4 * scale) ** 2 / mask.sum()
                cues.append(
                    (
                        bool(case.truth[number].any()),
                        float(found.confidence[number]),
                        float(found.certainty[number]),
                        float(min(share, 1)),
                    )
                )
        return found.masks, found.confidence

    return method


def networks(
    head: Path, vggt: str | None, framing: Any, cues: list[tuple[bool, float, float, float]]
) -> dict[str, Any]:
    """The network, the same with random weights, and with target points from the truth."""
    config = TransferConfig(
        str(head), vggt or TransferConfig.vggt, framing, device="cpu", precision="float32"
    )
    network = config.build(flow())
    torch.manual_seed(0)
    untrained = load(head, None if vggt is None else lambda: Path(vggt))
    for module in untrained.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    cpu = torch.device("cpu")
    return {
        "untrained": carried(Transfer(config, untrained, cpu, flow())),
        "network": carried(network, cues),
        "network, true points": carried(Transfer(config, network.network, cpu, TruePoints())),
    }


def separation(cues: Sequence[tuple[bool, float, float, float]]) -> dict[str, Any]:
    """By cue, the chance that an object that is there has the higher value (AUC); and the balanced
    accuracy at 0.5.
    """
    table = np.array(cues, float).reshape(-1, 4)
    there, absent = table[table[:, 0] > 0], table[table[:, 0] == 0]
    if not len(there) or not len(absent):
        return {}
    found = {}
    for place, name in enumerate(("cycle", "certainty", "tracks"), 1):
        gap = there[:, place][:, None] - absent[:, place][None]
        balanced = ((there[:, place] > PRESENT).mean() + (absent[:, place] <= PRESENT).mean()) / 2
        found[name] = {
            "auc": round(float((gap > 0).mean() + (gap == 0).mean() / 2), 3),
            "balanced": round(float(balanced), 3),
        }
    return found


def measured(
    scan: Scan, methods: dict[str, Any], pairs: int, seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Scores of every method, over all distances and by distance."""
    answers: dict[str, dict[int, list[Any]]] = {name: {} for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    count = 0
    for case in cases(scan, pairs, np.random.default_rng(seed)):
        count += len(case.masks)
        for name, method in methods.items():
            began = time.process_time()
            masks, confidence = method(case)
            seconds[name] += time.process_time() - began
            rows = zip(masks, case.truth, confidence.tolist(), strict=True)
            answers[name].setdefault(case.gap, []).extend(rows)
    table = {}
    for name, by_gap in answers.items():
        every = [row for rows in by_gap.values() for row in rows]
        table[name] = {
            **{k: _short(v) for k, v in correspondence(every).summary().items() if k != "protocol"},
            "iou_by_gap": {
                gap: _short(correspondence(rows).summary()["iou"]) for gap, rows in by_gap.items()
            },
        }
    return table, {name: round(each / max(count, 1), 2) for name, each in seconds.items()}


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def main(given: Sequence[str] | None = None) -> None:
    """Print a table per scan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--vggt", help="VGGT's weights, where the head's file has none")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of views for each distance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scans", nargs="+", help="only these")
    parser.add_argument("--framing", choices=("object", "whole"), default="object")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(given)
    content: dict[str, Any] = {
        "about": " ".join((__doc__ or "").split("\n\n")[0].split()),
        "head": options.head and str(options.head), "framing": options.framing,
        "pairs": options.pairs,
        "seed": options.seed, "scans": {}, "host": host(), "versions": versions(),
    }  # fmt: skip
    for scan in scans(options.data):
        if options.scans and scan.name not in options.scans:
            continue
        cues: list[tuple[bool, float, float, float]] = []
        methods: dict[str, Any] = {"copied": copied, "tracks": by_tracks, "warped": warped}
        if options.head is not None:
            methods |= networks(options.head, options.vggt, options.framing, cues)
        table, seconds = measured(scan, methods, options.pairs, options.seed)
        content["scans"][scan.name] = {
            "methods": table, "cpu_seconds_per_mask": seconds, "existence": separation(cues),
        }  # fmt: skip
        counts = table["copied"]
        print(f"{scan.name}: {counts['there']} masks there, {counts['absent']} absent")
        for name, row in table.items():
            print(
                f"  {name:22} IoU {row['iou']}, location error {row['location_error']}, contour "
                f"{row['contour_accuracy']}, existence {row['existence']}; by gap "
                f"{row['iou_by_gap']}; {seconds[name]} CPU s a mask"
            )
        print(f"  existence by cue: {json.dumps(separation(cues))}", flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
