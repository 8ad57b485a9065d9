"""Measure global alignment on the published room: errors against its truth, and seconds.

Run `python benchmarks/alignment.py --scenes 8:0 8:1 8:2 12:3 20:0 --cache FOLDER`; the numbers go
to benchmarks/results/alignment.json. The room, its predictions and its scoring are
../shared/facts/mast3r_ga/ga_scene.py (a minute to build for 8 views, a quarter of an hour for
20; `--cache` keeps them); matches are ours, made from its descriptors. The official alignment's
figures are quoted from official_8_views.json, not measured here.

Variants: `plain`; `equal`, with equal confidences; `wrong`, where 30 % of the pairs have the points
and matches of two other images (three draws, the worst is printed); `known` K, poses, both, depth.

`--many 200` aligns a long capture of the room, from predictions made on demand, and adds seconds
and peak memory (of which the truth is a part: 0.8 MB of depth and 0.6 MB of colour a view).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import resource
import runpy
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from voting import processor

from lift3d.networks.reciprocal import DescribedPair, match_pair
from lift3d.reconstruction.alignment import Aligned, Known, PairPrediction, align
from lift3d.scene import Matches

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LIFT3D_SHARED", ROOT.parent / "shared"))
PLACE = SHARED / "facts" / "mast3r_ga"
WRONG = 0.3


class Case:
    """One scene: its truth, the predictions of all pairs, and the matches."""

    def __init__(self, room: dict[str, Any], views: int, seed: int, cache: Path | None) -> None:
        self.room = room
        file = None if cache is None else cache / f"room_{views}_{seed}.pkl"
        if file is not None and file.exists():
            self.truth, self.predictions, self.matches = pickle.loads(file.read_bytes())
            return
        self.truth = room["build_scene"](views, seed)
        self.predictions: dict[tuple[int, int], PairPrediction] = {}
        self.matches: dict[tuple[int, int], Matches] = {}
        for a in range(views):
            for b in range(a + 1, views):
                self._add(a, b)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pickle.dumps((self.truth, self.predictions, self.matches)))

    def _add(self, a: int, b: int) -> None:
        aa, ba, bb, ab = self.room["predict_pair"](self.truth, a, b)
        confident = [
            {name: each.astype(np.float32) for name, each in one.items()}
            for one in (aa, ba, bb, ab)
        ]
        aa, ba, bb, ab = confident
        for pair, one, two in (((a, b), aa, ba), ((b, a), bb, ab)):
            self.predictions[pair] = PairPrediction(
                one["pts3d"], two["pts3d"], one["conf"], two["conf"]
            )
        self.matches[a, b] = match_pair(
            [
                DescribedPair(one["desc"], two["desc"], one["desc_conf"], two["desc_conf"])
                for one, two in ((aa, ba), (ab, bb))
            ]
        )

    def run(
        self,
        predictions: dict[tuple[int, int], PairPrediction] | None = None,
        matches: dict[tuple[int, int], Matches] | None = None,
        known: list[Known] | None = None,
    ) -> dict[str, float]:
        """Seconds and scores."""
        views = self.truth["n"]
        start = time.perf_counter()
        found = align(
            [(self.room["H"], self.room["W"])] * views,
            self.predictions if predictions is None else predictions,
            self.matches if matches is None else matches,
            known,
        )
        seconds = time.perf_counter() - start
        return {"seconds": round(seconds, 2), "used": int(found.used.sum())} | self.score(found)

    def score(self, found: Aligned) -> dict[str, float]:
        """Errors after a similarity, in metres and degrees."""
        used = np.flatnonzero(found.used)
        truth = self.truth | {name: self.truth[name][used] for name in ("K", "cam2w", "depth")}
        rows, columns = np.mgrid[: self.room["H"], : self.room["W"]]
        points = []
        for image in used.tolist():
            K, pose, z = found.K[image], found.world_from_camera[image], found.depth[image]
            ray = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], -1)
            own = np.concatenate([ray, np.ones_like(ray[..., :1])], -1) * z[..., None]
            points.append(own.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3])
        scores = self.room["score"](
            truth, found.world_from_camera[used], found.K[used, 0, 0], points
        )
        return {name: round(value, 5) for name, value in scores.items()}

    def variants(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Name and figures of each variant."""
        yield "plain", self.run()
        yield "equal", self.run(*self._equal())
        draws = [self.run(*self._wrong(seed)) for seed in range(3)]
        yield "wrong", max(draws, key=lambda each: each["ate_rmse_m"])
        K, poses = self.truth["K"], self.truth["cam2w"]
        for name, known in {
            "known K": [Known(K=each) for each in K],
            "known poses": [Known(world_from_camera=each) for each in poses],
            "known K and poses": [
                Known(K=one, world_from_camera=two) for one, two in zip(K, poses, strict=True)
            ],
            "known depth": [Known(depth=each) for each in self.truth["depth"]],
        }.items():
            yield name, self.run(known=known)

    def _equal(self) -> tuple[dict, dict]:
        predictions = {
            pair: replace(
                each,
                confidence_a=np.ones_like(each.confidence_a),
                confidence_b=np.ones_like(each.confidence_b),
            )
            for pair, each in self.predictions.items()
        }
        matches = {
            pair: Matches(each.xy_in_a, each.xy_in_b, np.full(len(each), 0.5, np.float32))
            for pair, each in self.matches.items()
        }
        return predictions, matches

    def _wrong(self, seed: int) -> tuple[dict, dict]:
        rng = np.random.default_rng(seed)
        predictions, matches = dict(self.predictions), dict(self.matches)
        pairs = sorted(matches)
        for index in rng.choice(len(pairs), round(WRONG * len(pairs)), replace=False):
            pair = pairs[index]
            others = [k for k in range(len(pairs)) if k != index and set(pairs[k]) != set(pair)]
            other = pairs[rng.choice(others)]
            matches[pair] = self.matches[other]
            predictions[pair] = self.predictions[other]
            predictions[pair[::-1]] = self.predictions[other[::-1]]
        return predictions, matches


class Many(Mapping[tuple[int, int], PairPrediction]):
    """Predictions of a long capture, made on demand, so that memory is that of the alignment.

    The room's noise in depth and scale, without its descriptors: matches are the truth to 0.7
    pixels, one in ten at random.
    """

    def __init__(self, room: dict[str, Any], views: int, ahead: int) -> None:
        self.room, self.truth = room, room["build_scene"](views, 0)
        self.pairs = [
            (min(a, b % views), max(a, b % views))
            for a in range(views)
            for b in range(a + 1, a + 1 + ahead)
        ]
        self.both = dict.fromkeys([*self.pairs, *(pair[::-1] for pair in self.pairs)])
        self.matches = {pair: self._matched(*pair) for pair in self.pairs}

    def _matched(self, a: int, b: int) -> Matches:
        room, truth, rng = self.room, self.truth, np.random.default_rng([a, b])
        row, column = np.nonzero(room["covisible"](truth, a, b)[4::8, 4::8])
        xy_a = np.stack([column, row], 1) * 8 + 4
        world = room["to_world"](truth["cam2w"][a], room["points_cam"](truth, a))
        pose, K = truth["cam2w"][b], truth["K"][b]
        own = (world[xy_a[:, 1], xy_a[:, 0]] - pose[:3, 3]) @ pose[:3, :3]
        xy_b = own[:, :2] / own[:, 2:] * K[0, 0] + K[:2, 2] + rng.normal(0, 0.7, (len(own), 2))
        lost = rng.random(len(xy_b)) < 0.1
        limit = np.array([room["W"] - 1, room["H"] - 1])
        xy_b[lost] = rng.uniform(0, 1, (lost.sum(), 2)) * limit
        xy_b = np.clip(np.rint(xy_b), 0, limit)
        sure = np.full(len(xy_a), 0.9, np.float32)
        return Matches(xy_a.astype(np.float32), xy_b.astype(np.float32), sure)

    def __getitem__(self, pair: tuple[int, int]) -> PairPrediction:
        room, truth, rng = self.room, self.truth, np.random.default_rng([*pair, 1])
        scale, maps = np.exp(rng.normal(0, 0.03)), []
        for image in pair:
            smooth = room["_upsample"](rng.standard_normal((13, 17))) * 0.0135
            own = room["points_cam"](truth, image) * (scale * (1 + smooth))[..., None]
            own[..., :2] *= np.exp(rng.normal(0, 0.015))
            if image != pair[0]:
                into = np.linalg.inv(truth["cam2w"][pair[0]]) @ truth["cam2w"][image]
                own = own @ into[:3, :3].T + scale * into[:3, 3]
            maps.append(own.astype(np.float32))
        sure = np.full(maps[0].shape[:2], 3.0, np.float32)
        return PairPrediction(maps[0], maps[1], sure, sure)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.both)

    def __len__(self) -> int:
        return len(self.both)


def many(room: dict[str, Any], views: int) -> dict[str, Any]:
    """Seconds and peak memory of a long capture, every image paired with the next three."""
    predictions = Many(room, views, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    start = time.perf_counter()
    found = align([(room["H"], room["W"])] * views, predictions, predictions.matches)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    score = room["score"](predictions.truth, found.world_from_camera, found.K[:, 0, 0])
    return {
        "views": views,
        "pairs": len(predictions.pairs),
        "seconds": round(seconds, 1),
        "peak_mb": round(after),
        "peak_mb_before": round(before),
        "used": int(found.used.sum()),
        "ate_rmse_m": round(score["ate_rmse_m"], 5),
        "rot_mean_deg": round(score["rot_mean_deg"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", nargs="+", default=["8:0"], help="VIEWS:SEED")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of the plain run")
    parser.add_argument("--many", type=int, help="align a capture of this many views instead")
    parser.add_argument("--cache", type=Path, help="folder to keep the scenes in")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "alignment.json"
    )
    given = parser.parse_args()
    room = runpy.run_path(str(PLACE / "ga_scene.py"))
    if given.many:
        row = many(room, given.many)
        print(row)
        content = json.loads(given.out.read_text()) if given.out.exists() else {}
        content["many"] = [each for each in content.get("many", []) if each["views"] != given.many]
        content["many"].append(row)
        given.out.write_text(json.dumps(content, indent=1))
        return
    official = json.loads((PLACE / "official_8_views.json").read_text())
    before = json.loads(given.out.read_text()) if given.out.exists() else {}
    content: dict[str, Any] = {
        "many": before.get("many", []),
        "machine": {
            "processor": processor(),
            "threads": numba.get_num_threads(),
            "platform": platform.platform(),
            "load_average_at_start": os.getloadavg(),
        },
        "official_8_views_quoted": next(each for each in official if each["variant"] == "t2"),
        "scenes": {},
    }
    for scene in given.scenes:
        views, seed = map(int, scene.split(":"))
        case = Case(room, views, seed, given.cache)
        case.run()  # compile
        rows = dict(case.variants())
        times = [case.run()["seconds"] for _ in range(given.repeats)]
        rows["plain"]["seconds"] = statistics.median(times)
        content["scenes"][scene] = rows
        for name, row in rows.items():
            print(
                f"{scene:6} {name:18} {row['seconds']:6.1f} s  cameras "
                f"{1000 * row['ate_rmse_m']:.2f} mm {row['rot_mean_deg']:.3f} deg, focal "
                f"{100 * row['focal_relerr_mean']:.3f} %, points "
                f"{1000 * row['dense_pt_err_median_m']:.1f} mm median "
                f"{1000 * row['dense_pt_err_mean_m']:.1f} mean",
                flush=True,
            )
        content["machine"]["load_average_at_end"] = os.getloadavg()
        given.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
