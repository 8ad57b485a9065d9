"""What corrections are worth and whether they are safe; run by benchmarks/page.py."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np
from page_client import Client
from scipy.spatial import cKDTree

from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.run.run import Run
from lift3d.scene.errors import InputError

LEAST = 50
"""Points of a true object that counts."""
REACH = 0.03
"""A point of the cloud is of the true object that is at most this far, in metres."""


@contextmanager
def copied(run: Path) -> Iterator[Path]:
    """A copy of a run, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(run, Path(folder) / "run", symlinks=True)
        yield Path(folder) / "run"


def truth_of(run: Run) -> Truth:
    """The true surface of the demo's room, without walls, floor and ceiling."""
    scene = run.whole_scene
    assert scene.load_surface is not None
    return Truth.of_surface(scene.load_surface(), scene.void_classes)


def true_objects(run: Run, truth: Truth) -> dict[int, np.ndarray]:
    """The points of the cloud that each true object has."""
    far, nearest = cKDTree(truth.points).query(run.points.xyz)
    label = np.where(far <= REACH, truth.instance[nearest], 0)
    ids, counts = np.unique(label[label > 0], return_counts=True)
    return {int(i): np.flatnonzero(label == i) for i in ids[counts >= LEAST]}


def overlaps(label: np.ndarray, objects: dict[int, np.ndarray]) -> dict[int, float]:
    """The IoU of each true object with the object that fits it best."""
    size = np.bincount(label)
    found = {}
    for each, index in objects.items():
        inside = np.bincount(label[index], minlength=len(size))
        union = len(index) + size - inside
        found[each] = float((inside[1:] / union[1:]).max(initial=0))
    return found


def middle(run: Run, index: np.ndarray) -> int:
    """The point of an object that is nearest to its median: where a person would click."""
    xyz = run.points.xyz[index]
    return int(index[np.argmin(((xyz - np.median(xyz, axis=0)) ** 2).sum(1))])


def splits(folder: Path) -> str:
    """Check 4: one click on each thing in every object that holds several."""
    with copied(folder) as copy:
        run = Run.open(copy)
        truth, edits = truth_of(run), run.edits
        objects = true_objects(run, truth)
        confidence = {each.id: each.confidence for each in edits.objects}
        before = overlaps(edits.label, objects)
        first = score(edits.cloud, confidence, truth)
        edits.prepare_split()  # as the page's server does in the background
        glued: dict[int, list[int]] = {}
        for each, index in objects.items():
            ids, counts = np.unique(edits.label[index], return_counts=True)
            best = int(ids[np.argmax(counts)])
            if best and counts.max() > 0.5 * len(index):
                glued.setdefault(best, []).append(each)
        clicks, slowest = 0, 0.0
        for best, inside in glued.items():
            if len(inside) < 2:
                continue
            own = np.flatnonzero(edits.label == best)
            held = sum(len(np.intersect1d(own, objects[each])) for each in inside)
            if held < 0.5 * len(own):
                continue  # something else, such as a wall with things on it
            at = [np.intersect1d(own, objects[each]) for each in inside]
            places = [run.points.xyz[middle(run, index)].tolist() for index in at]
            began = time.perf_counter()
            edits.split(best, places)
            slowest = max(slowest, time.perf_counter() - began)
            clicks += len(places)
        after = overlaps(edits.label, objects)
        confidence = {each.id: each.confidence for each in edits.objects}
        last = score(edits.cloud, confidence, truth)

    def told(found: dict[int, float]) -> str:
        values = np.array(list(found.values()))
        return f"{values.mean():.3f}, {np.count_nonzero(values > 0.5)} of {len(values)} found"

    return (
        f"{clicks} clicks: mean IoU {told(before)} -> {told(after)} (wanted 0.78, 40 of 45); "
        f"AP {first['ap']:.3f} -> {last['ap']:.3f}, AP50 {first['ap50']:.3f} -> {last['ap50']:.3f} "
        f"(wanted 0.90); slowest split {slowest:.2f} s (wanted 0.5)"
    )


def clicks(folder: Path) -> str:
    """Check 5, without weights: one click, and at most three presses of Tab."""
    run = Run.open(folder)
    objects = true_objects(run, truth_of(run))
    edits = run.edits
    single, pressed, slowest = [], [], 0.0
    for index in objects.values():
        seed, values = middle(run, index), []
        began = time.perf_counter()
        found = edits.propose_tree(seed)
        slowest = max(slowest, time.perf_counter() - began)
        for step in (0, 1, 2, 3, -1, -2, -3):
            level = min(max(found.level + step, 0), found.levels - 1)
            points = edits.propose_tree(seed, level).points
            both = len(np.intersect1d(points, index))
            values.append(both / (len(points) + len(index) - both))
        single.append(values[0])
        pressed.append(max(values))
    return (
        f"tree: mean IoU {np.mean(single):.3f} by the click alone, {np.mean(pressed):.3f} with at "
        f"most 3 presses (wanted 0.75) over {len(objects)} objects; {slowest:.2f} s (wanted 1); "
        "a segmenter needs weights and is not measured here"
    )


def random_edit(run: Run, rng: np.random.Generator) -> None:
    """One edit of a random kind; one that changes nothing is left out."""
    edits = run.edits
    ids = [each.id for each in edits.objects if each.points > 30]
    one, two = (int(each) for each in rng.choice(ids, 2, replace=False))
    xyz = run.points.xyz
    kind = rng.choice(["merge", "split", "delete", "paint", "lasso", "name"])
    try:
        if kind == "merge":
            edits.merge([one, two])
        elif kind == "split":
            edits.split(one, xyz[rng.choice(edits.points_of(one), 2, replace=False)])
        elif kind == "delete":
            edits.delete([one], rng.choice(["unlabelled", "neighbours"]))
        elif kind == "paint":
            name = str(rng.choice(list(run.cameras)))
            camera = run.cameras[name]
            mask = np.zeros((camera.height, camera.width), bool)
            row, column = rng.integers(camera.height - 60), rng.integers(camera.width - 60)
            mask[row : row + 50, column : column + 50] = True
            edits.paint(name, mask, None if rng.random() < 0.5 else one)
        elif kind == "lasso":
            near = ((xyz - xyz[rng.integers(len(xyz))]) ** 2).sum(1) < 0.15**2
            edits.select(np.flatnonzero(near), None if rng.random() < 0.5 else one)
        else:
            edits.name(one, f"thing {rng.integers(1000)}")
    except InputError:
        return


def follows(folder: Path, count: int = 50) -> str:
    """Check 7."""
    rng = np.random.default_rng(0)
    with copied(folder) as copy:
        run = Run.open(copy)
        while len(run.edits.all) < count:
            random_edit(run, rng)
        run.edits.prepare_agreement()
        about = run.edits.agreement()
        run.edits.save()
        done = Run.open(copy)
        listed = {each.id for each in done.objects}
        shown = set()
        for name in done.cameras:
            shown |= set(np.unique(done.labels[name]).tolist())
        cloud = set(np.unique(done.cloud.instance).tolist())
        checked, before = done.consistency, Run.open(folder).consistency
    full = checked["printed"]["foreground"]["H_prime"]  # over labelled pixels, as the page's
    agreement = "agreement_overall"
    return (
        f"{count} edits: ids in label maps but not listed {len(shown - listed - {0})}, listed but "
        f"in no cloud {len(listed - cloud)}, listed but in no view {len(listed - shown)}; "
        f"reprojection {before['reprojection'][agreement]:.4f} -> "
        f"{checked['reprojection'][agreement]:.4f} (wanted not lower); H' of the page "
        f"{100 * about.corrected.H_prime:.2f}, of the check {100 * full:.2f} (wanted within 0.5); "
        f"consistency.json has {sorted({'automatic', 'corrected'} & set(checked))}"
    )


def digest(folder: Path) -> str:
    """One number for all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


class Started:
    """The command `lift3d view` in a process of its own."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "lift3d", "view", str(run), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        host, _, token = self.address.partition("/?token=")
        self.server_address = ("127.0.0.1", int(host.rpartition(":")[2]))
        self.token = token

    def client(self) -> Client:
        """Who asks as the page does."""
        found = Client.__new__(Client)
        found.who, found.token, found.host = "u1", self.token, "127.0.0.1"
        found.port = self.server_address[1]
        found.name = f"127.0.0.1:{found.port}"
        return found

    def kill(self) -> None:
        """As a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def killed(folder: Path, times: int = 100) -> str:
    """Check 8."""
    rng = random.Random(0)
    lost = extra = torn = kept = 0
    with copied(folder) as copy:
        automatic = digest(copy / "automatic")
        ids = [each.id for each in Run.open(copy).objects][:20]
        for _ in range(times):
            started = Started(copy)
            client = started.client()
            told: list[int] = []
            after = rng.randrange(1, 6)
            while True:
                if len(told) == after:  # while one of the next edits is on its way
                    threading.Timer(rng.uniform(0, 0.1), started.kill).start()
                try:
                    name = f"thing {rng.randrange(10**6)}"
                    told.append(client.edit("name", id=rng.choice(ids), name=name)["n"])
                except (OSError, HTTPException):
                    break
            started.process.wait()
            started.process.stdout.close()
            run = Run.open(copy)
            on_disk = [each.n for each in run.edits.all]
            lost += len(set(told) - set(on_disk))
            extra = max(extra, len(on_disk) - max([kept, *told]))
            kept = len(on_disk)
            torn += (copy / "edits.torn").exists()
        same = digest(copy / "automatic") == automatic
    with copied(folder) as copy:
        run = Run.open(copy)
        rng_edits = np.random.default_rng(1)
        first = run.edits.label.copy()
        while len(run.edits.all) < 100:
            random_edit(run, rng_edits)
        last = run.edits.label.copy()
        for each in reversed(run.edits.active):
            run.edits.undo(each.n)
        undone = np.array_equal(run.edits.label, first)
        while run.edits.undone():
            run.edits.redo()
        redone = np.array_equal(run.edits.label, last)
        lines = [json.loads(each) for each in (copy / "edits.jsonl").read_text().splitlines()]
    return (
        f"{times} kills, {kept} edits: told as kept but lost {lost}, at most {extra} in flight, "
        f"torn lines set aside {torn}, automatic labels the same: {same}; 100 edits undone: first "
        f"labels {undone}, redone: last labels {redone}, {len(lines)} lines"
    )
