import itertools

import numpy as np
import pytest

from lift3d.geometry import project, transform
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, View
from lift3d.scene.errors import InputError
from lift3d.segmentation.matching import BACKENDS
from lift3d.segmentation.matching.depth import DepthMatcherConfig

WIDTH, HEIGHT, FOCAL = 64, 48, 50.0
K = np.array([[FOCAL, 0, 31.5], [0, FOCAL, 23.5], [0, 0, 1]])


def at(x, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def view(name, pose, depth, **more):
    """A grey view, with registered depth unless `depth_camera` is given."""
    camera = more.pop("camera", Camera(K, WIDTH, HEIGHT, pose))
    return View(
        name,
        camera,
        lambda: np.zeros((camera.height, camera.width, 3), np.uint8),
        lambda: depth.astype(np.float32),
        **more,
    )


def wall(z=2.0):
    return np.full((HEIGHT, WIDTH), z)


def wall_with_box(left, right, near=1.0):
    depth = wall()
    depth[:, left:right] = near
    return depth


def test_on_a_wall_matches_shift_by_focal_times_baseline_over_depth():
    found = (
        DepthMatcherConfig(stride=1)
        .build()
        .match(view("a", at(0), wall()), view("b", at(0.2), wall()))
    )
    # 50 px * 0.2 m / 2 m = 5 px to the left; the five columns that leave the image are gone.
    assert len(found) == HEIGHT * (WIDTH - 5)
    np.testing.assert_allclose(found.xy_in_b - found.xy_in_a, [[-5, 0]] * len(found), atol=1e-4)
    assert found.confidence.min() > 0.7
    assert found.confidence.max() <= 1


def test_the_stride_thins_the_grid():
    pair = view("a", at(0), wall()), view("b", at(0), wall())
    assert len(DepthMatcherConfig(stride=4).build().match(*pair)) == HEIGHT * WIDTH // 16


def test_points_occluded_in_either_view_are_not_matched():
    # The same box: 1 m away it shifts by 10 px, the wall behind by 5 px.
    a = view("a", at(0), wall_with_box(20, 40))
    b = view("b", at(0.2), wall_with_box(10, 30))
    found = DepthMatcherConfig(stride=1).build().match(a, b)
    columns = {
        (int(x), round(float(u)))
        for x, u in zip(found.xy_in_a[:, 0], found.xy_in_b[:, 0], strict=True)
    }
    on_box = {(x, x - 10) for x in range(20, 40)}
    # Columns 5..14 of the wall stay visible; 15..19 move behind the box; 40.. stay visible.
    on_wall = {(x, x - 5) for x in [*range(5, 15), *range(40, 64)]}
    assert columns == on_box | on_wall


def test_a_point_that_b_sees_behind_a_surface_of_a_is_checked_back_in_a():
    # b's nearest pixel may measure another surface than a does, so a must agree too: every match
    # of (a, b) at stride 1 must satisfy the slow definition.
    rng = np.random.default_rng(3)
    blocks = 1.5 + rng.random((6, 8))
    depth_a = np.kron(blocks, np.ones((8, 8)))
    depth_a[rng.random(depth_a.shape) < 0.1] = 0
    depth_b = depth_a + rng.normal(0, 0.02, depth_a.shape) * (depth_a > 0)
    a, b = view("a", at(0), depth_a), view("b", at(0.01, -0.02), depth_b)
    found = DepthMatcherConfig(stride=1).build().match(a, b)
    fast = {tuple(np.rint(p).astype(int)) for p in found.xy_in_a}
    assert fast == set(slow_twin(a, b, DepthTolerance()))
    assert 200 < len(fast) < 2500  # some agree, some do not


def slow_twin(a, b, tolerance):
    """Pixels of a that agree with b's depth, and whose point in b agrees with a's; one by one."""
    depth_a, depth_b = a.depth(), b.depth()

    def lift(camera, depth, x, y):
        local = np.linalg.inv(camera.K) @ [x, y, 1] * float(depth[y, x])
        return transform(camera.pose, local[None])

    def pixel_that_agrees(camera, depth, point):
        (xy,), (z,) = project(camera, point)
        x, y = np.rint(xy).astype(int)
        if not (0 <= x < camera.width and 0 <= y < camera.height) or depth[y, x] == 0:
            return None
        close = abs(depth[y, x] - z) < tolerance.fixed + tolerance.relative * z
        return (x, y) if close else None

    for x, y in itertools.product(range(WIDTH), range(HEIGHT)):
        if depth_a[y, x] == 0:
            continue
        there = pixel_that_agrees(b.camera, depth_b, lift(a.camera, depth_a, x, y))
        if there and pixel_that_agrees(a.camera, depth_a, lift(b.camera, depth_b, *there)):
            yield x, y


def test_coordinates_are_those_of_the_colour_image_when_the_depth_camera_differs():
    # Colour is twice the size of depth and 0.1 m to its left.
    colour = Camera(K, WIDTH, HEIGHT).resized(2 * WIDTH, 2 * HEIGHT)
    views = [
        view(
            name,
            at(x),
            wall(),
            camera=colour.at(at(x - 0.1)),
            depth_camera=Camera(K, WIDTH, HEIGHT, at(x)),
        )
        for name, x in (("a", 0.0), ("b", 0.2))
    ]
    found = DepthMatcherConfig(stride=4).build().match(*views)
    # In the colour image the focal length is 100 px, so the baseline of 0.2 m is 10 px at 2 m.
    np.testing.assert_allclose(found.xy_in_b - found.xy_in_a, [[-10, 0]] * len(found), atol=1e-3)
    # Depth column 2 looks at -29.5 / 50 * 2 m; colour is 0.1 m to the left: 5 px to the right.
    assert np.isclose(found.xy_in_a[:, 0], 2 * (18 + 0.5) - 0.5 + 5).any()
    assert found.xy_in_b[:, 0].max() < 2 * WIDTH


def test_lens_distortion_is_applied_in_both_directions():
    lens = (-0.2, 0.05, 0.001, -0.001)
    camera = Camera(K, WIDTH, HEIGHT, distortion=lens)
    a, b = (view(n, at(0), wall(), camera=camera.at(at(x))) for n, x in (("a", 0.0), ("b", 0.0)))
    found = DepthMatcherConfig(stride=2).build().match(a, b)
    assert len(found) == HEIGHT * WIDTH // 4
    np.testing.assert_allclose(found.xy_in_a, found.xy_in_b, atol=2e-3)


def test_missing_depth_gives_no_match():
    depth = wall()
    depth[:, :32] = 0
    depth[:10] = np.nan
    depth[-10:] = np.inf
    found = (
        DepthMatcherConfig(stride=1)
        .build()
        .match(view("a", at(0), depth), view("b", at(0), wall()))
    )
    assert len(found) == 32 * (HEIGHT - 20)


def test_views_without_overlap_have_no_matches():
    behind = np.diag([-1.0, 1, -1, 1])
    matcher = DepthMatcherConfig().build()
    assert len(matcher.match(view("a", at(0), wall()), view("b", behind, wall()))) == 0


def test_confidence_falls_with_the_viewing_angle_and_on_edges():
    slanted = 2 / (1 + (np.arange(WIDTH) - 31.5)[None] / FOCAL * np.ones((HEIGHT, 1)))
    matcher = DepthMatcherConfig(stride=1).build()
    flat = matcher.match(view("a", at(0), wall()), view("b", at(0), wall()))
    steep = matcher.match(view("a", at(0), slanted), view("b", at(0), slanted))
    middle = (WIDTH // 2, HEIGHT // 2)
    value = [m.confidence[(m.xy_in_a == middle).all(1)][0] for m in (flat, steep)]
    # z = 2 - x: the wall is rotated by 45 degrees.
    np.testing.assert_allclose(value, [1, np.cos(np.pi / 4)], atol=0.02)
    box = matcher.match(
        view("a", at(0), wall_with_box(20, 40)), view("b", at(0), wall_with_box(20, 40))
    )
    rim = np.isin(box.xy_in_a[:, 0], [19, 20, 39, 40])
    assert box.confidence[rim].max() < 0.3 < box.confidence[~rim].min()


@pytest.mark.parametrize("lost", ["pose", "depth"])
def test_a_view_without_pose_or_depth_is_named(lost):
    a = view("a", at(0), wall())
    pose = None if lost == "pose" else at(0)
    b = View(
        "kitchen",
        Camera(K, WIDTH, HEIGHT, pose),
        a.load_image,
        None if lost == "depth" else a.load_depth,
    )
    with pytest.raises(InputError, match=f"kitchen has none.*{'' if lost == 'pose' else 'images'}"):
        DepthMatcherConfig().build().match(a, b)


def test_every_matcher_is_listed_with_a_default_config():
    for config in BACKENDS.values():
        assert config() == config()
    with pytest.raises(InputError, match="stride is 0"):
        DepthMatcherConfig(stride=0).build()
