from dataclasses import replace
from functools import partial

import numpy as np
import plyfile
import pytest

from lift3d.geometry import normals, project, unproject
from lift3d.reconstruction.fusion import BACKENDS, given_points
from lift3d.reconstruction.fusion.frames import Frame, default_voxel
from lift3d.reconstruction.fusion.grid import INITIAL_ROOM, Grid
from lift3d.reconstruction.fusion.tsdf import TsdfConfig
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import FrameError, InputError

WIDTH, HEIGHT = 64, 48
K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
CAMERA = Camera(K, WIDTH, HEIGHT, np.eye(4))


def plain(value, shape=(HEIGHT, WIDTH)):
    return np.full(shape, value, np.float32)


def painted(rgb=(200, 100, 50), shape=(HEIGHT, WIDTH)):
    return np.full((*shape, 3), rgb, np.uint8)


def view(name, depth=None, camera=CAMERA, **more):
    return View(name, camera, painted, depth or partial(plain, 2.0), **more)


def torn():
    raise FrameError("it is torn")


def scene(*views, metric=True):
    return Scene("test", views, metric, "test")


def noisy(seed, sigma=0.01, z=2.0):
    def depth():
        noise = np.random.default_rng(seed).normal(0, sigma, (HEIGHT, WIDTH))
        return (z + noise).astype(np.float32)

    return depth


def fused(*views, metric=True, **options):
    return VoxelConfig(**{"voxel": 0.1, **options}).build().fuse(scene(*views, metric=metric))


def bytes_of(points):
    return b"".join(a.tobytes() for a in (points.xyz, points.rgb, points.normal, points.confidence))


# --- both backends ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_fused_plane_lies_on_the_plane_with_its_colour_and_normal(name):
    points = BACKENDS[name](voxel=0.05).build().fuse(scene(view("a"), view("b")))
    assert len(points) > 500
    assert np.abs(points.xyz[:, 2] - 2).max() < 1e-3
    # TSDF normals are tilted at the wall's border.
    inner = np.abs(points.xyz[:, :2]).max(1) < 0.7
    assert np.abs(points.normal[inner] - [0, 0, -1]).max() < 0.02
    assert np.abs(points.rgb.astype(int) - [200, 100, 50]).max() <= 1
    assert (points.confidence > 0).all()


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_moved_and_turned_camera_fuses_the_same_plane(name):
    moved = np.eye(4)
    moved[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along world x
    moved[:3, 3] = [1, 2, 3]
    points = BACKENDS[name](voxel=0.05).build().fuse(scene(view("a", camera=CAMERA.at(moved))))
    assert np.abs(points.xyz[:, 0] - 3).max() < 1e-3
    assert np.abs(points.xyz[:, 1:].mean(0) - [2, 3]).max() < 0.05
    inner = np.abs(points.xyz[:, 1:] - [2, 3]).max(1) < 0.7
    assert np.abs(points.normal[inner] - [-1, 0, 0]).max() < 0.02


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_the_same_views_give_the_same_bytes(name):
    views = [view(f"{i}", noisy(i)) for i in range(3)]
    first, again = (BACKENDS[name](voxel=0.05).build().fuse(scene(*views)) for _ in range(2))
    assert len(first) > 100
    assert bytes_of(first) == bytes_of(again)


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_colour_is_read_through_the_colour_camera_where_it_differs(name):
    def stripes():
        picture = painted((255, 0, 0), (24, 32))
        picture[:, 16:] = (0, 0, 255)  # right half of a small colour image
        return picture

    beside = np.eye(4)
    beside[0, 3] = 0.5  # the colour camera is 0.5 m to the right
    colour = Camera(np.array([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]]), 32, 24, beside)
    both = View("a", colour, stripes, partial(plain, 2.0), depth_camera=CAMERA)
    points = BACKENDS[name](voxel=0.05).build().fuse(scene(both))
    # The colour changes at column 15.5, straight ahead of the colour camera: x = 0.5.
    left = (points.xyz[:, 0] < 0.4) & (points.xyz[:, 0] > -0.4)
    right = (points.xyz[:, 0] > 0.6) & (points.xyz[:, 0] < 1.4)
    assert left.sum() > 50
    assert right.sum() > 50
    assert np.abs(points.rgb[left].astype(int) - [255, 0, 0]).max() <= 1
    assert np.abs(points.rgb[right].astype(int) - [0, 0, 255]).max() <= 1


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_lens_distortion_is_removed(name):
    bent = replace(CAMERA, distortion=(0.2, 0.0, 0.0, 0.0))
    points = BACKENDS[name](voxel=0.05).build().fuse(scene(view("a", camera=bent)))
    assert np.abs(points.xyz[:, 2] - 2).max() < 1e-3
    # k1 > 0 moves pixels outwards, so they cover less than the undistorted 64 / 60 * 2 m.
    corner = unproject(bent, plain(2.0))[HEIGHT // 2, -1, 0]
    assert corner < 1.04
    assert points.xyz[:, 0].max() == pytest.approx(corner, abs=0.06)


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_view_that_cannot_be_read_is_left_out_and_named(name):
    def torn():
        raise FrameError("torn")

    fusion = BACKENDS[name](voxel=0.05).build()
    calls = []
    fusion.fuse(scene(view("a"), view("bad", torn), view("c")), lambda *c: calls.append(c))
    assert [frame.name for frame in fusion.skipped] == ["bad"]
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_no_usable_view_is_an_error(name):
    blind = View("a", CAMERA, painted)
    with pytest.raises(InputError, match="view a has no depth"):
        BACKENDS[name](voxel=0.05).build().fuse(scene(blind))


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_voxel_without_size_is_an_error(name):
    with pytest.raises(InputError, match="voxel is 0"):
        BACKENDS[name](voxel=0.0).build()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("option", ["max_depth", "clear_depth"])
def test_a_limit_of_0_is_an_error_and_not_no_limit(name, option):
    config = BACKENDS[name]
    if option not in config.__dataclass_fields__:
        pytest.skip(f"{name} has no {option}")
    with pytest.raises(InputError, match=f"{option} is 0"):
        config(**{option: 0.0}).build()


def test_tsdf_confidence_is_the_number_of_observations():
    points = TsdfConfig(voxel=0.05).build().fuse(scene(*(view(f"{i}") for i in range(3))))
    assert np.median(points.confidence) == 3


# --- voxels -----------------------------------------------------------------------------


def slow_fusion(views, voxel):
    """The definition, pixel by pixel: weight cosine / (1 + (z / 2)^2), mean per voxel."""
    cells = {}
    for one in views:
        depth, camera = one.depth(), one.geometry_camera
        xyz, normal = unproject(camera, depth).astype(float), normals(camera, depth)
        for row in range(HEIGHT):
            for column in range(WIDTH):
                point, n = xyz[row, column], normal[row, column].astype(float)
                if not n.any():
                    continue
                ray = point - camera.pose[:3, 3]
                cosine = max(-(n @ ray) / np.linalg.norm(ray), 0.05)
                weight = cosine / (1 + (depth[row, column] / 2.0) ** 2)
                pixel = one.image()[row, column].astype(float)
                cell = cells.setdefault(tuple(np.floor(point / voxel).astype(int)), [])
                cell.append((weight, *point, *pixel))
    means = {}
    for key, looks in cells.items():
        looks = np.array(looks)
        means[key] = np.average(looks[:, 1:], axis=0, weights=looks[:, 0])
    return means


def test_voxels_equal_the_slow_definition_on_a_slanted_wall():
    def slanted():
        # z = 2 + 0.3 x, so z = 2 / (1 - 0.3 ray_x): the same normal over any reach.
        ray_x = (np.arange(WIDTH) - 31.5) / 60
        return np.broadcast_to(2 / (1 - 0.3 * ray_x), (HEIGHT, WIDTH)).astype(np.float32)

    def shaded():
        rng = np.random.default_rng(0)
        return rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)

    moved = np.eye(4)
    moved[:3, 3] = [0.03, 0.02, -0.41]
    views = [
        replace(view("a", slanted, CAMERA.at(p)), load_image=shaded) for p in (np.eye(4), moved)
    ]
    points = fused(*views, voxel=0.1)
    slow = slow_fusion(views, 0.1)
    keys = [tuple(k) for k in np.floor(points.xyz.astype(float) / 0.1).astype(int)]
    compared = 0
    for key, xyz, rgb in zip(keys, points.xyz, points.rgb, strict=True):
        # Border pixels have no normal in the twin: compare only voxels inside.
        if key in slow and np.abs(xyz[:2]).max() < 0.6:
            assert xyz == pytest.approx(slow[key][:3], abs=2e-5)
            assert rgb == pytest.approx(slow[key][3:], abs=0.6)
            compared += 1
    assert compared > 50
    assert keys == sorted(keys)


def test_noise_falls_with_the_square_root_of_the_observations():
    # At 2 m a voxel of 0.1 m is 3 x 3 pixels and its edges run between pixels; the camera
    # is moved 0.05 m forward so that the wall is in the middle of the voxels.
    sigma, forward = 0.01, np.eye(4)
    forward[2, 3] = 0.05
    views = [view(f"{i}", noisy(i, sigma), CAMERA.at(forward)) for i in range(50)]
    points = fused(*views, voxel=0.1)
    inner = np.abs(points.xyz[:, :2]).max(1) < 0.7
    error = points.xyz[inner, 2] - 2.05
    assert inner.sum() == 14 * 14
    assert np.sqrt((error**2).mean()) < 1.25 * sigma / np.sqrt(50 * 9)


def test_memory_does_not_grow_with_repeated_views():
    frame = Frame(view("a"), plain(2.0), painted(), None)
    grid = Grid(0.05, np.zeros(3))
    grid.add(frame)
    once, room = len(grid), grid.room
    for _ in range(100):
        grid.add(frame)
    assert (len(grid), grid.room) == (once, room)
    points, views = grid.points()
    assert (views == 101).all()
    assert len(points) == once


def test_the_voxels_are_shared_evenly_between_two_tables():
    grid = Grid(0.01, np.zeros(3))
    grid.add(Frame(view("a"), plain(2.0), painted(), None))
    used = [half.used for half in grid._halves]
    assert sum(used) == WIDTH * HEIGHT
    assert min(used) > 0.4 * WIDTH * HEIGHT


def test_the_table_grows_with_the_surface_and_loses_no_voxel():
    grid = Grid(0.002, np.zeros(3))
    for i in range(40):
        pose = np.eye(4)
        pose[0, 3] = 3.0 * i
        grid.add(Frame(view("a", camera=CAMERA.at(pose)), plain(2.0), painted(), None))
    assert grid.room > INITIAL_ROOM
    points, views = grid.points()
    # Every pixel has a voxel of its own.
    assert len(points) == len(grid) == 40 * WIDTH * HEIGHT
    assert (views == 1).all()
    last = points.xyz[-HEIGHT:]
    assert last[:, 0] == pytest.approx(117 + 31.5 / 60 * 2, abs=1e-4)


def test_flying_pixels_between_two_surfaces_are_dropped():
    def step():
        depth = plain(2.0)
        depth[:, 32:] = 3.0
        depth[:, 32] = 2.5  # a column between both surfaces
        depth[10, 10] = 1.5  # a speck
        return depth

    kept = fused(view("a", step), voxel=0.05, depth_edge=0.0)
    assert (np.abs(kept.xyz[:, 2] - 2.5) < 0.1).any()
    points = fused(view("a", step), voxel=0.05)
    assert (np.minimum(abs(points.xyz[:, 2] - 2), abs(points.xyz[:, 2] - 3)) < 1e-3).all()
    assert (points.xyz[:, 2] > 2.9).any()


def test_parts_two_pixels_thin_survive():
    def pole():
        depth = plain(3.0)
        depth[:, 30:32] = 2.0
        return depth

    points = fused(view("a", pole), voxel=0.05)
    assert (np.abs(points.xyz[:, 2] - 2) < 1e-3).sum() >= 20


def test_points_that_too_few_views_saw_are_dropped():
    def ghost():
        depth = plain(2.0)
        depth[:20, :20] = 1.0
        return depth

    views = [view(f"{i}") for i in range(9)]
    points = fused(*views, view("ghost", ghost))
    assert points.xyz[:, 2].min() > 1.9
    assert fused(*views, view("ghost", ghost), min_views=1).xyz[:, 2].min() < 1.1
    # With few views all points are kept.
    assert fused(view("a"), view("ghost", ghost)).xyz[:, 2].min() < 1.1


def test_no_point_left_is_an_error_that_names_the_thresholds():
    with pytest.raises(InputError, match="min_views 3"):
        fused(view("a"), min_views=3)


def test_confident_pixels_outweigh_uncertain_pixels():
    sure = view("a", load_confidence=partial(plain, 0.75))
    unsure = view("b", partial(plain, 2.04), load_confidence=partial(plain, 0.25))
    points = fused(sure, unsure, voxel=0.1, clear_depth=np.inf)
    assert np.median(points.xyz[:, 2]) == pytest.approx(2.01, abs=1e-4)


def test_one_clear_observation_has_confidence_one():
    points = fused(view("a"), voxel=0.1, clear_depth=np.inf)
    ahead = np.linalg.norm(points.xyz[:, :2], axis=1) < 0.4
    assert ahead.sum() > 20
    # Pixels do not divide evenly into voxels: 3 pixels to a voxel's side, 9 to its face.
    assert points.confidence[ahead].mean() == pytest.approx(1, abs=0.05)


def test_missing_depth_of_every_kind_gives_no_point():
    def holes():
        depth = plain(2.0)
        depth[:10], depth[10:20], depth[20:30], depth[30:40] = 0, np.nan, np.inf, -1
        return depth

    points = fused(view("a", holes), voxel=0.05)
    rows = project(CAMERA, points.xyz)[0][:, 1]
    assert rows.min() > 39.4
    assert np.isfinite(points.xyz).all()


def test_depth_beyond_the_limit_is_ignored():
    def far():
        depth = plain(2.0)
        depth[:, 32:] = 9.0
        return depth

    assert fused(view("a", far), max_depth=5.0).xyz[:, 2].max() < 2.1


def test_a_coarser_stride_keeps_the_surface():
    points = fused(view("a"), stride=2)
    assert np.abs(points.xyz[:, 2] - 2).max() < 1e-6
    assert points.xyz[:, 0].max() > 0.9


def test_large_world_coordinates_keep_the_voxels_apart():
    far = np.eye(4)
    far[:3, 3] = [512_000, 0, 0]
    points = fused(view("a", camera=CAMERA.at(far)))
    assert len(points) == pytest.approx(len(fused(view("a"))), rel=0.1)


def test_the_voxel_is_chosen_from_the_scene_and_reported():
    assert default_voxel(scene(view("a", partial(plain, 20.0)))) == 0.015
    # 2 m away: the middle of the wall is about 2.1 x 1.6 m, 2.6 m across.
    assert default_voxel(scene(view("a"))) == 0.01
    assert default_voxel(scene(view("a", partial(plain, 200.0)), metric=False)) == 1.0


@pytest.mark.parametrize("metric", [False, True])
def test_far_surface_does_not_make_the_voxel_coarse(metric: bool):
    def statue() -> np.ndarray:
        depth = plain(20.0)
        depth[:8] = 100.0  # houses, on a sixth of the picture
        return depth

    known = scene(view("a", statue), metric=metric)
    assert default_voxel(known) == 0.15  # 20 * 0.0075


def test_a_voxel_cannot_be_chosen_without_depth():
    with pytest.raises(InputError, match=r"no view with depth.*first: it is torn"):
        default_voxel(scene(view("a", torn)))
    fusion = VoxelConfig().build()
    fusion.fuse(scene(view("a")))
    assert fusion.notes[0].startswith("voxel 0.01 m, chosen from the scene")


# --- a given cloud ----------------------------------------------------------------------


def write_ply(path, vertex, faces=None, text=False):
    elements = [plyfile.PlyElement.describe(vertex, "vertex")]
    if faces is not None:
        face = np.empty(len(faces), [("vertex_indices", "O")])
        face["vertex_indices"] = [np.array(f, np.int32) for f in faces]
        elements.append(plyfile.PlyElement.describe(face, "face"))
    plyfile.PlyData(elements, text=text).write(str(path))
    return path


def vertices(xyz, **fields):
    names = [("x", "f8"), ("y", "f8"), ("z", "f8")] + [(n, v[0]) for n, v in fields.items()]
    vertex = np.zeros(len(xyz), names)
    vertex["x"], vertex["y"], vertex["z"] = np.array(xyz, float).T
    for name, (_, values) in fields.items():
        vertex[name] = values
    return vertex


SQUARE = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_a_given_cloud_keeps_the_order_and_colours_of_its_vertices(tmp_path):
    xyz = np.random.default_rng(0).normal(size=(50, 3))
    colour = {c: ("u1", np.arange(50) + i) for i, c in enumerate(("red", "green", "blue"))}
    points = given_points(write_ply(tmp_path / "a.ply", vertices(xyz, **colour)))
    assert np.array_equal(points.xyz, xyz.astype(np.float32))
    assert points.rgb[7].tolist() == [7, 8, 9]
    assert (points.normal == 0).all()
    assert (points.confidence == 1).all()


def test_normals_of_a_given_mesh_come_from_its_faces(tmp_path):
    path = write_ply(tmp_path / "a.ply", vertices([*SQUARE, [9, 9, 9]]), [[1, 3, 0, 2]], text=True)
    points = given_points(path)
    assert points.normal.tolist() == [[0, 0, 1]] * 4 + [[0, 0, 0]]
    assert (points.rgb == 128).all()


def test_normals_in_the_file_come_before_those_of_the_faces(tmp_path):
    stored = {"nx": ("f4", 0), "ny": ("f4", 2), "nz": ("f4", 0)}
    points = given_points(write_ply(tmp_path / "a.ply", vertices(SQUARE, **stored), [[0, 1, 2]]))
    assert points.normal.tolist() == [[0, 1, 0]] * 4


def test_large_coordinates_are_accepted(tmp_path):
    points = given_points(write_ply(tmp_path / "a.ply", vertices([[5e5, 4e6, 100.0]])))
    assert points.xyz.tolist() == [[5e5, 4e6, 100.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as PLY"),
        (b"\x89PNG not a mesh", "cannot be read as PLY"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n0 0 0\n", "cannot be read as PLY"),
        (b"ply\nformat ascii 1.0\nelement face 0\nproperty list uchar int vertex_indices\n"
         b"end_header\n", "has no vertices"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n",
         "vertices have x; expected x, y, z"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n", "has 0 vertices"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n0 nan 0\n", "vertex 0 is not finite"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_an_error_that_names_its_content(tmp_path, content, message):
    path = tmp_path / "odd.ply"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        given_points(path)


def test_faces_with_missing_vertices_are_an_error(tmp_path):
    with pytest.raises(InputError, match="a face refers to vertex 9, but there are 4 vertices"):
        given_points(write_ply(tmp_path / "a.ply", vertices(SQUARE), [[0, 1, 9]]))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        given_points(tmp_path / "none.ply")
