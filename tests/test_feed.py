"""The training feed: which scenes, which points, what is random and what is not."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_export import lifted_run  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from lift3d.export.ply import read_cloud, write_cloud  # noqa: E402
from lift3d.run.exporting import export  # noqa: E402
from lift3d.run.feed import (  # noqa: E402
    Augmentation,
    FeedConfig,
    LabelledClouds,
    at_all_points,
    collate,
    one_per_voxel,
    part_of,
    read_labelled,
    scene_name,
)
from lift3d.run.run import Run  # noqa: E402
from lift3d.scene import LabelledPoints, Points  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines"))
import train_segmentation as recipe  # noqa: E402
from label_noise import clouds, training  # noqa: E402


def cloud(count=300, seed=0, semantic=True):
    random = np.random.default_rng(seed)
    xyz = random.uniform(-1, 1, (count, 3)).astype(np.float32) + np.float32([5, 6, 7])
    normal = random.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    points = Points(
        xyz,
        random.integers(0, 256, (count, 3), np.uint8),
        normal.astype(np.float32),
        np.ones(count, np.float32),
    )
    ids = random.integers(0, 5, count).astype(np.int32)
    return LabelledPoints(points, ids, np.ones(count, np.float32), ids * 2 if semantic else None)


@pytest.fixture
def paths(tmp_path):
    for number in range(5):
        write_cloud(tmp_path / f"room{number}.ply", cloud(seed=number))
    return [tmp_path / f"room{number}.ply" for number in range(5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("feed"), views=3, width=48, height=36)


AUGMENTED = FeedConfig(voxel=0.2, augmentation=Augmentation(), seed=3)


def same(a, b):
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


def test_a_scene_stays_on_its_side_whatever_else_there_is():
    parts = [part_of(f"room{i}", 0.2, 0.1) for i in range(2000)]
    assert 0.06 < parts.count("test") / 2000 < 0.14
    assert 0.16 < parts.count("validation") / 2000 < 0.24
    assert parts[7] == part_of("room7", 0.2, 0.1)
    assert parts != [part_of(f"room{i}", 0.2, 0.1, seed=1) for i in range(2000)]
    assert part_of("k\udcfc", 0.2, 0.1) in ("test", "train", "validation")  # any name of a folder


def test_a_cloud_that_is_written_again_is_read_again(tmp_path):
    """As a run that was lifted again: a notebook or a worker that lives long must not keep it."""
    path = tmp_path / "room.ply"
    write_cloud(path, cloud(seed=0))
    feed = LabelledClouds([path], FeedConfig(augmentation=None, voxel=None))
    first = feed[0].instance.clone()
    write_cloud(path, cloud(seed=1))
    assert not torch.equal(feed[0].instance, first)


def test_scans_of_one_place_fall_alike():
    for place in range(200):
        assert len({part_of(f"scene{place:04d}_{scan:02d}") for scan in range(3)}) == 1


def test_shares_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="shares"):
        part_of("a", 0.8, 0.4)


def test_a_run_its_pointcept_export_and_its_ply_are_the_same_cloud(run, tmp_path):
    export(Run.open(run), ["pointcept"], tmp_path)
    (folder,) = (tmp_path / "pointcept" / "train").iterdir()
    forms = [run, folder, run / "cloud.ply"]
    clouds = [read_labelled(each) for each in forms]
    for each in clouds:
        np.testing.assert_array_equal(each.points.xyz, clouds[0].points.xyz)
        np.testing.assert_array_equal(each.instance, clouds[0].instance)
    assert scene_name(run) == scene_name(folder) == "synthetic_0"
    sample = LabelledClouds([run], FeedConfig(voxel=0.2))[0]
    assert sample.name == "synthetic_0"
    assert set(sample.instance.tolist()) <= set(clouds[0].instance.tolist())
    assert not sample.semantic.any()


def test_what_is_no_labelled_cloud_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        read_labelled(tmp_path)
    np.save(tmp_path / "coord.npy", np.zeros((3, 3)))
    with pytest.raises(InputError, match="export it again"):
        read_labelled(tmp_path)
    write_cloud(tmp_path / "empty.ply", cloud(0))
    with pytest.raises(InputError, match="no points"):
        LabelledClouds([tmp_path / "empty.ply"])[0]


@pytest.mark.parametrize("wrong", [{"voxel": 0.0}, {"most": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        LabelledClouds([], FeedConfig(**wrong))


def test_without_augmentation_a_sample_is_the_clouds_own_points(paths):
    sample = LabelledClouds(paths, FeedConfig(voxel=None))[2]
    original = read_cloud(paths[2])
    xyz = original.points.xyz
    shift = xyz - sample.xyz.numpy()
    assert np.ptp(shift, axis=0).max() < 1e-5
    assert sample.xyz[:, 2].min() == 0
    low, high = sample.xyz[:, :2].min(0).values, sample.xyz[:, :2].max(0).values
    np.testing.assert_allclose(low, -high, atol=1e-5)
    np.testing.assert_allclose((sample.colour + 1) * 127.5, original.points.rgb, atol=1e-4)
    np.testing.assert_array_equal(sample.normal, original.points.normal)
    np.testing.assert_array_equal(sample.instance, original.instance)
    np.testing.assert_array_equal(sample.semantic, original.semantic)


def test_labels_and_normals_stay_with_their_points(paths):
    sample = LabelledClouds(paths, AUGMENTED)[1]
    original = read_cloud(paths[1])
    index = sample.point.numpy()
    np.testing.assert_array_equal(sample.instance, original.instance[index])
    np.testing.assert_array_equal(sample.semantic, original.semantic[index])
    # The same turn and flip for places and normals: angles between them are kept.
    before = (original.points.xyz - original.points.xyz.mean(0))[index]
    cosine = (before @ original.points.normal[index].T).ravel()
    changed = sample.xyz.double() - sample.xyz.double().mean(0)
    after = (changed @ sample.normal.double().T).numpy().ravel()
    assert np.corrcoef(cosine - cosine.mean(), after - after.mean())[0, 1] > 0.99
    np.testing.assert_allclose(sample.normal.norm(dim=1), 1, atol=1e-5)


def test_up_stays_up(paths):
    change = Augmentation(scale=(1.0, 1.0), jitter=0.0)
    for up, axis in (("z", 2), ("y", 1)):
        config = FeedConfig(voxel=None, augmentation=change, up=up)
        sample = LabelledClouds(paths, config)[0]
        plain = LabelledClouds(paths, FeedConfig(voxel=None, up=up))[0]
        np.testing.assert_allclose(sample.xyz[:, axis], plain.xyz[:, axis], atol=1e-5)
        assert not torch.allclose(sample.xyz, plain.xyz, atol=0.1)


def test_each_switch_changes_its_own_thing_alone(paths):
    nothing = Augmentation(False, False, (1.0, 1.0), 0.0, 0.0, 0.0)
    plain = LabelledClouds(paths, FeedConfig(voxel=None))[0]
    still = LabelledClouds(paths, FeedConfig(voxel=None, augmentation=nothing))[0]
    torch.testing.assert_close(still.xyz, plain.xyz)
    torch.testing.assert_close(still.colour, plain.colour)
    grey = Augmentation(False, False, (1.0, 1.0), 0.0, 0.0, 1.0)
    assert not LabelledClouds(paths, FeedConfig(voxel=None, augmentation=grey))[0].colour.any()
    twice = Augmentation(False, False, (2.0, 2.0), 0.0, 0.0, 0.0)
    torch.testing.assert_close(
        LabelledClouds(paths, FeedConfig(voxel=None, augmentation=twice))[0].xyz, 2 * plain.xyz
    )


def test_a_voxel_has_one_point():
    xyz = cloud(2000).points.xyz
    rng = np.random.default_rng(0)
    for index in (one_per_voxel(xyz, 0.25), one_per_voxel(xyz, 0.25, rng)):
        cells = {tuple(each) for each in np.floor(xyz / 0.25).astype(int)}
        kept = [tuple(each) for each in np.floor(xyz[index] / 0.25).astype(int)]
        assert len(kept) == len(set(kept)) == len(cells)
        assert set(kept) == cells
        assert (np.diff(index) > 0).all()
    again = one_per_voxel(xyz, 0.25, np.random.default_rng(1))
    assert (again != index).any()


def test_a_cut_sample_is_a_ball_of_so_many_points(paths):
    sample = LabelledClouds(paths, FeedConfig(voxel=None, most=50))[0]
    whole = LabelledClouds(paths, FeedConfig(voxel=None))[0]
    assert len(sample.xyz) == 50
    rest = np.setdiff1d(np.arange(300), sample.point)
    balls = [
        (sample.xyz - middle).norm(dim=1).max() <= (whole.xyz[rest] - middle).norm(dim=1).min()
        for middle in sample.xyz
    ]
    assert any(balls)


def test_a_sample_follows_from_seed_epoch_and_number(paths):
    data = LabelledClouds(paths, AUGMENTED)
    first = data[0]
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - that nobody touches it
    data[3]
    assert same(data[0], first)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    data.set_epoch(1)
    assert not torch.equal(data[0].colour[:50], first.colour[:50])
    data.set_epoch(0)
    assert same(data[0], first)
    assert same(LabelledClouds(paths, AUGMENTED)[0], first)
    other = LabelledClouds(paths, FeedConfig(voxel=0.2, augmentation=Augmentation(), seed=4))
    assert not torch.equal(other[0].colour[:50], first.colour[:50])


def test_a_loop_over_the_set_ends_and_minus_one_is_the_last(paths):
    data = LabelledClouds(paths, AUGMENTED)
    assert [each.name for each in data] == [f"room{i}" for i in range(5)]
    assert same(data[-1], data[4])


def test_collate_says_where_samples_end(paths):
    data = LabelledClouds(paths, AUGMENTED)
    batch = collate([data[0], data[2]])
    sizes = [len(data[0].xyz), len(data[2].xyz)]
    assert batch.offset.tolist() == [sizes[0], sum(sizes)]
    assert batch.names == ("room0", "room2")
    torch.testing.assert_close(batch.xyz[sizes[0] :], data[2].xyz)
    assert {len(each) for each in batch[:6]} == {sum(sizes)}
    assert [each.dtype for each in batch[:7]] == [torch.float32] * 3 + [torch.int64] * 4


def test_workers_give_the_same_as_none_also_in_the_next_epoch(paths):
    data = LabelledClouds(paths, AUGMENTED)
    alone, shared = (
        DataLoader(data, 2, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0)
        for workers in (0, 2)
    )
    seen = []
    for epoch in range(2):
        data.set_epoch(epoch)
        batches = list(alone)
        assert all(same(a, b) for a, b in zip(batches, shared, strict=True))
        seen.append(batches)
    assert not torch.equal(seen[0][0].colour[:50], seen[1][0].colour[:50])


def test_what_was_found_at_some_points_is_carried_to_all():
    xyz = np.float32([[0, 0, 0], [0.1, 0, 0], [5, 0, 0]])
    found = at_all_points(np.int32([4, 7]), np.array([0, 2]), xyz)
    assert found.tolist() == [4, 4, 7]


# The recipe that trains on it


def test_an_object_is_named_after_most_of_its_points_and_nothing_else_is():
    instance = np.array([0, 1, 1, 1, 2, 2, 2, 3], np.int32)
    semantic = np.array([5, 4, 4, 6, 0, 0, 7, 0], np.int32)
    # What has no object has no class; points of unknown class say nothing.
    assert clouds.named(instance, semantic).tolist() == [0, 4, 4, 4, 7, 7, 7, 0]


def test_the_difference_to_true_labels_is_taken_seed_by_seed():
    def each(*values):
        return [dict.fromkeys(("miou", "miou_things", "accuracy"), value) for value in values]

    found = training.summary(each(0.4, 0.6), each(0.5, 0.7))["miou"]
    assert found["mean"] == 0.5
    assert found["std"] == pytest.approx(0.1414, abs=1e-4)
    assert found["less_than_true"] == {"mean": -0.1, "std": 0.0}
    assert training.summary(each(0.4), each(0.5))["miou"]["std"] is None


def test_a_seed_gives_the_same_network_every_time_and_scores_are_of_classes_that_are_there(
    tmp_path,
):
    made = cloud(400)
    classes = np.where(made.points.xyz[:, 2] > 7, 4, 5).astype(np.int32)
    path = tmp_path / "room.ply"
    write_cloud(path, LabelledPoints(made.points, made.instance, made.score, classes))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = (training.trained([path], 0, 3) for _ in range(2))
        found = training.scores(a, [path])
    finally:
        torch.set_num_threads(before)
    ours, theirs = a.state_dict(), b.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert set(found["iou"]) == {"table", "chair"}
    assert 0 <= found["miou"] <= found["accuracy"] <= 1
    assert found["miou"] == found["miou_things"]


def test_what_other_settings_or_versions_made_is_not_served(tmp_path, monkeypatch, capsys):
    made = []

    def room_clouds(seed, sizes, masks):
        made.append(("cloud", seed))
        return {name: cloud(50, seed) for name in ("true", *masks)}

    def trained(paths, seed, epochs):
        made.append(("network", seed))

    def scores(network, paths):
        return {**dict.fromkeys(("miou", "miou_things", "accuracy"), 0.5), "iou": {}}

    for stand_in in (room_clouds, trained, scores):
        monkeypatch.setattr(recipe, stand_in.__name__, stand_in)

    def again(*changed):
        made.clear()
        sizes = ["--rooms", "1", "--held-out", "1", "--masks", "none", "--seeds", "1"]
        threads = ["--threads", str(torch.get_num_threads())]
        recipe.main(["--out", str(tmp_path), *sizes, *threads, *changed])
        return [what for what, _ in made]

    clouds, networks = ["cloud", "cloud"], ["network", "network"]
    assert again() == clouds + networks
    assert again() == []
    assert again("--views", "5") == clouds + networks
    assert again("--width", "64") == clouds + networks
    assert again("--epochs", "3") == networks
    assert again("--held-out", "2") == ["cloud", *networks]
    # The room that was held out has to be labelled by masks too.
    assert again("--rooms", "2") == ["cloud", *networks]
    assert again() == []
    monkeypatch.setattr(recipe, "versions", lambda: {"lift3d": "another"})
    assert again() == clouds + networks
