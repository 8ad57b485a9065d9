"""Measure the quality of lifted synthetic rooms: AP, H and coverage, mean and spread over seeds.

python benchmarks/quality.py [--seeds 5] [--first 0] [--backends regions none low middle high]

`regions` segments the pictures. The others are the true masks with a known amount of damage
(`segmentation:simulated`), with ids that are shuffled in every view: `none` is undamaged.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import numpy as np

from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.simulated import SimulatedConfig

KEPT = ("ap", "ap50", "ap25", "H", "H_prime", "coverage", "objects", "seconds_per_view")


def one(backend: str, seed: int, folder: Path) -> dict[str, float]:
    """The figures of one room."""
    masks = RegionsConfig() if backend == "regions" else SimulatedConfig(severity=backend)
    config = LiftConfig(Path(f"synthetic:{seed}"), folder, segmentation=masks)
    lifted = lift(config)
    found = json.loads((folder / "consistency.json").read_text())
    instances = json.loads((folder / "instances.json").read_text())["instances"]
    seconds = sum(record.seconds for record in lifted.records.values())
    printed = found["printed"]
    return {
        **{name: found["truth"][name] for name in ("ap", "ap50", "ap25")},
        **printed["foreground"],
        "coverage": printed["coverage"],
        "objects": len(instances),
        "seconds_per_view": seconds / len(lifted.scene),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first room")
    parser.add_argument(
        "--backends", nargs="+", default=["none", "regions", "low", "middle", "high"]
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.json"))
    options = parser.parse_args()
    table = {}
    for backend in options.backends:
        rows = []
        for seed in range(options.first, options.first + options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(one(backend, seed, Path(folder)))
            print(backend, seed, {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
        table[backend] = {
            name: {
                "mean": round(float(np.mean([row[name] for row in rows])), 4),
                "std": round(float(np.std([row[name] for row in rows])), 4),
                "each": [round(float(row[name]), 4) for row in rows],
            }
            for name in KEPT
        }
        print(backend, {k: (v["mean"], v["std"]) for k, v in table[backend].items()}, flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
        }
        options.out.write_text(json.dumps({"machine": machine, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
