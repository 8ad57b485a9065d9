"""Lifting with all stages: the files of a run, the stages that run again, bounded memory."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet

from lift3d import segmentation
from lift3d.association import AssociationConfig, associate
from lift3d.cli.summary import print_run
from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.check import check
from lift3d.export.instances import write_instances
from lift3d.export.ply import read_cloud, write_cloud
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.run import lift as lifting
from lift3d.run import settings
from lift3d.run.lift import lift
from lift3d.run.record import read_json
from lift3d.run.settings import KINDS, LiftConfig, as_json, backend_name, unknown_backend
from lift3d.scene import LabelledPoints, labelmaps
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import read_label_map, true_label_maps, write_label_map
from lift3d.scene.prefetch import AHEAD, THREADS
from lift3d.segmentation import tracking

Folder = segmentation.BACKENDS["folder"]
Independent = tracking.BACKENDS["independent"]


@pytest.fixture(scope="module")
def scene():
    return SyntheticConfig(views=8, width=80, height=60).read()


@pytest.fixture(scope="module")
def true_masks(scene, tmp_path_factory):
    """The true masks, ids shuffled in every view."""
    folder = tmp_path_factory.mktemp("masks")
    for number, view in enumerate(scene.views):
        labels = view.instances()
        shuffled = np.random.default_rng(number).permutation(200).astype(np.int32) + 1
        write_label_map(folder, view.name, np.where(labels > 0, shuffled[labels], 0))
    return folder


@pytest.fixture(scope="module")
def config(true_masks, tmp_path_factory):
    out = tmp_path_factory.mktemp("lifted") / "run"
    return LiftConfig(Path("synthetic"), out, voxel=0.05, segmentation=Folder(path=true_masks))


@pytest.fixture(scope="module")
def lifted(config, scene):
    return lift(config, scene, command=["lift3d", "lift", "synthetic"])


def fresh(lifted):
    return [name for name, record in lifted.records.items() if not record.reused]


def test_the_run_folder_has_the_documented_files(lifted, scene):
    there = {path.name for path in lifted.folder.iterdir() if not path.name.startswith(".")}
    assert there >= {
        *("run.json", "scene.json", "labels", "cloud.ply", "instances.json"),
        *("consistency.json", "report.html", "cloud.png", "cloud_labels.ply"),
    }
    names = sorted(path.stem for path in (lifted.folder / "labels").iterdir())
    assert names == [view.name for view in scene.views]


def test_labels_of_views_cloud_and_list_are_the_same_ids(lifted):
    cloud = read_cloud(lifted.folder / "cloud.ply")
    listed = json.loads((lifted.folder / "instances.json").read_text())["instances"]
    in_cloud = set(np.unique(cloud.instance).tolist()) - {0}
    in_views = set()
    for path in (lifted.folder / "labels").iterdir():
        in_views |= set(np.unique(read_label_map(path)).tolist())
    assert in_cloud == {each["id"] for each in listed}
    assert in_views - {0} <= in_cloud
    assert len(in_cloud) > 5


def test_the_labelled_cloud_has_one_colour_per_object(lifted):
    cloud = read_cloud(lifted.folder / "cloud_labels.ply")
    for each in (0, 1, 2):
        assert len(np.unique(cloud.points.rgb[cloud.instance == each], axis=0)) == 1


def test_run_json_is_enough_to_repeat_the_run(lifted, config):
    run = json.loads((lifted.folder / "run.json").read_text())
    assert run["command"] == ["lift3d", "lift", "synthetic"]
    assert run["seed"] == 0
    assert run["settings"]["segmentation"]["backend"] == "folder"
    assert run["settings"]["tracking"]["backend"] == "independent"
    assert run["settings"]["voxel"] == run["settings"]["fusion"]["voxel"] == 0.05
    assert {"lift3d", "python", "numpy", "numba"} <= run["versions"].keys()
    assert run["host"]["cores"] >= 1
    assert [stage["name"] for stage in run["stages"]] == list(lifted.records)
    for stage in run["stages"]:
        assert stage["seconds_per_view"] == pytest.approx(stage["seconds"] / 8, abs=1e-3)
    assert run["peak_memory_mb"] > 50


def test_consistency_is_given_for_all_and_labelled_pixels_and_every_exclusion(lifted):
    found = json.loads((lifted.folder / "consistency.json").read_text())
    for scope in ("all", "foreground"):
        assert found[scope].keys() == {"nothing", "self", "view"}
        assert found["printed"][scope]["H"] == found[scope]["view"]["H"]
    assert 0 < found["printed"]["coverage"] <= 1
    assert found["reprojection"]["agreement"] > 0.5
    assert 0 <= found["truth"]["ap"] <= found["truth"]["ap50"] <= 1
    assert found["truth"]["protocol"]


def test_where_nothing_is_labelled_no_h_is_shown(lifted, scene, tmp_path, capsys):
    """Views without any labels agree, but that is no quality."""
    cloud = read_cloud(lifted.folder / "cloud.ply")
    nothing = dataclasses.replace(cloud, instance=np.zeros_like(cloud.instance))
    empty = np.zeros((scene.views[0].camera.height, scene.views[0].camera.width), np.int32)
    found, _ = check(scene, nothing, {view.name: empty for view in scene.views})
    assert found["all"]["view"]["H"] == 1
    assert found["printed"]["all"] == {"H": None, "H_prime": None}
    shutil.copy(lifted.folder / "run.json", tmp_path)
    (tmp_path / "consistency.json").write_text(json.dumps(found))
    write_instances(tmp_path / "instances.json", nothing, {}, {})
    print_run(tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert "H - (H' -) over all pixels" in shown
    assert "nothing is labelled" in shown


def test_lifting_again_repeats_nothing(lifted, config, scene):
    before = (config.out / "cloud.ply").read_bytes()
    assert fresh(lift(config, scene)) == []
    assert (config.out / "cloud.ply").read_bytes() == before


def test_networks_are_built_once_and_not_at_all_where_the_run_has_masks(
    config, scene, tmp_path, monkeypatch
):
    built, segmenter = [], LiftConfig.segmenter

    def counted(self):
        built.append(self)
        return segmenter(self)

    monkeypatch.setattr(LiftConfig, "segmenter", counted)
    monkeypatch.setattr(LiftConfig, "matcher", lambda self: pytest.fail("no matcher is needed"))
    here = dataclasses.replace(config, out=tmp_path / "run")
    lift(here, scene)
    assert len(built) == 1
    lift(dataclasses.replace(here, epsilon=0.03), scene)
    assert len(built) == 1


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"voxel": 0.04}, ["fuse", "associate", "correct", "check", "report"]),
        ({"tracking": tracking.BACKENDS["independent"]()}, []),
        ({"epsilon": 0.05}, ["check", "report"]),
        ({"seed": 1}, ["associate", "correct", "check", "report"]),
        ({"views": 7}, ["reconstruct", "fuse", "track", "associate", "correct", "check", "report"]),
    ],
)
def test_a_changed_setting_redoes_only_what_depends_on_it(
    lifted, config, scene, change, redone, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(config.out, out)
    again = lift(dataclasses.replace(config, out=out, **change), scene)
    assert fresh(again) == redone


def test_a_copied_run_accepts_copied_masks_and_notices_changed_ones(
    lifted, config, scene, true_masks, tmp_path
):
    shutil.copytree(config.out, tmp_path / "run")
    shutil.copytree(true_masks, tmp_path / "masks")
    moved = dataclasses.replace(
        config, out=tmp_path / "run", segmentation=Folder(path=tmp_path / "masks")
    )
    assert fresh(lift(moved, scene)) == []
    write_label_map(tmp_path / "masks", scene.views[0].name, np.ones((60, 80), np.int32))
    assert fresh(lift(moved, scene))[0] == "track"


def test_a_run_that_was_started_again_and_failed_does_not_count_as_finished(
    lifted, config, scene, tmp_path, monkeypatch
):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    shutil.copytree(config.out, tmp_path / "run")
    monkeypatch.setattr(lifting, "write_automatic", full)
    with pytest.raises(OSError, match="No space"):
        lift(dataclasses.replace(config, out=tmp_path / "run", seed=1), scene)
    with pytest.raises(InputError, match="is a run that is not finished"):
        read_json(tmp_path / "run", "run.json")


def test_given_points_keep_their_order_and_number(config, scene, tmp_path):
    surface = scene.load_surface()
    order = np.random.default_rng(0).permutation(len(surface))[:5000]
    given = surface.points.take(order)
    nothing = np.zeros(len(given), np.int32)
    write_cloud(tmp_path / "given.ply", LabelledPoints(given, nothing, nothing.astype(np.float32)))
    out = tmp_path / "run"
    lift(dataclasses.replace(config, out=out, cloud=tmp_path / "given.ply", voxel=None), scene)
    cloud = read_cloud(out / "cloud.ply")
    assert np.array_equal(cloud.points.xyz, given.xyz)
    assert (cloud.instance > 0).mean() > 0.5


def test_consistent_ids_are_kept(scene, tmp_path):
    for view in scene.views:
        write_label_map(tmp_path / "masks", view.name, view.instances())
    given = Folder(path=tmp_path / "masks", ids="consistent")
    config = LiftConfig(Path("synthetic"), tmp_path / "run", voxel=0.05, segmentation=given)
    lift(config, scene)
    for view in scene.views:
        stored = read_label_map(tmp_path / "run/labels" / f"{view.name}.png")
        true = view.instances()
        assert np.array_equal(stored[stored > 0], true[stored > 0])
        assert (stored > 0).mean() > 0.8
    cloud, surface = read_cloud(tmp_path / "run/cloud.ply"), scene.load_surface()
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(surface.points.xyz).query(cloud.points.xyz)
    labelled = cloud.instance > 0
    assert (cloud.instance == surface.instance[nearest])[labelled].mean() > 0.8


def test_label_maps_are_read_a_few_at_a_time(config, scene, tmp_path, monkeypatch):
    """So that memory does not grow with the number of views."""
    import weakref

    alive, most = weakref.WeakSet(), 0

    class Watched(np.ndarray):
        pass

    def watched(path):
        nonlocal most
        labels = read_label_map(path).view(Watched)
        alive.add(_Holder(labels))
        most = max(most, len(alive))
        return labels

    class _Holder:
        """An object with the lifetime of its array."""

        def __init__(self, labels):
            labels.holder = self

    monkeypatch.setattr(labelmaps, "read_label_map", watched)
    lift(dataclasses.replace(config, out=tmp_path / "run"), scene)
    assert 1 <= most <= THREADS + AHEAD + 2 < len(scene)  # those being read, and the current one


def test_views_that_are_left_out_are_listed_in_the_run(config, scene, tmp_path):
    def broken():
        raise FrameError("0003.png is a truncated PNG")

    views = list(scene.views)
    views[3] = dataclasses.replace(views[3], load_image=broken)
    config = dataclasses.replace(config, out=tmp_path / "run")
    found = lift(config, scene.with_views(views))
    assert len(found.scene) == 7
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert [frame["name"] for frame in run["skipped"]] == ["0003"]
    again = lift(config, scene.with_views(views))
    assert again.scene.skipped == found.scene.skipped


@pytest.mark.parametrize("name", ["independent", "given"])
def test_a_view_whose_masks_cannot_be_read_is_named_in_the_warnings(
    scene, true_masks, tmp_path, name
):
    masks = shutil.copytree(true_masks, tmp_path / "masks")
    (masks / "0003.png").write_bytes(b"no picture")
    config = LiftConfig(
        Path("synthetic"),
        tmp_path / "run",
        voxel=0.05,
        segmentation=Folder(path=masks),
        tracking=tracking.BACKENDS[name](),
    )
    for found in (lift(config, scene), lift(config, scene)):
        (warning,) = (each for each in found.warnings if "0003" in each)
        assert warning.startswith("view 0003 stays unlabelled: ")
        assert "is not an image that can be read" in warning
    assert warning in read_json(found.folder, "run.json")["warnings"]


@pytest.mark.parametrize("association", [{}, {"by_shape": True}, {"trust_ids": True}])
@pytest.mark.parametrize("what", ["load_depth", "load_confidence"])
def test_a_view_whose_depth_becomes_unreadable_is_left_out_of_later_stages_with_a_warning(
    scene, true_masks, tmp_path, association, what
):
    """The reconstruction can read it, the later stages cannot."""
    config = LiftConfig(
        Path("synthetic"),
        tmp_path / "run",
        voxel=0.05,
        segmentation=Folder(path=true_masks),
        association=AssociationConfig(**association),
    )
    torn = list(scene.views)
    torn[3] = dataclasses.replace(torn[3], **{what: fail})
    torn = scene.with_views(torn)
    points = VoxelConfig(voxel=0.05).build().fuse(scene)
    maps = true_label_maps(scene)
    found = associate(points, torn, maps, config.association)
    assert "view 0003 has no vote: 0003.png is torn" in found.warnings
    for index, view in enumerate(torn.views):
        assert found.relabel(index, view, maps[view.name]).shape == maps[view.name].shape
    complete = associate(points, scene, maps, config.association)
    assert (found.cloud.instance > 0).sum() > 0.8 * (complete.cloud.instance > 0).sum()
    checked, printed = check(torn, found.cloud, maps)
    assert [each.name for each in printed.skipped] == ["0003"]
    assert checked["reprojection"]["per_view"][3]["agreement"] is None
    assert printed.names == tuple(view.name for view in scene.views)


READ = []


def torn_later(load):
    """Depth that can be read twice, by the reconstruction and the fusion, and then fails."""
    READ.append(1)
    return fail() if len(READ) > 2 else load()


def test_a_run_finishes_though_a_depth_map_becomes_unreadable(scene, true_masks, tmp_path):
    READ.clear()
    views = list(scene.views)
    views[3] = dataclasses.replace(views[3], load_depth=partial(torn_later, views[3].load_depth))
    masks = Folder(path=true_masks)
    config = LiftConfig(Path("synthetic"), tmp_path / "run", voxel=0.05, segmentation=masks)
    found = lift(config, scene.with_views(views))
    assert "view 0003 has no vote: 0003.png is torn" in found.warnings
    warning = "view 0003 takes no part in the consistency: 0003.png is torn"
    assert warning in read_json(found.folder, "run.json")["warnings"]


def fail():
    raise FrameError("0003.png is torn")


def test_a_scene_without_any_mask_is_an_error(scene, tmp_path):
    for view in scene.views:
        write_label_map(tmp_path / "masks", view.name, np.zeros((60, 80), np.int32))
    empty = Folder(path=tmp_path / "masks")
    config = LiftConfig(Path("synthetic"), tmp_path / "run", segmentation=empty)
    with pytest.raises(InputError, match="no mask in any of 8 views"):
        lift(config, scene)


def test_a_folder_named_synthetic_is_read_instead_of_the_synthetic_scene(tmp_path, monkeypatch):
    assert read_scene(Path("synthetic:4")).source == "synthetic room, seed 4"
    monkeypatch.chdir(tmp_path)
    write_scannet(Path("synthetic"), tiny_scan())
    assert "scannet-folder" in read_scene(Path("synthetic")).source  # a real folder wins


def test_automatic_choices_are_made_before_the_run_and_recorded():
    plain = LiftConfig(Path("in"), Path("out")).resolved()
    assert backend_name("tracking", plain.tracking) == "independent"
    assert backend_name("reconstruction", plain.reconstruction) == "sensor"
    given = LiftConfig(Path("in"), Path("out"), segmentation=Folder(path=Path("m"))).resolved()
    assert backend_name("tracking", given.tracking) == "independent"
    assert json.loads(json.dumps(as_json(given)))["segmentation"]["path"] == "m"


def test_backends_without_a_seed_get_that_of_the_run():
    mastsam = tracking.BACKENDS["mastsam"]
    plain = LiftConfig(Path("in"), Path("out"), seed=5, tracking=mastsam())
    assert plain.resolved().tracking.seed == 5
    own = LiftConfig(Path("in"), Path("out"), seed=5, tracking=mastsam(seed=3)).resolved()
    assert own.tracking.seed == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("reader", "export")])
def test_an_explicit_seed_of_0_is_kept(kind):
    seeded = [each for each in KINDS[kind].values() if "seed" in each.__dataclass_fields__]
    for each in seeded:
        given = LiftConfig(Path("in"), Path("out"), seed=5, **{kind: each(seed=0)})
        assert getattr(given.resolved(), kind).seed == 0
        unset = LiftConfig(Path("in"), Path("out"), seed=5, **{kind: each()})
        assert getattr(unset.resolved(), kind).seed == 5


def test_an_unknown_backend_is_reported_and_other_words_are_not():
    assert "did you mean 'folder'" in unknown_backend("segmentation:foldr")
    assert unknown_backend("segmentation:folder") is None
    assert unknown_backend("C:\\scans") is None
    assert unknown_backend("--out") is None
    for kind, backends in KINDS.items():
        assert all(unknown_backend(f"{kind}:{name}") is None for name in backends)


def test_classes_are_voted_onto_the_points_one_per_object(config, scene, tmp_path):
    """Class 1 or 2 by true id, in maps of half the size."""
    classes = tmp_path / "classes"
    for view in scene.views:
        labels = view.instances()
        write_label_map(classes, view.name, np.where(labels > 0, 1 + labels % 2, 0)[::2, ::2])
    lifted = lift(dataclasses.replace(config, out=tmp_path / "run", classes=classes), scene)
    cloud = read_cloud(lifted.folder / "cloud.ply")
    assert cloud.semantic is not None
    assert set(np.unique(cloud.semantic).tolist()) <= {0, 1, 2}
    for each in np.unique(cloud.instance[cloud.instance > 0]):
        assert len(np.unique(cloud.semantic[cloud.instance == each])) == 1


def test_superpoints_are_merged_by_shape_only_for_masks_of_surfaces_with_dense_depth(
    true_masks, scene
):
    regions = LiftConfig(Path("in"), Path("out"))
    assert regions.resolved(scene).association.by_shape is True
    sparse = scene.with_views([dataclasses.replace(view, sparse=True) for view in scene.views])
    assert regions.resolved(sparse).association.by_shape is False
    given = dataclasses.replace(regions, segmentation=Folder(path=true_masks))
    assert given.resolved(scene).association.by_shape is False
    wanted = dataclasses.replace(
        given, association=dataclasses.replace(given.association, by_shape=True)
    )
    assert wanted.resolved(scene).association.by_shape is True


def test_photos_without_poses_go_to_colmap_and_posed_ones_do_not(scene):
    config = LiftConfig(Path("in"), Path("out"))
    assert backend_name("reconstruction", config.resolved(scene).reconstruction) == "sensor"
    photos = scene.with_views(
        [
            dataclasses.replace(
                view,
                load_depth=None,
                camera=dataclasses.replace(view.camera, world_from_camera=None),
            )
            for view in scene.views
        ]
    )
    resolved = config.resolved(photos)
    assert backend_name("reconstruction", resolved.reconstruction) == "colmap"
    assert backend_name("matching", resolved.matching) == "flow"


@pytest.mark.parametrize(("posed", "expected"), [(0, "colmap"), (3, "colmap"), (4, "sensor")])
def test_poses_are_used_where_at_least_half_of_the_views_have_one(scene, posed, expected):
    config = LiftConfig(Path("in"), Path("out"))
    some = scene.with_views([*scene.views[:posed], *map(unposed, scene.views[posed:])])
    assert backend_name("reconstruction", config.resolved(some).reconstruction) == expected
    assert len(settings.poses_unused(config, some)) == (posed == 3)


def test_unused_poses_give_a_warning(scene):
    config = LiftConfig(Path("in"), Path("out"))
    some = scene.with_views([scene.views[0], *map(unposed, scene.views[1:])])
    (warning,) = settings.poses_unused(config, some)
    assert "1 of 8 views" in warning
    assert "reconstruction:sensor" in warning
    chosen = dataclasses.replace(config, reconstruction=KINDS["reconstruction"]["sensor"]())
    assert not settings.poses_unused(chosen, some)


def test_views_without_a_pose_are_left_out_and_listed(config, scene, tmp_path):
    some = scene.with_views([*scene.views[:6], *map(unposed, scene.views[6:])])
    lifted = lift(dataclasses.replace(config, out=tmp_path / "run"), some)
    assert len(lifted.scene) == 6
    skipped = read_json(lifted.folder, "run.json")["skipped"]
    assert [each["reason"] for each in skipped] == ["no pose", "no pose"]
    assert "2 frames left out, no pose" in (lifted.folder / "report.html").read_text()


def unposed(view):
    """The same view without pose and depth."""
    camera = dataclasses.replace(view.camera, world_from_camera=None)
    return dataclasses.replace(view, camera=camera, load_depth=None)
