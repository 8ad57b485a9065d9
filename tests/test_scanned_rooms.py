"""Synthetic rooms that resemble scans: their things, their errors, and the truth behind both."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lift3d import geometry
from lift3d.datasets import synthetic
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.synthetic.render import Exact
from lift3d.datasets.synthetic.scanned.drift import ARM, drifted, smooth
from lift3d.datasets.synthetic.scanned.picture import motion, smeared
from lift3d.datasets.synthetic.scanned.resurfaced import Resurfaced, fused_mesh, vertices
from lift3d.datasets.synthetic.scanned.rooms import scanned_room
from lift3d.datasets.synthetic.scanned.scanner import scanner
from lift3d.datasets.synthetic.scanned.sensor import DepthSensor, shadow
from lift3d.datasets.synthetic.scanned.shapes import lump, mound, sheet, tube
from lift3d.datasets.synthetic.world import CATEGORIES
from lift3d.scene import Camera, Scene, View

SMALL = {"views": 12, "width": 80, "height": 60, "spacing": 0.05, "scanned": True}


def conditions(seed):
    return scanner(np.random.default_rng([seed, 4]))


PHOTOS = next(seed for seed in range(50) if conditions(seed).voxel is None)
SURFACE = next(seed for seed in range(50) if conditions(seed).voxel is not None)


@pytest.fixture(scope="module", params=[PHOTOS, SURFACE], ids=["photos", "fused surface"])
def scanned(request):
    config = SyntheticConfig(seed=request.param, **SMALL)
    return config, config.read()


def everything(scene):
    for view in scene.views[::5]:
        yield from (view.image(), view.depth(), view.instances(), view.camera.pose)
    points = scene.load_surface()
    yield from (points.points.xyz, points.instance, points.semantic)


def test_the_same_seed_gives_the_same_bytes(scanned):
    config, scene = scanned
    first = [each.tobytes() for each in everything(scene)]
    for cache in (
        synthetic._room, synthetic._rendered, synthetic._resurfaced, synthetic._resurfaced_view,
    ):  # fmt: skip
        cache.cache_clear()
    assert [each.tobytes() for each in everything(config.read())] == first


def test_instances_are_those_of_the_true_surface_where_the_picture_was_taken(scanned):
    config, scene = scanned
    surface = scene.load_surface()
    tree = cKDTree(surface.points.xyz)
    exact = replace(config, noise=False).read()
    same = total = 0
    for view, clean in zip(scene.views[::4], exact.views[::4], strict=True):
        z = clean.depth()
        world = geometry.rays(clean.camera) * z[..., None] @ clean.camera.pose[:3, :3].T
        _, near = tree.query((world + clean.camera.pose[:3, 3])[z > 0])
        same += np.sum(surface.instance[near] == view.instances()[z > 0])
        total += np.sum(z > 0)
    assert same / total > 0.9


def test_depth_is_near_the_truth_and_partly_missing(scanned):
    config, scene = scanned
    exact = replace(config, noise=False).read()
    measured, truth = (np.stack([view.depth() for view in each.views]) for each in (scene, exact))
    known = measured > 0
    assert 0.2 < known.mean() < 0.995
    assert np.median(np.abs(measured - truth)[known]) < 0.05


def test_the_stated_poses_drift_by_1_to_2_cm_and_those_without_noise_do_not(scanned):
    config, scene = scanned
    true = replace(config, noise=False).read()
    off = [
        np.linalg.norm(a.camera.pose[:3, 3] - b.camera.pose[:3, 3])
        for a, b in zip(scene.views, true.views, strict=True)
    ]
    assert 0.01 <= max(off) <= 0.02
    assert max(off) == pytest.approx(conditions(config.seed).drift)
    assert min(off) < 0.8 * max(off)


def test_drift_has_the_stated_size_in_position_and_direction():
    poses = [np.eye(4) for _ in range(50)]
    found = drifted(poses, 0.015, np.random.default_rng(0))
    move = np.array([pose[:3, 3] for pose in found])
    angle = [np.arccos(min((np.trace(pose[:3, :3]) - 1) / 2, 1)) for pose in found]
    assert np.linalg.norm(move, axis=1).max() == pytest.approx(0.015)
    assert max(angle) == pytest.approx(0.015 / ARM, rel=1e-3)
    np.testing.assert_allclose(move.mean(0), 0, atol=1e-9)
    # From view to view it moves little.
    assert np.linalg.norm(np.diff(move, axis=0), axis=1).max() < 0.006


def test_one_view_has_a_curve_too():
    assert np.isfinite(smooth(np.random.default_rng(0), 1, 4)).all()


def test_a_room_of_the_other_kind_is_another_scene():
    plain = SyntheticConfig(seed=PHOTOS, **SMALL | {"scanned": False}).read()
    scanned = SyntheticConfig(seed=PHOTOS, **SMALL).read()
    assert (plain.name, scanned.name) == (f"synthetic_{PHOTOS}", f"scanned_{PHOTOS}")
    assert plain.views[0].image().tobytes() != scanned.views[0].image().tobytes()


@pytest.mark.parametrize("seed", [PHOTOS, SURFACE])
def test_one_tiny_view_can_be_scanned(seed):
    view = SyntheticConfig(seed=seed, views=1, width=8, height=8, scanned=True).read().views[0]
    assert view.image().shape == (8, 8, 3)
    assert view.depth().shape == view.instances().shape == (8, 8)


def test_rooms_of_a_few_seeds_have_all_kinds_of_things():
    found, sizes = set(), []
    for seed in range(8):
        world, _ = scanned_room(np.random.default_rng([seed, 0]))
        found |= set(world.objects.values())
        sizes.append(len(world.objects))
        assert np.isfinite(world.vertices).all()
    soft_and_built_in = CATEGORIES[CATEGORIES.index("worktop") :]
    assert set(soft_and_built_in) - found <= {"fridge"}
    assert min(sizes) >= 15


def test_cabinets_of_a_kitchen_are_objects_of_their_own_under_one_worktop():
    for seed in range(20):
        world, _ = scanned_room(np.random.default_rng([seed, 0]))
        objects = world.objects
        tops = [number for number, what in objects.items() if what == "worktop"]
        sinks = [number for number, what in objects.items() if what == "sink"]
        if not sinks:
            continue

        def low_high(number, world=world):
            at = np.isin(world.piece, np.flatnonzero(world.instance == number))
            corners = world.vertices[world.triangles[at]].reshape(-1, 3)
            return corners.min(0), corners.max(0)

        low, high = low_high(tops[0])
        under = []
        for number, what in objects.items():
            if what in ("cabinet", "oven"):
                a, b = low_high(number)
                if (a[:2] > low[:2] - 0.1).all() and (b[:2] < high[:2] + 0.1).all():
                    under += [number] if b[2] <= low[2] + 0.01 else []
        assert under
        assert (low_high(sinks[0])[0][:2] > low[:2]).all()
        return
    pytest.fail("no kitchen with a sink in 20 rooms")


def volume(mesh):
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    return np.einsum("ij,ij->i", np.cross(a, b), c).sum() / 6


PLANE = np.stack([*np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 7)), np.zeros((7, 9))], -1)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (tube(np.c_[np.zeros((9, 2)), np.linspace(0, 2, 9)], 0.1, 64), 2 * np.pi * 0.01),
        (sheet(PLANE, 0.02), 0.02),
        (mound(np.full((5, 6), 0.5), 2, 3), 3.0),
        (lump(np.random.default_rng(0), 1, 1, 1, 0.0, 40), 0.51),
    ],
    ids=["tube", "sheet", "mound", "lump"],
)
def test_shapes_are_closed_and_face_outwards(mesh, expected):
    t = mesh.triangles
    edges = {tuple(each) for each in np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])}
    assert all((b, a) in edges for a, b in edges)
    assert volume(mesh) == pytest.approx(expected, rel=0.02)


def seen(z, grey=0.5, facing=1.0):
    """A view of that depth."""
    z = np.asarray(z, np.float32)
    flat = np.full((z.size, 3), grey, np.float32)
    return Exact(z, np.ones(z.shape, np.int32), np.full(z.shape, facing, np.float32),
                 np.zeros(z.shape, np.float32), lambda: flat)  # fmt: skip


CLEAN = DepthSensor(
    structured_light=False,
    noise=0.0,
    warp=0.0,
    rounding=0.0,
    dark=0.0,
    grazing=0.0,
    far=10.0,
    seed=3,
)


def measured(sensor, exact):
    depth = sensor.measure(exact, np.random.default_rng(0))
    return depth, depth > 0


def test_a_sensor_without_errors_measures_the_depth():
    depth, known = measured(CLEAN, seen(np.full((60, 80), 2.0)))
    np.testing.assert_allclose(depth[known], 2.0, atol=1e-6)
    assert known.mean() > 0.9


def test_distortion_grows_with_depth_and_is_the_same_in_every_view():
    warped = replace(CLEAN, warp=0.01)
    share = []
    for z in (1.5, 3.0):
        depth, known = measured(warped, seen(np.full((60, 80), z)))
        share.append(np.where(known, depth / z - 1, np.nan))
    both = np.isfinite(share[0]) & np.isfinite(share[1])
    np.testing.assert_allclose(2 * share[0][both], share[1][both], atol=1e-5)
    assert 0.002 < np.abs(share[1][both]).max() < 0.02


def test_disparity_has_steps_that_grow_with_depth():
    light = replace(CLEAN, structured_light=True)
    for z in (1.0, 2.0, 4.0):
        slope = np.linspace(z, 1.04 * z, 80) * np.ones((60, 1))
        depth, known = measured(light, seen(slope))
        gaps = np.diff(np.unique(depth[known]))
        # An eighth of a pixel of 640 columns: z squared over 351 metres.
        assert gaps.mean() == pytest.approx(z**2 / 351, rel=0.3)


def test_dark_grazing_and_far_surface_is_missing():
    wall = np.full((60, 80), 2.0)
    dark = replace(CLEAN, dark=0.1)
    assert not measured(dark, seen(wall, grey=0.02))[1].any()
    assert measured(dark, seen(wall, grey=0.5))[1].mean() > 0.9
    assert not measured(replace(CLEAN, grazing=0.3), seen(wall, facing=0.05))[1].any()
    assert not measured(CLEAN, seen(np.full((60, 80), 11.0)))[1].any()


def test_the_projector_throws_its_shadow_on_one_side_of_what_is_near():
    z = np.full((20, 80), 3.0, np.float32)
    z[:, 30:50] = 1.0
    hidden = shadow(z)
    # 7.5 cm to the right: the strip left of the near thing, as wide as its shift in disparity.
    wide = 0.9 * 80 * 0.075 * (1 / 1.0 - 1 / 3.0)
    assert hidden[10].sum() == pytest.approx(wide, abs=1)
    assert hidden[:, 50:].sum() == hidden[:, 30:50].sum() == 0


def test_corners_are_rounded_and_planes_are_not():
    flat = np.full((60, 80), 2.0, np.float32)
    corner = 2.0 - 0.01 * np.abs(np.arange(80) - 40, dtype=np.float32) * np.ones(
        (60, 1), np.float32
    )
    rounding = replace(CLEAN, rounding=0.5)
    depth, known = measured(rounding, seen(flat))
    np.testing.assert_allclose(depth[known], 2.0, atol=1e-6)
    depth, known = measured(rounding, seen(corner))
    tip = depth[:, 40][known[:, 40]]
    assert (tip < 2.0 - 0.002).all()
    away = known[:, 20]
    np.testing.assert_allclose(depth[away, 20], corner[away, 20], atol=1e-4)


def test_pictures_change_in_exposure_and_are_blurred_along_the_motion_only():
    camera = conditions(PHOTOS).colour
    plain = replace(
        camera, exposure=0.3, balance=0.0, grain=0.0, vignette=0.0, soft=0.1, bright=1.0
    )
    stripes = seen(np.full((48, 64), 2.0))
    flat = (np.arange(64) // 8 % 2 * 0.4 + 0.2)[None, :, None] * np.ones((48, 1, 3))
    stripes = replace(stripes, paint=lambda: flat.reshape(-1, 3).astype(np.float32))
    rng = np.random.default_rng(0)

    def photo(gain, moved, **other):
        gains = np.array([gain, 0.0, 0, 0])
        kept = replace(plain, open=1.0, longest=0.5, quality=100, **other)
        return kept.photo(stripes, gains, np.array(moved, float), rng).astype(float)

    still = photo(0, [0, 0])
    assert photo(1, [0, 0]).mean() > still.mean() + 10
    contrast = still.std()
    np.testing.assert_allclose(photo(0, [0, 9]).std(), contrast, rtol=0.02)  # along the stripes
    assert photo(0, [9, 0]).std() < 0.7 * contrast


def test_a_smear_keeps_the_mean_and_no_motion_the_picture():
    picture = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    assert smeared(picture, np.zeros(2)) is picture
    found = smeared(picture, np.array([4.0, 2.0]))
    assert found.mean() == pytest.approx(picture.mean(), rel=0.02)


def test_motion_of_a_camera_that_steps_sideways():
    camera = Camera(np.array([[80, 0, 40], [0, 80, 30], [0, 0, 1.0]]), 80, 60)
    pose = np.eye(4)
    pose[0, 3] = 0.1
    np.testing.assert_allclose(motion(camera.at(np.eye(4)), camera.at(pose), 2.0), [-4, 0])


def test_a_wall_is_fused_and_rendered_in_its_own_colours():
    camera = Camera(np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]), 64, 48)
    image = np.full((48, 64, 3), 60, np.uint8)
    image[:, 32:] = 200
    depth = np.full((48, 64), 1.5, np.float32)
    views = []
    for step in range(4):
        pose = np.eye(4)
        pose[0, 3] = 1e-3 * step
        views.append(View(f"{step}", camera.at(pose), lambda: image, load_depth=lambda: depth))
    mesh = fused_mesh(Scene("wall", tuple(views), metric=True, source="wall"), 0.02)
    picture, rendered = Resurfaced(mesh).render(views[1].camera)
    inner = (slice(8, 40), slice(8, 56))
    np.testing.assert_allclose(rendered[inner], 1.5, atol=0.01)
    assert np.abs(picture[8:40, 8:28].astype(int) - 60).max() < 12
    assert np.abs(picture[8:40, 38:56].astype(int) - 200).max() < 12
    # Soft: the colour edge spreads over a voxel, 0.8 pixels here, and more.
    assert ((picture[24, :, 0] > 75) & (picture[24, :, 0] < 185)).any()
    sparse = vertices(mesh, 0.1)
    assert 30 < len(sparse.xyz) < len(mesh.vertices) / 10
    assert np.abs(np.abs(sparse.normal[:, 2]) - 1).max() < 0.05
