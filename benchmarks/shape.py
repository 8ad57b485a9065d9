"""Measure the processor time of each step of finding objects by shape, for a finished run.

python benchmarks/shape.py RUN [--repeat 2]

RUN is a folder of `lift3d lift` with the default masks and points. The steps are those of all cuts
together; of several rounds the least is printed, as the first also loads the compiled kernels.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from lift3d.scene.threads import arrange_threads

arrange_threads()

import lift3d.association.shape as shape  # noqa: E402
from lift3d.association.looks import looks  # noqa: E402
from lift3d.association.shape import consensus  # noqa: E402
from lift3d.association.shape.trees import Trees  # noqa: E402
from lift3d.run.layout import Layout  # noqa: E402
from lift3d.run.scene_file import read_points, read_scene  # noqa: E402
from lift3d.scene.mask_sets import MaskSets, flat_maps  # noqa: E402

STEPS: tuple[tuple[Any, str], ...] = (
    (shape, "surfels"), (shape, "lines"), (shape, "Neighbours"), (shape, "felzenszwalb"),
    (shape, "layout"), (shape, "borders"), (shape.Shape, "pieces"), (shape, "build_hierarchy"),
    (Trees, "__call__"), (consensus, "Cuts"), (consensus.Cuts, "add"), (consensus.Cuts, "objects"),
)  # fmt: skip


def timed(owner: ModuleType | type, name: str, seconds: dict[str, float]) -> None:
    """Replace a function by one that adds its processor time to `seconds`."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def measured(*given: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return function(*given, **named)
        finally:
            seconds[f"{owner.__name__.rpartition('.')[2]}.{name}"] += time.process_time() - began

    setattr(owner, name, measured)


def main() -> None:
    """Print the processor seconds of each step, and of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    files = Layout(options.run)
    scene, points = read_scene(options.run), read_points(files.points)
    masks = MaskSets(files.masks, [view.name for view in scene.views])
    # In one thread, so that a step does not count what another thread does meanwhile.
    consensus.THREADS = 1
    shape.joining()
    seconds: dict[str, float] = defaultdict(float)
    for owner, name in STEPS:
        timed(owner, name, seconds)
    rounds = []
    for _ in range(options.repeat):
        seconds.clear()
        began = time.process_time()
        cuts = consensus.Cuts(points, points, [view.camera for view in scene.views], scene.metric)
        for look in looks(points, scene, flat_maps(masks)):
            cuts.add(look)
        cuts.objects()
        rounds.append({**seconds, "all": time.process_time() - began})
    for name in rounds[0]:
        print(f"{name:<28} {min(each[name] for each in rounds):6.2f} processor s")


if __name__ == "__main__":
    main()
