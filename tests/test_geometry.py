import numpy as np

from lift3d.geometry import normals, project, similarity, unproject
from lift3d.scene import Camera

POSE = np.array(
    [[0.0, 0.0, 1.0, 0.3], [1.0, 0.0, 0.0, -0.2], [0.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]
)


def camera(**changes):
    K = np.array([[20.0, 0, 7.5], [0, 21.0, 5.5], [0, 0, 1]])
    settings = {"K": K, "width": 16, "height": 12, "world_from_camera": POSE, **changes}
    return Camera(**settings)


def test_a_pixel_unprojected_projects_onto_its_centre():
    depth = np.full((12, 16), 2.0, np.float32)
    for distortion in ((), (0.05, -0.02, 0.001, 0.002)):
        lens = camera(distortion=distortion)
        xy, z = project(lens, unproject(lens, depth).reshape(-1, 3))
        x, y = np.meshgrid(np.arange(16), np.arange(12))
        np.testing.assert_allclose(xy, np.stack([x, y], -1).reshape(-1, 2), atol=2e-3)
        np.testing.assert_allclose(z, 2, atol=1e-5)


def test_the_normal_of_a_wall_seen_head_on_points_at_the_camera():
    depth = np.full((12, 16), 2.0, np.float32)
    normal = normals(camera(), depth)
    np.testing.assert_allclose(normal[6, 8], -POSE[:3, 2], atol=1e-6)
    assert not normal[0].any()


def test_a_similarity_is_found_again():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(20, 3))
    target = 2.5 * source @ POSE[:3, :3].T + POSE[:3, 3]
    scale, rigid = similarity(source, target)
    np.testing.assert_allclose(scale, 2.5)
    np.testing.assert_allclose(rigid, POSE, atol=1e-12)


def test_a_point_behind_the_camera_has_no_pixel():
    behind = (POSE @ np.array([0, 0, -1.0, 1.0]))[None, :3]
    xy, z = project(camera(), behind)
    assert np.isnan(xy).all()
    assert z[0] < 0


def test_points_of_weight_zero_do_not_change_a_similarity():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(20, 3))
    target = 3.0 * source + [1.0, 2.0, 3.0]
    target[:5] = rng.normal(size=(5, 3))
    scale, rigid = similarity(source, target, weight=np.r_[np.zeros(5), rng.uniform(1, 2, 15)])
    np.testing.assert_allclose(scale, 3.0)
    np.testing.assert_allclose(rigid[:3], np.c_[np.eye(3), [1.0, 2.0, 3.0]], atol=1e-12)
