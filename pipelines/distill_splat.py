"""Distil a run's labels into a Gaussian splat, and render them back into every view.

python pipelines/distill_splat.py RUN --out OUT [--device cuda]

The run's pictures, label maps and points are exported (straightened, as COLMAP), Gaussians with
an identity feature each are fitted to them, and their labels are rendered into every view. Every
8th view is held out of training. OUT gets

* point_cloud.ply, labels.npy, identity.npz: the Gaussians in 3DGS's format, their labels;
* labels/, one label map per view; strip.png, held-out views: photo, rendered photo, labels,
  rendered labels;
* distill.json: PSNR, label mIoU against the input masks, H before and after, seconds, memory.

With CUDA the rasteriser is gsplat. Without it a plain PyTorch rasteriser is used, which is for
testing: give a small --width and few --splats. Run the same command again to continue from the
last checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from lift3d.datasets import read_scene
from lift3d.evaluation.consistency import scene_consistencies
from lift3d.export.content import Options as ExportOptions
from lift3d.export.distillation.gaussians import write_gaussians
from lift3d.export.distillation.measuring import agreement, rendered_view
from lift3d.export.distillation.rasterisers import for_device
from lift3d.export.distillation.training import DistillConfig, Distilled, Picture, begin, distill
from lift3d.export.local_origin import write_offset
from lift3d.export.ply import read_cloud
from lift3d.run.exporting import export
from lift3d.run.record import host, versions
from lift3d.run.run import Run
from lift3d.run.stages import peak_memory_mb
from lift3d.scene import NO_OFFSET, Image, LabelMap, Scene, View
from lift3d.scene.colours import label_colours
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.labelmaps import by_name, find_label_map, read_label_map, write_label_map
from lift3d.scene.progress import for_terminal
from lift3d.scene.storage import atomic

STRIP = 4
"""Number of views in the picture strip."""
CHECK_PIXELS = 4_000_000


@dataclass(frozen=True)
class Options:
    """The run, the output folder and the settings."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished `lift3d lift`."""
    out: Path
    scan: Path | None = None
    """The scan's present path, if it was moved."""
    width: int | None = None
    """Scale pictures and label maps down to this width in pixels."""
    hold_out: int = 8
    """Hold out every n-th view; 0 holds out none."""
    label_property: bool = False
    """Write labels to the PLY too; some viewers do not accept this."""
    distill: DistillConfig = field(default_factory=DistillConfig)

    def check(self) -> None:
        """InputError for values out of range."""
        if (self.width or 8) < 8 or self.hold_out < 0 or self.hold_out == 1:
            raise InputError("expected --width >= 8 and --hold-out 0 or >= 2")
        self.distill.check()


def inputs(options: Options) -> tuple[Scene, list[Picture], Path]:
    """The exported views (for H), the training pictures, and the path of the exported cloud."""
    folder = options.out / "export"
    ask = ExportOptions(undistort=True)
    export(Run.open(options.run, options.scan), ["ply", "colmap"], folder, ask, for_terminal())
    scene = read_scene(folder / "colmap")
    views = [shrunk(view, options.width) for view in scene.views]
    pictures = []
    for view in views:
        path = find_label_map(folder / "colmap" / "labels", view.name)
        if path is None:
            raise InputError(f"{folder / 'colmap'} has no label map of {view.name}; export again")
        labels = nearest(read_label_map(path), view.camera.width, view.camera.height)
        pictures.append(Picture(view.name, view.camera, view.image(), labels))
    return scene.with_views(views), pictures, folder / "cloud.ply"


def shrunk(view: View, width: int | None) -> View:
    """The view with a smaller picture and unchanged depth."""
    own = view.camera
    if width is None or width >= own.width:
        return view
    height = max(1, round(own.height * width / own.width))
    return replace(
        view,
        camera=own.resized(width, height),
        depth_camera=view.geometry_camera,
        load_image=partial(_smaller, view.load_image, width, height),
    )


def _smaller(load: Any, width: int, height: int) -> Image:
    import cv2

    return np.asarray(cv2.resize(load(), (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def nearest(labels: LabelMap, width: int, height: int) -> LabelMap:
    """The label map resized, by the nearest pixel."""
    import cv2

    size = (width, height)
    return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.int32)


def consistencies(scene: Scene, maps: Sequence[LabelMap]) -> dict[str, Any]:
    """H over all pixels: as in the paper (exclude nothing), and between views only."""
    excludes = ("nothing", "view")
    found = scene_consistencies(
        scene, by_name(scene, maps), excludes=excludes, max_pixels=CHECK_PIXELS, return_pixels=False
    )
    keep = ("H", "H0", "H_prime", "coverage", "labels", "epsilon", "pixels")
    return {
        name: {key: value for key, value in each.result.summary().items() if key in keep}
        for name, each in zip(excludes, found, strict=True)
    }


def measured(
    scene: Scene, pictures: Sequence[Picture], drawn: Sequence[tuple[Image, LabelMap]], hold: int
) -> dict[str, Any]:
    """Agreement of rendered views with the training views and the held-out views; H of all."""
    held = [i for i in range(len(pictures)) if hold and i % hold == 0]
    found: dict[str, Any] = {}
    for name, index in (
        ("trained", [i for i in range(len(pictures)) if i not in held]),
        ("held out", held),
    ):
        each = agreement([pictures[i] for i in index], [drawn[i] for i in index])
        found[name] = None if each is None else asdict(each)
    return {**found, "H": consistencies(scene, [labels for _, labels in drawn])}


def strip(pictures: Sequence[Picture], drawn: Sequence[tuple[Image, LabelMap]]) -> Image:
    """A row per view: photo, rendered photo, training labels, rendered labels."""
    rows = [
        np.hstack([p.image, colour, label_colours(p.labels), label_colours(labels)])
        for p, (colour, labels) in zip(pictures, drawn, strict=True)
    ]
    wide = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 4), (0, wide - row.shape[1]), (0, 0))) for row in rows])


def table(found: dict[str, Any]) -> str:
    """The results as a text table."""
    lines = [f"{'':28}{'PSNR dB':>9}{'mIoU':>8}{'pixels same':>13}{'H':>8}{'H views':>9}"]
    h = found["before"]
    lines.append(
        f"{'input label maps':28}{'':>30}{h['nothing']['H']:8.3f}{h['view']['H'] or 0:9.3f}"
    )
    for stage in ("at the start", "distilled"):
        h = found[stage]["H"]
        for views in ("trained", "held out"):
            if (each := found[stage][views]) is None:
                continue
            title = f"{stage}, {views} ({each['views']})"
            line = f"{title:28}{each['psnr']:9.2f}{each['miou']:8.3f}{each['same']:13.3f}"
            if views == "trained":
                line += f"{h['nothing']['H']:8.3f}{h['view']['H'] or 0:9.3f}"
            lines.append(line)
    lines.append(
        f"{found['splats']:,} Gaussians, {found['steps']} steps in {found['seconds']:.0f} s "
        f"({found['rasteriser']}), {found['peak_memory_mb']:.0f} MB"
        + (f", GPU {found['peak_gpu_mb']:.0f} MB" if found["peak_gpu_mb"] else "")
    )
    lines.append(
        "H is over all views, with held-out ones; 'H views' compares with other views only. mIoU "
        "is against the training label maps, not against ground truth."
    )
    if found["for_testing"]:
        lines.append("Rendered by the plain rasteriser for testing: not a real result.")
    return "\n".join(lines)


def run(options: Options) -> dict[str, Any]:
    """Export, fit, render, measure, write."""
    progress = for_terminal()
    scene, pictures, cloud_path = inputs(options)
    cloud = read_cloud(cloud_path, scene.offset)
    hold = options.hold_out
    learnt = [each for i, each in enumerate(pictures) if not (hold and i % hold == 0)]
    rasteriser = for_device(options.distill.device)

    def draw(model: Any) -> list[tuple[Image, LabelMap]]:
        return [rendered_view(model, rasteriser, each.camera) for each in pictures]

    # The initial model depends on the training views only through their set of ids.
    first = draw(begin(cloud, learnt, options.distill))
    with progress.stage("distill") as tick:
        made: Distilled = distill(cloud, learnt, options.distill, options.out, tick)
    drawn = draw(made.model)
    found = {
        "run": str(options.run),
        "rasteriser": made.rasteriser.name,
        "for_testing": not options.distill.device.startswith("cuda"),
        "size": [pictures[0].camera.width, pictures[0].camera.height],
        "splats": len(made.model),
        "steps": len(made.losses),
        "loss": {"first": float(made.losses[:20].mean()), "last": float(made.losses[-20:].mean())},
        "before": consistencies(scene, [each.labels for each in pictures]),
        "at the start": measured(scene, pictures, first, hold),
        "distilled": measured(scene, pictures, drawn, hold),
        "seconds": made.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "peak_gpu_mb": made.peak_gpu_mb,
        "settings": asdict(options.distill),
        "host": host(),
        "versions": versions(),
    }
    write_gaussians(options.out / "point_cloud.ply", made.model, options.label_property)
    if scene.offset != NO_OFFSET:
        progress.log(f"point_cloud.ply is {write_offset(options.out, scene.offset)}")
    for picture, (_, labels) in zip(pictures, drawn, strict=True):
        write_label_map(options.out / "labels", picture.name, labels)
    shown = [i for i in range(len(pictures)) if hold and i % hold == 0] or [0]
    shown = shown[:STRIP]
    from PIL import Image as Pillow

    with atomic(options.out / "strip.png") as part:
        Pillow.fromarray(strip([pictures[i] for i in shown], [drawn[i] for i in shown])).save(part)
    with atomic(options.out / "distill.json") as part:
        part.write_text(json.dumps(found, indent=1))
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Run it; 2 for bad input."""
    options = tyro.cli(Options, args=given, description=__doc__)
    try:
        options.check()
        found = run(options)
    except (InputError, MissingExtra) as error:
        print(error, file=sys.stderr)
        return 2
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
