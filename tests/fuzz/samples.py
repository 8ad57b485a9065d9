"""Small valid inputs of every kind, and how lift3d reads each."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tiny_captures
import tiny_scan as tiny
from PIL import Image
from plyfile import PlyData, PlyElement
from test_annotation import write_scene
from test_davis import video as write_davis
from test_scannet_surface import annotate
from tiny_scan import COLOR_K, COLOR_SIZE, DEPTH_K, DEPTH_SIZE, tiny_scan

from lift3d.cli import main
from lift3d.datasets import read_scene
from lift3d.evaluation.metrics.scannet import Prediction
from lift3d.evaluation.metrics.submission import write_submission
from lift3d.evaluation.truth import read_truth
from lift3d.reconstruction.fusion import given_points
from lift3d.reconstruction.pairs import _from_file
from lift3d.run.feed import read_labelled
from lift3d.run.run import Run
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation.folder import FolderConfig

TWO = {"color": (COLOR_K, COLOR_SIZE), "depth": (DEPTH_K, DEPTH_SIZE)}
Rng = np.random.Generator


class WrongStatus(Exception):
    """The command ended with a status that stands for a fault of the system or of lift3d."""


@dataclass(frozen=True)
class Sample:
    """`make` writes it into a folder; `read` reads it there, or raises an error of lift3d."""

    make: Callable[[Path], None]
    read: Callable[[Path, Path, Rng], None]
    """Takes the folder, the file in it that was damaged, and a generator for its choices."""
    weight: float = 1.0
    below: str = ""
    """Only files whose path begins so are damaged."""


def command(*words: object) -> None:
    """Run `lift3d`; 0 and 2 are right answers."""
    status = main([str(each) for each in words])
    if status not in (0, 2):
        raise WrongStatus(f"{status} of {words[0]}")


def scan(path: Path, changed: Path, rng: Rng) -> None:
    """Everything a scan holds."""
    command("info", path)
    scene = read_scene(path)
    for view in scene.views:
        for load in (view.image, view.depth, view.confidence, view.instances):
            with contextlib.suppress(InputError):
                load()
    for load in (scene.load_surface, scene.load_points):
        if load is not None:
            with contextlib.suppress(InputError):
                load()


def names(count: int, form: str) -> list[str]:
    return [form.format(i) for i in range(count)]


def sens(path: Path, **coding: str) -> None:
    scene = path / "scene0000_00"
    scene.mkdir()
    tiny.write_sens(scene / "scene0000_00.sens", tiny_scan(**TWO), **coding)
    annotate(scene, "scene0000_00")


def scannet(path: Path) -> None:
    tiny.write_scannet(path, tiny_scan(**TWO))
    annotate(path, path.name)


def rgbd(path: Path) -> None:
    tiny.write_rgbd_json(path, tiny_scan(**TWO, names=names(4, "img_{}")))
    given = json.loads((path / "rgbd.json").read_text())
    given |= {"depth_K": [62.0, 63.0, 31.0, 24.5], "distortion": [0.01, 0.0, 0.0, 0.0]}
    (path / "rgbd.json").write_text(json.dumps(given | {"depth_invalid": [65535]}))


def nerfstudio(path: Path) -> None:
    given = tiny_scan(names=names(4, "frame_{:05d}"))
    tiny.write_transforms(path, given, ply_file_path="cloud.ply", applied_scale=1.0)
    cloud(path / "cloud.ply")
    content = json.loads((path / "transforms.json").read_text())
    np.savez_compressed(path / "sparse.npz", depth=given.depths[0])
    del content["frames"][0]["depth_file_path"]
    content["frames"][0]["sparse_depth_path"] = "sparse.npz"
    content |= {"applied_transform": np.eye(4)[:3].tolist(), "k1": 0.01}
    (path / "transforms.json").write_text(json.dumps(content))


def colmap(path: Path, text: bool = False) -> None:
    import pycolmap

    tiny.write_colmap(path, tiny_scan(names=names(4, "IMG_{}")))
    (path / "sparse/lift3d.json").write_text('{"metric": true}')
    if text:
        pycolmap.Reconstruction(str(path / "sparse")).write_text(str(path / "sparse"))
        for file in (path / "sparse").glob("*.bin"):
            file.unlink()


def capture(name: str) -> Callable[[Path], None]:
    """A small capture of an app; photos instead where the library that it needs is absent."""

    def make(path: Path) -> None:
        needs = tiny_captures.NEEDS.get(name)
        there = needs is None or importlib.util.find_spec(needs)
        path.mkdir(exist_ok=True)
        tiny_captures.CAPTURES[name][0](path) if there else photos(path)

    return make


def photos(path: Path) -> None:
    path.mkdir(exist_ok=True)
    for i, image in enumerate(tiny_scan().images):
        exif = Image.Exif()
        exif[0x0112] = 6
        exif.get_ifd(0x8769)[0xA405] = 28
        suffix = (".jpg", ".png", ".webp", ".jpg")[i]
        Image.fromarray(image).save(path / f"{i}{suffix}", exif=exif.tobytes())


def video(path: Path) -> None:
    import cv2

    rough = np.random.default_rng(0).integers(0, 255, (30, 200, 3)).astype(np.uint8)
    wide = cv2.resize(rough, (800, 120))
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path / "walk.avi"), code, 25.0, (160, 120))
    for i in range(8):
        writer.write(np.ascontiguousarray(wide[:, 12 * i : 12 * i + 160]))
    writer.release()


def cloud(path: Path, text: bool = False) -> Path:
    """A mesh of 60 vertices with everything that a reader looks for; returns the file."""
    rng = np.random.default_rng(0)
    floats = [(each, "f4") for each in ("x", "y", "z", "nx", "ny", "nz")]
    colours = [(each, "u1") for each in ("red", "green", "blue")]
    vertex = np.zeros(60, [*floats, *colours, ("label", "i4"), ("semantic", "u2")])
    for name, _ in floats:
        vertex[name] = rng.random(60)
    vertex["label"], vertex["semantic"] = np.arange(60) // 20, np.arange(60) // 30
    face = np.array([([i, i + 1, i + 2],) for i in range(9)], [("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData(elements, text=text).write(str(path))
    return path


def clouds(path: Path) -> None:
    cloud(path / "binary.ply")
    cloud(path / "text.ply", text=True)
    faces = PlyData.read(str(cloud(path / "bare.ply")))
    kept = faces["vertex"].data[["x", "y", "z"]]
    vertex = np.zeros(60, [(axis, "f8") for axis in "xyz"])
    for axis in "xyz":
        vertex[axis] = kept[axis]
    PlyData([PlyElement.describe(vertex, "vertex"), faces["face"]]).write(str(path / "bare.ply"))


def read_clouds(path: Path, changed: Path, rng: Rng) -> None:
    for read in (given_points, read_truth, read_labelled):
        with contextlib.suppress(InputError):
            read(changed)


def scannet_truth(path: Path) -> None:
    write_scene(path / "scene0000_00", (1, 5, 5, 39, 40), table=True)


def scannetpp_truth(path: Path) -> None:
    cloud(path / "mesh_aligned_0.05.ply")
    segments = (np.arange(60) // 5).tolist()
    (path / "segments.json").write_text(json.dumps({"segIndices": segments}))
    groups = [{"label": name, "segments": [i, i + 5]} for i, name in enumerate(("chair", "wall"))]
    groups = [each | {"objectId": i + 1} for i, each in enumerate(groups)]
    (path / "segments_anno.json").write_text(json.dumps({"segGroups": groups}))
    (path / "mesh_aligned_0.05_mask.txt").write_text("3\n4\n")
    (path / "top100_instance.txt").write_text("chair\ntable\n")


def truth(path: Path, changed: Path, rng: Rng) -> None:
    for folder in (path, *(each for each in path.iterdir() if each.is_dir())):
        with contextlib.suppress(InputError):
            for each in read_truth(folder).protocols():
                assert each.instance.ndim == 1


def submission(path: Path) -> None:
    rng = np.random.default_rng(0)
    for scene, form in (("a", "scannet"), ("b", "scannetpp")):
        masks = [Prediction(rng.random(60) < 0.4, 5, 0.5) for _ in range(2)]
        write_submission(path / "given", scene, masks, form)
    (path / "truth").mkdir()
    np.savetxt(path / "truth/a.txt", 5000 + np.arange(60) // 20, fmt="%d")
    np.save(path / "truth/b.npy", 5000 + np.arange(60) // 20)


def score_submission(path: Path, changed: Path, rng: Rng) -> None:
    command("evaluate", path / "given", "--truth", path / "truth")


def masks(path: Path) -> None:
    """Masks of each kind for the four views of a scan."""
    given = tiny_scan()
    tiny.write_scannet(path / "scan", given)
    stack = np.stack([given.instances[0] == each for each in (1, 2)])
    write_label_map(path / "masks", "0", given.instances[0])
    write_label_map(path / "masks", "1", given.instances[1] + 70_000)
    np.save(path / "masks/2.npy", stack)
    (path / "masks/3").mkdir()
    for i, mask in enumerate(stack):
        Image.fromarray(mask).save(path / f"masks/3/{i}.png")
    np.savez_compressed(path / "masks/4.npz", masks=stack)
    colour = np.repeat(given.instances[0][..., None], 3, 2).astype(np.uint8)
    Image.fromarray(colour).save(path / "masks/5.png")
    shape = given.instances[0].shape
    code = {"size": list(shape), "counts": [40, 60, shape[0] * shape[1] - 100]}
    polygon = [[2.0, 2.0, 9.0, 2.0, 9.0, 9.0]]
    listed = [{"segmentation": code, "predicted_iou": 0.9}, {"segmentation": polygon}]
    (path / "masks/6.json").write_text(json.dumps(listed))
    corners = np.array(polygon).reshape(-1, 2).tolist()
    shape_of = {"label": "cup", "shape_type": "polygon", "points": corners, "group_id": None}
    sizes = {"imageHeight": shape[0], "imageWidth": shape[1]}
    (path / "masks/7.json").write_text(json.dumps({"shapes": [shape_of], **sizes}))
    (path / "masks/8.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9\n")


def read_masks(path: Path, changed: Path, rng: Rng) -> None:
    segmenter = FolderConfig(path / "masks", allow_missing=True).build()
    view = read_scene(path / "scan").views[0]
    for name in map(str, range(9)):
        with contextlib.suppress(InputError):
            segmenter.segment(type(view)(name, view.camera, view.load_image))


def poses(path: Path) -> None:
    """The other formats of RGB-D folders, which differ in poses and K."""
    tiny.write_hololens(path / "hololens", tiny_scan(names=["00051", "00055", "00060", "00063"]))
    tiny.write_apc(path / "apc", tiny_scan(names=names(4, "frame-{:06d}"), nearer=0.9))
    tiny.write_open3d(path / "open3d", tiny_scan(names=["00000", "00004", "00008", "00012"]))
    tiny.write_tum(path / "tum", tiny_scan(names=[f"{1.5 + i / 10:.6f}" for i in range(4)]))
    big = (COLOR_K, (1200, 680))
    tiny.write_replica(path / "replica", tiny_scan(big, big, 2, names(2, "frame{:06d}")))
    tiny.write_seven_scenes(path / "seven", tiny_scan())
    tiny.write_posed_images(path / "posed", tiny_scan())


def scans(path: Path, changed: Path, rng: Rng) -> None:
    """The one of several scans that was damaged."""
    scan(path / changed.relative_to(path).parts[0], changed, rng)


def pairs(path: Path) -> None:
    (path / "pairs.txt").write_text("# two names\na.jpg b.jpg\nb c\n")


def read_pairs(path: Path, changed: Path, rng: Rng) -> None:
    _from_file(path / "pairs.txt", ["a", "b", "c"])


def pointcept(path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("coord", "normal"):
        np.save(path / f"{name}.npy", rng.random((9, 3)).astype(np.float32))
    np.save(path / "color.npy", np.zeros((9, 3), np.uint8))
    for name in ("segment", "instance"):
        np.save(path / f"{name}.npy", np.arange(9) - 1)


def read_pointcept(path: Path, changed: Path, rng: Rng) -> None:
    read_labelled(path)


def run(path: Path) -> None:
    """A finished run, its scan and a truth."""
    given = tiny_scan(views=4)
    tiny.write_scannet(path / "scan", given)
    for name, labels in zip(given.names, given.instances, strict=True):
        write_label_map(path / "masks", name, labels)
    words = ("lift", path / "scan", "--out", path / "run", "--voxel", "0.08")
    command(*words, "segmentation:folder", "--segmentation.path", path / "masks")
    cloud(path / "truth.ply")
    for gone in ("report.html", "cloud.png", "labels_coloured", "masks_coloured", "heat"):
        if (path / "run" / gone).is_dir():
            shutil.rmtree(path / "run" / gone)
        else:
            (path / "run" / gone).unlink(missing_ok=True)


def read_run(path: Path, changed: Path, rng: Rng) -> None:
    """One of the commands that read a run, and what Python reads of it."""
    folder = path / "run"
    words: tuple[tuple[object, ...], ...] = (
        ("info", folder),
        ("why", folder, "1", "20", "20"),
        ("evaluate", folder, "--truth", path / "truth.ply"),
        ("export", folder, "--to", "ply", "npz", "--out", path / "out"),
        ("export", folder, "--to", "nerfstudio", "--out", path / "out"),
    )
    command(*words[int(rng.integers(len(words)))])
    found = Run.open(folder)
    for name in ("automatic", "assignments", "surface", "objects", "palette", "records", "points"):
        with contextlib.suppress(InputError):
            getattr(found, name)
    for maps in (found.labels, found.mask_sets):
        for each in maps:
            with contextlib.suppress(InputError):
                maps[each]


def lift(path: Path, changed: Path, rng: Rng) -> None:
    """The whole command, over a damaged scan, damaged masks or a damaged run."""
    words = ("lift", path / "scan", "--out", path / "run", "--voxel", "0.08")
    command(*words, "segmentation:folder", "--segmentation.path", path / "masks")


def run_and_cloud(path: Path) -> None:
    run(path)
    cloud(path / "cloud.ply")


def lift_cloud(path: Path, changed: Path, rng: Rng) -> None:
    """Labels for the vertices of a damaged PLY."""
    words = ("lift", path / "scan", "--out", path / "run", "--cloud", path / "cloud.ply")
    command(*words, "segmentation:folder", "--segmentation.path", path / "masks")


def sam_folder(path: Path) -> None:
    """A tiny SAM as on the Hugging Face hub."""
    from tiny_sam import tiny_sam

    model, processor = tiny_sam()
    model.save_pretrained(path)
    processor.save_pretrained(path)


def read_sam_folder(path: Path, changed: Path, rng: Rng) -> None:
    from lift3d.networks.sam.transformers import TransformersNetwork

    network = TransformersNetwork(str(path), local_files_only=True, device="cpu")
    network.encode(np.zeros((20, 30, 3), np.uint8))


def sam_weights(path: Path) -> None:
    """A tiny SAM as its authors publish it, and one that names its weights by numbers."""
    import torch
    from tiny_sam import TOY, authors_model

    state = authors_model(TOY).state_dict()
    torch.save(state, path / "names.pth")
    torch.save({"model": dict(enumerate(state.values()))}, path / "numbers.pth")


def read_sam_weights(path: Path, changed: Path, rng: Rng) -> None:
    from lift3d.networks.sam.official import load

    load(changed)


def mast3r(path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from tiny_mast3r import write_checkpoint

    from lift3d.networks.mast3r.checkpoint import parse_call

    content = torch.load(write_checkpoint(path / "tiny.pth"), weights_only=False)
    (path / "hub").mkdir()
    options = parse_call(content["args"].model, path)
    (path / "hub/config.json").write_text(json.dumps(options, default=str).replace("Infinity", "1"))
    state = {name: each.clone() for name, each in content["model"].items()}
    save_file(state, path / "hub/model.safetensors")


def read_mast3r(path: Path, changed: Path, rng: Rng) -> None:
    from lift3d.networks.mast3r.checkpoint import load

    load(changed if changed.suffix == ".pth" else path / "hub")


MODELS = {
    "sam-hf": Sample(sam_folder, read_sam_folder, 2),
    "sam-pth": Sample(sam_weights, read_sam_weights),
    "mast3r": Sample(mast3r, read_mast3r),
}
"""They take torch and transformers, which are slow to start, so they have runs of their own."""

SAMPLES = {
    "sens": Sample(lambda path: sens(path, color="jpeg", depth="zlib"), scans),
    "sens-raw": Sample(lambda path: sens(path, color="raw", depth="raw"), scans, 0.5),
    "scannet": Sample(scannet, scan, 1.5),
    "rgbd": Sample(rgbd, scan, 1.5),
    "nerfstudio": Sample(nerfstudio, scan, 2),
    "colmap": Sample(colmap, scan, 1.5),
    "colmap-text": Sample(lambda path: colmap(path, True), scan),
    **{name: Sample(capture(name), scan, 0.4) for name in tiny_captures.CAPTURES},
    "photos": Sample(photos, scan),
    "davis": Sample(lambda path: write_davis(path, "480p/swan", mode="P") and None, scan, 0.5),
    "video": Sample(video, scans, 0.3),
    "poses": Sample(poses, scans, 2),
    "masks": Sample(masks, read_masks, 2, "masks/"),
    "clouds": Sample(clouds, read_clouds, 2),
    "scannet-truth": Sample(scannet_truth, truth, 1.5),
    "scannetpp-truth": Sample(scannetpp_truth, truth, 1.5),
    "submission": Sample(submission, score_submission, 1.5),
    "pairs": Sample(pairs, read_pairs, 0.3),
    "pointcept": Sample(pointcept, read_pointcept, 0.5),
    "run": Sample(run, read_run, 3, "run/"),
    "lift": Sample(run, lift, 0.2),
    "lift-cloud": Sample(run_and_cloud, lift_cloud, 0.1, "cloud"),
}
