"""Measure the effect of label noise: train a network on lift3d's labels and on true ones.

python pipelines/train_segmentation.py --out OUT

Synthetic rooms (320x240, 40 views) are fused into clouds. Each cloud is labelled three times: by
the truth (the nearest true point), and by lift3d from two kinds of masks. lift3d finds objects, not
classes, so each object gets the true class of most of its points, as if a person had named every
object once. Points without an object have no class and are not used for training.

A small network is trained on the clouds of some rooms, with one labelling at a time, and scored on
held-out rooms against their true classes. Rooms, pictures, points and networks are the same for
every labelling; only the labels differ. Each training is repeated with other seeds (network, order
of the rooms, augmentation). Run the same command again to continue; results of other settings or
versions are not touched.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_noise.clouds import FIRST_ROOM, MASKS, Sizes, room_clouds
from label_noise.network import Network
from label_noise.training import label_quality, scores, summary, trained

from lift3d.export.ply import write_cloud
from lift3d.run.record import host, versions
from lift3d.scene.storage import atomic


def kept(folder: Path, *settings: object) -> Path:
    """The subfolder of `folder` for results of these settings, masks and versions."""
    text = repr((settings, MASKS, versions()))
    return folder / hashlib.sha256(text.encode()).hexdigest()[:12]


def make_clouds(folder: Path, sizes: Sizes, masks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Write missing clouds to `folder/LABELLING/ROOM.ply`; returns training and held-out rooms.

    Held-out rooms have true labels only.
    """
    rooms = [f"room{FIRST_ROOM + i:04d}" for i in range(sizes.train + sizes.held_out)]
    train, held_out = rooms[: sizes.train], rooms[sizes.train :]
    for room in rooms:
        wanted = masks if room in train else ()
        if all((folder / each / f"{room}.ply").exists() for each in ("true", *wanted)):
            continue
        began = time.perf_counter()
        for name, cloud in room_clouds(int(room[4:]), sizes, wanted).items():
            write_cloud(folder / name / f"{room}.ply", cloud)
        print(f"{room}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return train, held_out


def compared(
    folder: Path,
    out: Path,
    train: Sequence[str],
    held_out: Sequence[str],
    masks: Sequence[str],
    seeds: int,
    epochs: int,
) -> dict[str, Any]:
    """Train and score what is missing; one file per labelling and seed."""
    table: dict[str, Any] = {}
    for seed in range(seeds):
        for labelling in ("true", *masks):
            file = out / f"{labelling}_{seed}.json"
            if not file.exists():
                began = time.perf_counter()
                paths = [folder / labelling / f"{room}.ply" for room in train]
                network = trained(paths, seed, epochs)
                found = scores(network, [folder / "true" / f"{room}.ply" for room in held_out])
                found["seconds"] = round(time.perf_counter() - began, 1)
                with atomic(file) as part:
                    part.write_text(json.dumps(found))
            found = json.loads(file.read_text())
            table.setdefault(labelling, []).append(found)
            print(
                f"{labelling} seed {seed}: mIoU {found['miou']:.3f}, of things "
                f"{found['miou_things']:.3f}, {found['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return {
        labelling: {
            "labels": label_quality(folder, labelling, train),
            **summary(each, table["true"]),
            "iou": {
                name: round(float(np.mean([one["iou"][name] for one in each])), 4)
                for name in each[0]["iou"]
            },
            "seconds": [one["seconds"] for one in each],
        }
        for labelling, each in table.items()
    }


def printed(table: Mapping[str, Any]) -> str:
    """A Markdown table with a row per labelling."""
    lines = [
        "| training labels | labelled | right | right, things | mIoU | of things | accuracy |"
        " mIoU against true labels |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in table.items():
        q = row["labels"]
        cells = [f"{q[each]:.3f}" for each in ("labelled", "right", "right_things")]
        for each in ("miou", "miou_things", "accuracy"):
            cells.append(f"{row[each]['mean']:.3f} ± {row[each]['std'] or 0:.3f}")
        less = row["miou"]["less_than_true"]
        cells.append("–" if name == "true" else f"{less['mean']:+.3f} ± {less['std'] or 0:.3f}")
        title = name if name in ("true", "regions") else f"simulated {name}"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Write missing clouds, train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, default=Sizes.train, help="rooms to train on")
    parser.add_argument("--held-out", type=int, default=Sizes.held_out, help="rooms to score on")
    parser.add_argument("--views", type=int, default=Sizes.views)
    parser.add_argument("--width", type=int, default=Sizes.width)
    parser.add_argument(
        "--masks", nargs="+", choices=MASKS, default=["middle", "regions"],
        help="masks that lift3d labels from, in addition to the truth",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="also write the numbers here")
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    height = options.width * Sizes.height // Sizes.width
    sizes = Sizes(options.rooms, options.held_out, options.views, options.width, height)
    began = time.perf_counter()
    # A room does not depend on the number of rooms.
    clouds = kept(options.out / "clouds", replace(sizes, train=0, held_out=0))
    train, held_out = make_clouds(clouds, sizes, options.masks)
    made = time.perf_counter() - began
    table = compared(
        clouds, kept(options.out / "scores", sizes, options.epochs), train, held_out,
        options.masks, options.seeds, options.epochs,
    )  # fmt: skip
    content = {
        "about": " ".join(__doc__.split("\n\n")[0].split()),
        "rooms": {"train": train, "held_out": held_out},
        "sizes": vars(sizes),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "parameters": sum(each.numel() for each in Network().parameters()),
        "seconds": {
            "clouds, this time": round(made, 1),
            "training": sum(sum(row["seconds"]) for row in table.values()),
        },
        "table": table,
        "host": host(),
        "versions": versions(),
    }
    for file in filter(None, (options.out / "training.json", options.results)):
        with atomic(file) as part:
            part.write_text(json.dumps(content, indent=1) + "\n")
    print(printed(table))


if __name__ == "__main__":
    main()
