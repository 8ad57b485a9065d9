"""From frames to a scene: skips incomplete or unposed frames, refuses too many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lift3d.datasets.images import image_size
from lift3d.datasets.intrinsics import Size
from lift3d.datasets.patterns import Files
from lift3d.datasets.poses import fault, faults, world_from_camera
from lift3d.scene import Scene, Skipped, Transform, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.local_origin import localised


def complete(
    root: Path, images: tuple[str, Files], *others: tuple[str, Mapping[str, object]]
) -> tuple[list[str], list[Skipped]]:
    """Keys of the images that have all other files, and the other frames with the reason.

    Each argument is a pattern (`depth/*.png`) and a dict from frame key to file. InputError with
    the counts where more than half of the images are incomplete.
    """
    label, files = images
    keys, skipped = [], []
    for key, found in files.items():
        lacking = [other for other, known in others if key not in known]
        if lacking:
            skipped.append(Skipped(found.name, f"nothing for it in {' and '.join(lacking)}"))
        else:
            keys.append(key)
    if 2 * len(skipped) > len(files):
        counts = "; ".join(
            f"{root / other} has {len(known)} but {label} has {len(files)}"
            f" ({sum(key in known for key in files)} of them in both)"
            for other, known in others
            if any(key not in known for key in files)
        )
        raise InputError(f"{counts}; most frames are incomplete: copy or export the scan again")
    return keys, skipped


def posed(
    stored: Mapping[str, Transform],
    names: Mapping[str, str],
    inverted: bool = False,
    opengl: bool = False,
) -> tuple[dict[str, Transform], list[Skipped]]:
    """Frame key -> world_from_camera where the stored pose is valid, and the other frames.

    `names` are the names of the views; the conventions are those of `world_from_camera`.
    """
    skipped = []
    usable = []
    stack = np.stack(list(stored.values())) if stored else np.zeros((0, 4, 4))
    for key, reason in zip(stored, faults(stack), strict=True):
        if reason:
            skipped.append(Skipped(names[key], reason))
        else:
            usable.append(key)
    kept = np.stack([stored[key] for key in usable]) if usable else np.zeros((0, 4, 4))
    poses = world_from_camera(kept, inverted, opengl)
    return dict(zip(usable, poses, strict=True)), skipped


def first_size(paths: Iterable[Path]) -> Size:
    """Size of the first image with a readable header, among at most ten."""
    problem: FrameError | None = None
    for path, _ in zip(paths, range(10), strict=False):
        try:
            return image_size(path)
        except FrameError as error:
            problem = error
    raise InputError(str(problem or "no image to take the size from"))


def finish(
    path: Path,
    views: Sequence[View],
    skipped: Sequence[Skipped],
    source: str,
    notes: Sequence[str | None] = (),
    metric: bool = True,
    name: str | None = None,
    excused: Sequence[Skipped] = (),
) -> Scene:
    """The scene; InputError where too few frames are left.

    More than half of the frames in `skipped` are too many. `excused` are left out for another
    reason than a fault of the scan, such as a library that is not installed, in any number. Where
    the cameras are far from 0 the scene is relative to a local origin, `scene.offset`. A cloud
    that the reader adds has to be read relative to it (`lift3d.scene.local_origin.local`).
    """
    if 2 * len(skipped) > len(views) + len(skipped):
        reasons = Counter(frame.reason for frame in skipped).most_common(4)
        raise InputError(
            f"{path}: {len(skipped)} of {len(views) + len(skipped)} frames cannot be used: "
            + "; ".join(f"{reason} ({count})" for reason, count in reasons)
        )
    if len(views) < 2:
        lost = [f"{frame.name}: {frame.reason}" for frame in (*skipped, *excused)]
        raise InputError(
            f"{path}: found {len(views)} usable frame{'s' * (len(views) != 1)}; "
            "a scene needs at least 2 views of one place"
            + "".join(f"\n  left out {each}" for each in lost[:3])
        )
    twice = [n for n, count in Counter(view.name for view in views).items() if count > 1]
    if twice:
        raise InputError(f"{path}: more than one frame is called {twice[0]!r}; rename the files")
    scene = Scene(
        name=name or path.resolve().name,
        views=tuple(views),
        metric=metric,
        source=source,
        skipped=(*skipped, *excused),
        notes=tuple(note for note in notes if note),
    )
    return localised(scene)


def extrinsic(matrix: Transform | None, what: str) -> tuple[Transform, str | None]:
    """A valid body_from_camera; identity and a note where the stored one is invalid."""
    if matrix is None:
        return np.eye(4), None
    reason = fault(matrix)
    if reason:
        return np.eye(4), f"the extrinsic of {what} is ignored: {reason}"
    return matrix, None
