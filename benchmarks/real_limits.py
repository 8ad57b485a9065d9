"""What limits the labels of real scans: AP with one step, or one fault, put right by the truth.

python benchmarks/real_limits.py DATA TOOLS [--masks regions mild middle heavy] [--seed 0]

DATA and TOOLS are those of real.py. Points are the vertices of the truth. For masks that are
given, the steps and faults are those of severity.py; for `regions`, which finds objects by the
shape of the surface, the steps are its pieces of surface and its tree of joins.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from real import SEVERITIES, Annotated, masks_of
from severity import Labels, Ranking, Room, Row, by_faults, by_steps, causes, most_shown, sizes

from lift3d.association import AssociationConfig, associate
from lift3d.association.surface import Surface
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import LabelMap
from lift3d.scene.overlap import paint
from lift3d.segmentation.regions import RegionsConfig


class Annotation(Room):
    """A scan as severity.py takes a room; what the truth leaves out is not scored."""

    def score(self, labels: Labels, ranking: Ranking) -> list[float]:
        """AP, AP50, AP25."""
        return super().score(np.where(self.everything > 0, labels, 0), ranking)


def room_of(scan: Annotated, drawn: Path) -> Annotation:
    """The scan with the true masks of its views; structure is not counted."""
    void = json.loads(scan.classes.read_text()).get("void", [])
    counted = np.where(np.isin(scan.label, void), 0, scan.label).astype(np.int32)
    scene = scan.scene.with_views(
        [
            replace(view, load_instances=lambda file=drawn / f"{view.name}.png": read(file))
            for view in scan.scene.views
        ]
    )
    return Annotation(scene, scan.points, scan.label, counted)


def read(file: Path) -> LabelMap:
    """A label map."""
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.int32)


def of_masks(room: Room, folder: Path) -> tuple[list[Row], dict[str, int]]:
    """AP with each step and fault put right, for the masks in a folder."""
    first, maps = 0, []
    for view in room.scene.views:
        labels = read(folder / f"{view.name}.png")
        maps.append(np.where(labels > 0, labels + first, 0).astype(np.int32))
        first += int(labels.max())
    labels, ranking = room.lifted(maps)
    rows: list[Row] = [("as it is", room.score(labels, ranking))]
    rows += [*by_steps(room, maps), *by_faults(room, labels, ranking)]
    return rows, causes(room, labels)


def of_regions(room: Room) -> tuple[list[Row], dict[str, int]]:
    """AP with the pieces, the tree, or one fault put right, for segmented pictures."""
    segmenter = RegionsConfig().build()
    first, maps = 0, {}
    for view in room.scene.views:
        labels = paint(segmenter.segment(view).stack)
        maps[view.name] = np.where(labels > 0, labels + first, 0).astype(np.int32)
        first += int(labels.max())
    surface = VoxelConfig().build().fuse(room.scene)  # as in a lift
    config = AssociationConfig(by_shape=True)
    found = associate(room.points, room.scene, maps, config, surface=surface)
    labels, ranking = found.cloud.instance, found.confidence
    assert found.surface is not None
    rows: list[Row] = [("as it is", room.score(labels, ranking))]
    rows += by_tree(room, found.surface)
    rows += by_faults(room, labels, ranking)
    return rows, causes(room, labels)


def by_tree(room: Room, surface: Surface) -> Iterator[Row]:
    """The pieces of surface named by the truth; then the best node of the tree for each object."""
    piece, leaf = surface.superpoint, len(surface.node)
    inside = piece >= 0
    named = np.where(inside, most_shown(piece + 1, room.everything)[piece + 1], 0)
    yield "steps: pieces named by the truth", room.score(named.astype(np.int32), sizes(named))
    nodes = [[each] for each in range(leaf)]
    for one, other in surface.joins.tolist():
        nodes.append(nodes[one] + nodes[other])
    objects = int(room.counted.max()) + 1
    shown = np.zeros((leaf, objects))
    np.add.at(shown, (piece[inside], room.counted[inside]), 1)
    total, own = np.bincount(piece[inside], minlength=leaf), shown.sum(0)
    best: dict[int, tuple[float, list[int]]] = {}
    for node in nodes:
        each = shown[node].sum(0)
        iou = each / np.maximum(total[node].sum() + own - each, 1)
        for name in np.flatnonzero(iou[1:] > 0) + 1:
            if iou[name] > best.get(int(name), (0.0, []))[0]:
                best[int(name)] = float(iou[name]), node
    labels = np.zeros(len(piece), np.int32)
    for name, (_, node) in sorted(best.items(), key=lambda each: -total[each[1][1]].sum()):
        labels[np.isin(piece, node)] = name
    ranking = {name: best[name][0] for name in np.unique(labels[labels > 0]).tolist()}
    yield "steps: the best node of the tree for each object", room.score(labels, ranking)


def main() -> None:
    """Print a row for each scan, kind of masks and correction, and write all to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("tools", type=Path)
    parser.add_argument("--masks", nargs="+", default=["regions", *SEVERITIES])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real_limits.json"))
    options = parser.parse_args()
    table: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for truth in sorted((options.data / "real_truth").glob("*/truth.ply")):
            scan = Annotated.of(options.data, truth.parent.name)
            kinds = masks_of(scan.name, options.data, options.tools, Path(folder), options.seed + 1)
            room = room_of(scan, Path(folder) / scan.name / "drawn" / "instance")
            for kind in options.masks:
                rows, why = (
                    of_regions(room)
                    if kind == "regions"
                    else of_masks(room, kinds[kind][options.seed])
                )
                table[f"{scan.name}: {kind}"] = {"ap": dict(rows), "causes": why}
                print(
                    scan.name, kind, why, *(f"\n    {name}: {ap}" for name, ap in rows), flush=True
                )
    machine = {"system": platform.platform()}
    options.out.write_text(json.dumps({"machine": machine, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
