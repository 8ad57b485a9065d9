"""Global alignment: accuracy, robustness to wrong pairs, and use of known quantities."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import SHARED
from scipy.spatial.transform import Rotation

from lift3d.geometry import similarity, transform
from lift3d.reconstruction.alignment import AlignmentConfig, Known, PairPrediction, align
from lift3d.reconstruction.alignment import refine as refinement
from lift3d.reconstruction.alignment.canonical import canonical
from lift3d.reconstruction.alignment.refine import Observations, Prior, State
from lift3d.reconstruction.alignment.relative import Relative
from lift3d.reconstruction.alignment.view_graph import lay_out
from lift3d.scene import Matches
from lift3d.scene.errors import InputError

HEIGHT, WIDTH = 96, 128
COUNT = 6


def surface_depth(K, pose):
    """Depth of a wavy floor under the cameras: a few steps of sphere tracing along z."""
    row, column = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    ray = np.stack([(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], np.ones_like(row)], -1)
    turned = ray @ pose[:3, :3].T
    z = np.full((HEIGHT, WIDTH), 1.5)
    for _ in range(60):
        xyz = pose[:3, 3] + turned * z[..., None]
        height = 0.25 * np.sin(2.1 * xyz[..., 0]) * np.cos(1.7 * xyz[..., 1])
        z -= 0.8 * (xyz[..., 2] - height) / turned[..., 2]
    return z, pose[:3, 3] + turned * z[..., None]


@cache
def world():
    """Cameras on a circle that look down at the floor, their depth, and each pixel's point."""
    rng = np.random.default_rng(3)
    cameras = []
    for k in range(COUNT):
        angle = 2 * np.pi * k / COUNT
        eye = np.array([1.1 * np.cos(angle), 1.1 * np.sin(angle), 2.0 + rng.uniform(-0.2, 0.2)])
        forward = np.array([0.1, -0.1, 0.0]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 1.0, 0.2])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = eye
        focal = rng.uniform(95, 110)
        K = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
        depth, xyz = surface_depth(K, pose)
        cameras.append((K, pose, depth, xyz))
    return cameras


def predicted(a, b, rng, noise):
    """A simulated prediction of a pair: true up to scale, noise, rotation and focal length."""
    (_, pose_a, _, _), scale = world()[a], np.exp(rng.normal(0, 0.05))
    maps = []
    for image in (a, b):
        _, pose, _, xyz = world()[image]
        own = transform(np.linalg.inv(pose), xyz.reshape(-1, 3)).reshape(HEIGHT, WIDTH, 3)
        smooth = np.kron(rng.normal(0, noise, (6, 8)), np.ones((16, 16)))
        own = own * (1 + smooth)[..., None] * [np.exp(rng.normal(0, noise))] * 1.0
        own[..., :2] *= np.exp(rng.normal(0, noise))
        if image != a:
            slip = np.eye(4)
            slip[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3 * noise, 3)).as_matrix()
            into = np.linalg.inv(pose_a) @ pose @ slip
            own = transform(into, own.reshape(-1, 3)).reshape(HEIGHT, WIDTH, 3)
        maps.append((scale * own).astype(np.float32))
    sure = np.full((HEIGHT, WIDTH), 3.0, np.float32)
    return PairPrediction(maps[0], maps[1], sure, sure)


def matched(a, b, rng, wrong=0.1):
    """A grid of a's pixels and their positions in b, to a third of a pixel; some at random."""
    K, pose, _, _ = world()[b]
    row, column = (each.ravel() for each in np.mgrid[2:HEIGHT:4, 2:WIDTH:4])
    in_b = transform(np.linalg.inv(pose), world()[a][3][row, column])
    xy = in_b[:, :2] / in_b[:, 2:] * K[0, 0] + K[:2, 2]
    xy += rng.normal(0, 0.3, xy.shape)
    inside = ((xy > 0) & (xy < [WIDTH - 1, HEIGHT - 1])).all(1)
    xy_a = np.stack([column, row], 1)[inside].astype(np.float32)
    xy_b = xy[inside].astype(np.float32)
    lost = rng.random(len(xy_b)) < wrong
    xy_b[lost] = rng.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (lost.sum(), 2)).astype(np.float32)
    return Matches(xy_a, xy_b, np.full(len(xy_a), 0.9, np.float32))


@cache
def case(noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(COUNT) for b in range(a + 1, COUNT)]
    predictions = {}
    for a, b in pairs:
        predictions[a, b] = predicted(a, b, rng, noise)
        predictions[b, a] = predicted(b, a, rng, noise)
    return predictions, {pair: matched(*pair, rng) for pair in pairs}


def aligned(predictions, matches, known=None, **options):
    return align([(HEIGHT, WIDTH)] * COUNT, predictions, matches, known, **options)


def errors(found, images=range(COUNT)):
    """Worst camera position after a similarity, worst focal length, median point: relative."""
    images = list(images)
    true = np.array([world()[i][1] for i in images])
    at = found.world_from_camera[images]
    scale, move = similarity(at[:, :3, 3], true[:, :3, 3])
    off = np.linalg.norm(transform(move, scale * at[:, :3, 3]) - true[:, :3, 3], axis=1)
    turn = move[:3, :3] @ at[:, :3, :3] @ true[:, :3, :3].transpose(0, 2, 1)
    focal = [abs(found.K[i][0, 0] / world()[i][0][0, 0] - 1) for i in images]
    points = [np.abs(scale * found.depth[i] / world()[i][2] - 1) for i in images]
    return {
        "position": off.max(),
        "degrees": np.rad2deg(Rotation.from_matrix(turn).magnitude()).max(),
        "focal": max(focal),
        "depth": float(np.median(points)),
    }


def assert_right(found, images=range(COUNT), factor=1.0):
    assert found.used[list(images)].all()
    off = errors(found, images)
    limits = {"position": 0.01, "degrees": 0.3, "focal": 0.006, "depth": 0.006}
    assert {name: off[name] < factor * limit for name, limit in limits.items()} == dict.fromkeys(
        limits, True
    ), off


def test_noisy_predictions_become_right_cameras_and_depth():
    found = aligned(*case())
    assert_right(found)
    assert found.reprojection < 0.7
    assert not found.dropped_pairs


def test_nearly_exact_predictions_are_not_made_worse():
    found = aligned(*case(noise=0.0005))
    off = errors(found)
    assert off["position"] < 0.003
    assert off["depth"] < 0.002


def test_the_unit_is_that_of_the_predictions():
    found = aligned(*case(noise=0.0005))
    size = np.linalg.norm(np.diff(found.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    true = np.array([camera[1][:3, 3] for camera in world()])
    # The predictions' scales differ by 5 % each.
    assert size == pytest.approx(np.linalg.norm(np.diff(true, axis=0), axis=1).sum(), rel=0.03)


def test_the_first_camera_is_the_world_when_no_pose_is_known():
    found = aligned(*case())
    assert np.allclose(found.world_from_camera[0], np.eye(4), atol=1e-9)


def test_uninformative_confidences_do_no_harm():
    predictions, matches = case()
    flat = {
        pair: replace(
            each,
            confidence_a=np.ones_like(each.confidence_a),
            confidence_b=np.ones_like(each.confidence_b),
        )
        for pair, each in predictions.items()
    }
    same = {
        pair: Matches(each.xy_in_a, each.xy_in_b, np.full(len(each), 0.5, np.float32))
        for pair, each in matches.items()
    }
    assert_right(aligned(flat, same))


@pytest.mark.parametrize("seed", range(4))
def test_a_third_of_wrong_pairs_is_tolerated(seed):
    """Points and matches of a third of the pairs are those of other images."""
    rng = np.random.default_rng(seed)
    predictions, matches = (dict(each) for each in case())
    pairs = list(matches)
    wrong = [pairs[i] for i in rng.choice(len(pairs), 5, replace=False)]
    for pair in wrong:
        others = [other for other in pairs if not set(other) & set(pair)]
        other = others[rng.integers(len(others))]
        matches[pair] = case()[1][other]
        predictions[pair] = case()[0][other]
        predictions[pair[::-1]] = case()[0][other[::-1]]
    found = aligned(predictions, matches)
    assert_right(found, np.flatnonzero(found.used), factor=1.5)
    assert found.used.sum() >= COUNT - 1


def test_a_picture_without_matches_is_reported_and_not_fatal():
    predictions, matches = (dict(each) for each in case())
    nothing = Matches(
        np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    )
    matches = {pair: nothing if 4 in pair else each for pair, each in matches.items()}
    found = aligned(predictions, matches)
    assert found.used.tolist() == [True, True, True, True, False, True]
    assert "overlap" in found.reason[4]
    assert not found.depth[4].any()
    assert_right(found, [0, 1, 2, 3, 5])


def test_images_without_overlap_are_an_error():
    rng = np.random.default_rng(0)
    predictions, matches = case()
    noise = {
        pair: Matches(
            each.xy_in_a,
            rng.permutation(each.xy_in_b).astype(np.float32),
            each.confidence,
        )
        for pair, each in matches.items()
    }
    with pytest.raises(InputError, match="do the pictures overlap"):
        aligned(predictions, noise)


def test_known_intrinsics_are_kept_and_help():
    known = [Known(K=camera[0]) for camera in world()]
    found = aligned(*case(), known)
    assert np.array_equal(found.K, np.array([camera[0] for camera in world()]))
    assert errors(found)["position"] <= errors(aligned(*case()))["position"] + 1e-4


def test_known_poses_are_kept_to_the_last_bit_and_set_frame_and_unit():
    known = [Known(world_from_camera=camera[1]) for camera in world()]
    found = aligned(*case(), known)
    assert np.array_equal(found.world_from_camera, np.array([camera[1] for camera in world()]))
    depth = [np.median(np.abs(found.depth[i] / world()[i][2] - 1)) for i in range(COUNT)]
    assert max(depth) < 0.006


def test_with_everything_known_the_cameras_stay_and_the_error_is_measured():
    known = [
        Known(K=K, world_from_camera=pose, depth=depth.astype(np.float32))
        for K, pose, depth, _ in world()
    ]
    found = aligned(*case(), known)
    assert found.used.all()
    assert np.array_equal(found.K, np.array([camera[0] for camera in world()]))
    assert np.array_equal(found.world_from_camera, np.array([camera[1] for camera in world()]))
    assert 0 < found.reprojection < 0.7
    depth = [np.median(np.abs(found.depth[i] / world()[i][2] - 1)) for i in range(COUNT)]
    assert max(depth) < 0.006


@pytest.mark.parametrize("subset", range(8))
def test_any_subset_may_be_known(subset):
    known = [
        Known(
            K=K if subset & 1 else None,
            world_from_camera=pose if subset & 2 else None,
            depth=depth.astype(np.float32) if subset & 4 else None,
        )
        for K, pose, depth, _ in world()
    ]
    assert_right(aligned(*case(), known))


def test_some_known_poses_place_the_others():
    known = [Known(world_from_camera=world()[i][1]) if i < 3 else Known() for i in range(COUNT)]
    found = aligned(*case(), known)
    for i in range(COUNT):
        off = found.world_from_camera[i][:3, 3] - world()[i][1][:3, 3]
        assert np.linalg.norm(off) < 0.01
    assert np.array_equal(found.world_from_camera[1], world()[1][1])


def test_nearly_known_poses_are_corrected():
    rng = np.random.default_rng(1)
    known = []
    for _, pose, _, _ in world():
        rough = pose.copy()
        rough[:3, 3] += rng.normal(0, 0.03, 3)
        known.append(Known(world_from_camera=rough, rotation_sigma=0.02, position_sigma=0.03))
    found = aligned(*case(), known)
    assert_right(found)
    given = np.array([each.world_from_camera[:3, 3] for each in known])
    assert np.linalg.norm(found.world_from_camera[:, :3, 3] - given, axis=1).max() < 0.12


def test_known_depth_sets_the_unit_and_is_nearly_kept():
    known = [Known(depth=camera[2].astype(np.float32)) for camera in world()]
    found = aligned(*case(), known)
    for i in range(COUNT):
        assert np.median(np.abs(found.depth[i] / world()[i][2] - 1)) < 0.003


def test_a_single_known_depth_sets_the_unit():
    known = [Known(depth=world()[0][2].astype(np.float32))] + [Known()] * (COUNT - 1)
    found = aligned(*case(), known)
    for i in range(COUNT):
        assert np.median(found.depth[i] / world()[i][2]) == pytest.approx(1, abs=0.01)


def test_a_shared_focal_length_is_equal_in_all_images():
    found = aligned(*case(), config=AlignmentConfig(shared_focal=True))
    assert np.ptp(found.K[:, 0, 0]) < 1e-9


def test_ignored_pixels_have_no_depth_and_no_influence():
    predictions, matches = (dict(each) for each in case())
    ignored = np.zeros((HEIGHT, WIDTH), bool)
    ignored[:, :40] = True
    # A moving object: all matches on the left side of image 0 are shifted.
    for pair, each in matches.items():
        if pair[0] == 0:
            xy_b = each.xy_in_b.copy()
            xy_b[each.xy_in_a[:, 0] < 40] += 6
            np.clip(xy_b, 0, [WIDTH - 1, HEIGHT - 1], out=xy_b)
            matches[pair] = Matches(each.xy_in_a, xy_b.astype(np.float32), each.confidence)
    known = [Known(ignored=ignored)] + [Known()] * (COUNT - 1)
    found = aligned(predictions, matches, known)
    assert not found.depth[0][ignored].any()
    assert not found.confidence[0][ignored].any()
    assert (found.depth[0][~ignored] > 0).all()
    off = np.linalg.norm(errors_of_camera(found, 0) - errors_of_camera(aligned(*case()), 0))
    assert off < 0.01


def errors_of_camera(found, image):
    """A camera's position in the true world, registered by the other cameras."""
    others = [i for i in range(COUNT) if i != image]
    true = np.array([world()[i][1][:3, 3] for i in others])
    scale, move = similarity(found.world_from_camera[others, :3, 3], true)
    return transform(move, scale * found.world_from_camera[[image], :3, 3])[0]


def test_thinned_predictions_are_nearly_as_accurate():
    predictions, matches = case()
    thin = {
        pair: each.condensed(dense=abs(pair[0] - pair[1]) == 1)
        for pair, each in predictions.items()
    }
    assert_right(aligned(thin, matches), factor=1.5)


def test_the_same_input_gives_the_same_bytes():
    one, two = aligned(*case()), aligned(*case())
    assert one.world_from_camera.tobytes() == two.world_from_camera.tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one.depth, two.depth, strict=True))


def test_progress_goes_up_and_ends_within_its_total():
    heard = []
    aligned(*case(), progress=lambda done, total: heard.append((done, total)))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert all(done <= total for done, total in heard)


def test_a_minority_of_inliers_is_found_when_outliers_agree_with_no_other_prediction():
    rng = np.random.default_rng(0)
    true = world()[0][2].astype(np.float32)
    maps = [true * s for s in (1.0, 1.2, 0.9)] + [
        np.exp(np.kron(rng.normal(0, 0.3, (6, 8)), np.ones((16, 16)))).astype(np.float32)
        for _ in range(4)
    ]
    points = [np.stack([np.zeros_like(z), np.zeros_like(z), z], -1) for z in maps]
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    own = canonical(points, [np.ones_like(z) for z in maps], centre, focal=100.0)
    assert own.outlier.tolist() == [False] * 3 + [True] * 4
    assert np.allclose(own.depth / true, own.depth[0, 0] / true[0, 0], rtol=1e-5)
    assert np.allclose(
        np.exp(own.log_scale[:3]),
        np.array([1.0, 1.2, 0.9]) * true[0, 0] / own.depth[0, 0],
        rtol=1e-5,
    )


def test_a_focal_length_is_estimated_from_a_point_map():
    K, pose, _, xyz = world()[2]
    own = transform(np.linalg.inv(pose), xyz.reshape(-1, 3)).reshape(HEIGHT, WIDTH, 3)
    maps = [own.astype(np.float32)] * 2
    found = canonical(maps, [np.ones((HEIGHT, WIDTH), np.float32)] * 2, K[:2, 2])
    assert found.focal == pytest.approx(K[0, 0], rel=1e-3)


def test_a_pair_that_contradicts_its_triangles_is_dropped():
    rng = np.random.default_rng(0)
    turn = Rotation.from_rotvec(rng.normal(0, 0.5, (5, 3))).as_matrix()
    at = rng.normal(0, 1, (5, 3))

    def true_pair(a, b):
        return Relative(a, b, 1.0, turn[a].T @ turn[b], turn[a].T @ (at[b] - at[a]), 100, 0.9)

    pairs = [true_pair(a, b) for a in range(5) for b in range(a + 1, 5)]
    pairs[3] = replace(
        pairs[3], rotation=pairs[3].rotation @ Rotation.from_rotvec([0, 0.9, 0]).as_matrix()
    )
    layout = lay_out(5, pairs)
    assert [(pair.a, pair.b) for pair in layout.dropped] == [(pairs[3].a, pairs[3].b)]
    found = layout.rotation[0].T @ layout.rotation
    assert np.allclose(found, turn[0].T @ turn, atol=1e-6)


def test_the_normal_equations_are_the_derivatives_of_the_cost():
    """Compared with finite differences, with every kind of prior and a shared focal length."""
    rng = np.random.default_rng(0)
    images, cells, looks = 3, 12, 80
    cell = np.sort(rng.integers(0, cells, looks))
    owner = cell // 4
    state = State(
        Rotation.from_rotvec(rng.normal(0, 0.1, (images, 3))).as_matrix(),
        rng.normal(0, 0.1, (images, 3)),
        np.log(100) + rng.normal(0, 0.05, images),
        rng.normal(0, 0.1, images),
        rng.normal(0, 0.1, cells),
    )
    seen = Observations(
        cell,
        owner.astype(np.int32),
        ((owner + rng.integers(1, 3, looks)) % images).astype(np.int32),
        rng.uniform(-40, 40, (looks, 2)),
        np.log(rng.uniform(1, 2, looks)),
        rng.uniform(-40, 40, (looks, 2)),
        rng.uniform(0.5, 1, looks),
    )
    frozen = np.zeros((images, 8), bool)
    frozen[0, :6] = True
    prior = Prior(
        rng.uniform(1, 5, cells), frozen, state, rng.uniform(0, 3, (images, 8)), shared_focal=True
    )
    moved = state.moved(rng.normal(0, 0.02, (images, 8)) * ~frozen, rng.normal(0, 0.02, cells))
    moved.log_focal = state.log_focal + 0.01  # shared: equal offsets from the priors
    width, noise = 30.0, 0.7
    start = np.append(0, np.flatnonzero(np.diff(cell)) + 1)
    start = np.append(start, looks).astype(np.int64)
    system = refinement._linearise(moved, seen, start, prior, width, noise)
    step = rng.normal(0, 1, (images, 8)) * ~frozen
    step[:, 6] = step[0, 6]
    cell_step = np.zeros(cells)

    def cost(amount):
        # Cells follow the cameras, so the difference is the reduced gradient.
        return refinement._cost(
            moved.moved(amount * step, amount * cell_step), seen, prior, width, noise
        )

    # The reduced right side is g_c - E C^-1 g_p: the slope along (step, -C^-1 E^T step).
    touched = np.zeros(len(start) - 1)
    refinement.cell_steps(
        *refinement._arrays(moved, seen),
        *(start, width, step.ravel(), system.cell_matrix, np.zeros(len(start) - 1), touched),
    )
    cell_step[cell[start[:-1]]] = touched
    slope = (cost(1e-5) - cost(-1e-5)) / 2e-5
    unknown = np.zeros(len(system.right))
    unknown[prior.column[prior.column >= 0]] = step.ravel()[prior.column >= 0]
    assert slope == pytest.approx(-2 * unknown @ system.right, rel=1e-4)


@pytest.mark.slow
def test_the_published_room_is_aligned():
    """Four of its views: errors in metres, in a room of 6 by 5 m; benchmarks use all views."""
    place = SHARED / "facts" / "mast3r_ga"
    if not place.is_dir():
        pytest.skip(f"{place} is not there; it holds the views of the room")
    import sys

    sys.path.insert(0, str(place))
    try:
        import ga_scene
    finally:
        sys.path.remove(str(place))
    from lift3d.networks.reciprocal import DescribedPair, match_pair

    room = ga_scene.build_scene(4, seed=0)
    predictions, matches = {}, {}
    for a in range(4):
        for b in range(a + 1, 4):
            aa, ba, bb, ab = ga_scene.predict_pair(room, a, b)
            for key, one, two in (((a, b), aa, ba), ((b, a), bb, ab)):
                predictions[key] = PairPrediction(
                    one["pts3d"],
                    two["pts3d"],
                    one["conf"].astype(np.float32),
                    two["conf"].astype(np.float32),
                )
            described = [
                DescribedPair(
                    one["desc"],
                    two["desc"],
                    one["desc_conf"].astype(np.float32),
                    two["desc_conf"].astype(np.float32),
                )
                for one, two in ((aa, ba), (ab, bb))
            ]
            matches[a, b] = match_pair(described, stride=16)
    found = align([(ga_scene.H, ga_scene.W)] * 4, predictions, matches)
    assert found.used.all()
    score = ga_scene.score(room, found.world_from_camera, found.K[:, 0, 0])
    assert score["ate_rmse_m"] < 0.01
    assert score["rot_max_deg"] < 0.3
    assert score["focal_relerr_max"] < 0.005
