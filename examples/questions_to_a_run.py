"""Open a finished run and ask it: which objects are doubtful, where do views disagree, and why.

python examples/questions_to_a_run.py [RUN]

Without RUN a small synthetic room is lifted first.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import lift3d as l3


def small_run(folder: Path) -> l3.Run:
    """A run of a synthetic room with true masks, a few seconds of work."""
    room = l3.backend("reader", "synthetic", views=8, width=120, height=90)
    return l3.lift("synthetic:1", folder, reader=room, segmentation="simulated", voxel=0.05)


def questions(run: l3.Run) -> None:
    """Print what a person would look for first."""
    print(f"{run.name}: {len(run.objects)} objects in {len(run.cameras)} views")
    for warning in run.warnings:
        print(f"warning: {warning}")

    doubtful = sorted(run.objects, key=lambda each: each.confidence)[:3]
    for each in doubtful:
        print(f"object {each.id}: confidence {each.confidence:.2f}, {each.points} points")

    checked = run.consistency
    exclude = checked["printed"]["exclude"]
    per_view = checked["all"][exclude]["view_H"]
    worst = min(zip(per_view, checked["views"], strict=True), key=lambda pair: pair[0] or 0)
    print(f"worst view: {worst[1]}, H {worst[0]}")

    # A pixel whose mask was not kept as it was: why?
    view = worst[1]
    rows, columns = np.nonzero(run.masks[view] != 0)
    middle = len(rows) // 2
    print(run.why(view, (columns[middle], rows[middle])))


def main() -> None:
    """Ask the run that is named, or a new one."""
    if len(sys.argv) == 2:
        questions(l3.Run.open(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        questions(small_run(Path(folder) / "run"))


if __name__ == "__main__":
    main()
