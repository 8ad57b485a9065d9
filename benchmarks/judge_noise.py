"""How much the objects found by shape depend on chance: AP under a little noise in the merges.

python benchmarks/judge_noise.py DATA TOOLS [--noise 0.1] [--draws 8]

Which node of the tree of joins is taken as an object can turn on very little, so that one number of
one scan says less than its digits. Here the log-odds of every rated pair of neighbours get normal
noise, which changes the order of the merges; the objects are then chosen as always. Choices in the
judge are better compared by this mean than by single runs. DATA and TOOLS are those of real.py; the
points are the vertices of the truth, the masks those of `regions`; all cuts of the surface count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from real import Annotated, tool

from lift3d.association.looks import looks
from lift3d.association.shape import Shape, learned_probability
from lift3d.association.shape.consensus import Cuts
from lift3d.association.shape.pieces import PairProbability, Pairs, Pieces
from lift3d.export.ply import write_cloud
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import LabelledPoints
from lift3d.scene.overlap import paint
from lift3d.segmentation.regions import RegionsConfig

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1."""


class NoisyShape(Shape):
    """A shape whose merges are rated with noise."""

    noise = 0.0
    random = np.random.default_rng(0)

    def pieces(
        self, kind: type[Pieces] = Pieces, probability: PairProbability = learned_probability
    ) -> Pieces:
        """The pieces, whose pairs are rated by `probability` with noise on the log-odds."""

        def noisy(pieces: Pieces, pairs: Pairs) -> np.ndarray:
            p = np.clip(probability(pieces, pairs), EDGE, 1 - EDGE)
            off = self.random.normal(0, self.noise, len(p)) if self.noise else 0.0
            return 1 / (1 + (1 - p) / p * np.exp(-off))

        return super().pieces(kind, noisy)


def cuts_of(scan: Annotated) -> Cuts:
    """All cuts of a scan, with the masks of all its views."""
    scene, points = scan.scene, scan.points
    cameras = [view.camera for view in scene.views]
    cuts = Cuts(points, VoxelConfig().build().fuse(scene), cameras, scene.metric, NoisyShape)
    segmenter = RegionsConfig().build()
    maps = {view.name: paint(segmenter.segment(view).stack) for view in scene.views}
    for look in looks(points, scene, maps):
        cuts.add(look)
    return cuts


def scored(scan: Annotated, cuts: Cuts, tools: Path, folder: Path) -> list[float]:
    """AP, AP50, AP25 of the objects that the cuts agree on."""
    found = cuts.objects()
    sure = np.append(found.confidence, 0)[found.object].astype(np.float32)
    write_cloud(folder / "cloud.ply", LabelledPoints(scan.points, found.object + 1, sure))
    truth = LabelledPoints(scan.points, scan.label, np.ones(len(scan.label), np.float32))
    write_cloud(folder / "truth.ply", truth)
    (folder / "classes.json").write_bytes(scan.classes.read_bytes())
    printed = tool(tools, "score_truth", folder / "cloud.ply", folder).splitlines()[0]
    got = json.loads(printed)
    return [got["AP"], got["AP50"], got["AP25"]]


def main() -> None:
    """Print the scores without noise, and mean and standard deviation with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("tools", type=Path)
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation of log-odds")
    parser.add_argument("--draws", type=int, default=8)
    options = parser.parse_args()
    for truth in sorted((options.data / "real_truth").iterdir()):
        if not truth.is_dir():
            continue
        scan = Annotated.of(options.data, truth.name)
        NoisyShape.noise = 0.0
        cuts = cuts_of(scan)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            plain = scored(scan, cuts, options.tools, folder)
            NoisyShape.noise = options.noise
            rows = np.array(
                [scored(scan, cuts, options.tools, folder) for _ in range(options.draws)]
            )
        print(
            f"{truth.name}: " + " / ".join(f"{x:.3f}" for x in plain),
            "; with noise " + " / ".join(f"{x:.3f}" for x in rows.mean(0)),
            "± " + " / ".join(f"{x:.3f}" for x in rows.std(0)),
            flush=True,
        )


if __name__ == "__main__":
    main()
