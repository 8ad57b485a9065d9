"""Distillation: the rasteriser against a slow twin, losses, training, written files."""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from tiny_export import lifted_run, pose  # noqa: E402

from lift3d.export.distillation.gaussians import IdentityConfig, write_gaussians  # noqa: E402
from lift3d.export.distillation.losses import smoothness, ssim  # noqa: E402
from lift3d.export.distillation.measuring import agreement, rendered_view  # noqa: E402
from lift3d.export.distillation.plain import PlainRasteriser, rotations  # noqa: E402
from lift3d.export.distillation.rasterisers import for_device  # noqa: E402
from lift3d.export.distillation.rasterising import (  # noqa: E402
    BLUR,
    DENSEST,
    FAINTEST,
    NEAR,
    Splats,
)
from lift3d.export.distillation.training import (  # noqa: E402
    DistillConfig,
    Picture,
    Rates,
    begin,
    distill,
)
from lift3d.scene import Camera, LabelledPoints, Points  # noqa: E402
from lift3d.scene.errors import InputError, MissingExtra  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines"))
import distill_splat as recipe  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: small tests are not faster with more, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera(width=13, height=9, number=0):
    K = np.array([[11.0, 0, 5.7], [0, 12.0, 4.1], [0, 0, 1]])
    return Camera(K, width, height, pose(number))


def splats(count=12, channels=2, seed=0, spread=0.6, like=torch.float64):
    random = np.random.default_rng(seed)

    def tensor(array):
        return torch.tensor(array, dtype=like)

    return Splats(
        tensor(random.normal(0, spread, (count, 3))),
        tensor(random.normal(size=(count, 4))),
        tensor(random.uniform(0.05, 0.5, (count, 3))),
        tensor(random.uniform(0.02, 1.0, count)),
        tensor(random.uniform(size=(count, channels))),
    )


def drawn_slowly(splats, camera):
    """The papers' definition, pixel by pixel and Gaussian by Gaussian."""
    rigid = camera.camera_from_world
    ((fx, _, cx), (_, fy, cy), _) = camera.K
    flat = []
    for mean, (w, x, y, z), scale, opacity, value in zip(
        *(each.numpy() for each in vars(splats).values()), strict=True
    ):
        a, b, c = rigid[:3, :3] @ mean + rigid[:3, 3]
        if c <= NEAR:
            continue
        n = w * w + x * x + y * y + z * z
        turn = np.eye(3) + 2 / n * np.array(
            [
                [-y * y - z * z, x * y - w * z, x * z + w * y],
                [x * y + w * z, -x * x - z * z, y * z - w * x],
                [x * z - w * y, y * z + w * x, -x * x - y * y],
            ]
        )
        sigma = turn @ np.diag(scale**2) @ turn.T
        # The Jacobian at the nearest point at most 15 % outside the picture.
        u, v = fx * a / c + cx, fy * b / c + cy
        inside_u = np.clip(u, -0.5 - 0.15 * camera.width, 1.15 * camera.width - 0.5)
        inside_v = np.clip(v, -0.5 - 0.15 * camera.height, 1.15 * camera.height - 0.5)
        J = np.array([[fx / c, 0, -(inside_u - cx) / c], [0, fy / c, -(inside_v - cy) / c]])
        R = rigid[:3, :3]
        covariance = J @ R @ sigma @ R.T @ J.T + BLUR * np.eye(2)
        flat.append((c, np.array([u, v]), np.linalg.inv(covariance), opacity, value))
    flat.sort(key=lambda each: each[0])
    picture = np.zeros((camera.height, camera.width, splats.values.shape[1]))
    covered = np.zeros((camera.height, camera.width))
    for row in range(camera.height):
        for column in range(camera.width):
            left = 1.0
            for _, centre, inverse, opacity, value in flat:
                away = np.array([column, row]) - centre
                alpha = min(DENSEST, opacity * np.exp(-away @ inverse @ away / 2))
                if alpha < FAINTEST:
                    continue
                picture[row, column] += left * alpha * value
                covered[row, column] += left * alpha
                left *= 1 - alpha
    return picture, covered


@pytest.mark.parametrize("seed", range(6))
def test_the_plain_rasteriser_equals_the_slow_twin(seed):
    # With seeds from 3 the camera is among the Gaussians: some behind, some far outside.
    given = splats(seed=seed) if seed < 3 else splats(60, seed=seed, spread=3)
    rendered = PlainRasteriser()(given, camera(number=seed))
    picture, covered = drawn_slowly(given, camera(number=seed))
    assert covered.max() > 0.3
    np.testing.assert_allclose(rendered.values.numpy(), picture, atol=1e-12)
    np.testing.assert_allclose(rendered.alpha.numpy(), covered, atol=1e-12)


def test_single_precision_is_equal_up_to_rounding():
    given = splats(40, seed=9)
    single = Splats(*(each.float() for each in vars(given).values()))
    rendered = PlainRasteriser()(single, camera())
    picture, _ = drawn_slowly(given, camera())
    np.testing.assert_allclose(rendered.values.numpy(), picture, atol=2e-5)


@pytest.mark.parametrize("name", ["means", "quaternions", "scales", "opacities", "values"])
def test_gradients_equal_finite_differences(name, monkeypatch):
    # The picture is discontinuous where alpha falls below FAINTEST.
    monkeypatch.setattr("lift3d.export.distillation.plain.FAINTEST", 1e-12)
    given = splats(4, seed=2)
    given = replace(given, opacities=given.opacities * 0.9)
    weights = torch.tensor(np.random.default_rng(0).normal(size=(9, 13, 2)))

    def loss(values):
        rendered = PlainRasteriser()(replace(given, **{name: values}), camera())
        return (weights * rendered.values).sum() + rendered.alpha.sum()

    values = getattr(given, name).clone().requires_grad_()
    loss(values).backward()
    for index in np.ndindex(*values.shape):
        step = torch.zeros_like(values)
        step[index] = 1e-6
        with torch.no_grad():
            difference = (loss(values + step) - loss(values - step)) / 2e-6
        assert float(values.grad[index]) == pytest.approx(float(difference), rel=1e-4, abs=1e-6)


def test_a_gaussian_in_front_hides_the_one_behind():
    at = np.eye(4)
    straight = Camera(np.array([[10.0, 0, 4], [0, 10, 4], [0, 0, 1]]), 9, 9, at)
    both = Splats(
        torch.tensor([[0.0, 0, 4], [0, 0, 2]]),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        torch.full((2, 3), 0.5),
        torch.tensor([1.0, 0.75]),
        torch.eye(2),
    )
    middle = PlainRasteriser()(both, straight).values[4, 4]
    # The Gaussian behind is visible through a transmittance of a quarter.
    assert middle.tolist() == pytest.approx([0.25 * DENSEST, 0.75], abs=1e-6)


def test_nothing_in_view_gives_an_empty_picture_and_no_gradient():
    given = splats(3)
    behind = replace(given, means=(given.means + 100).requires_grad_())
    rendered = PlainRasteriser()(behind, camera())
    assert not rendered.values.any()
    rendered.values.sum().backward()


def test_quaternions_rotate_as_in_scipy():
    from scipy.spatial.transform import Rotation

    quaternion = np.random.default_rng(0).normal(size=(5, 4))
    theirs = Rotation.from_quat(quaternion[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(rotations(torch.tensor(quaternion)).numpy(), theirs, atol=1e-12)


def test_gsplat_is_called_with_its_pixel_origin_and_its_frames(monkeypatch):
    called = {}

    def rasterization(**given):
        called.update(given)
        size = (1, given["height"], given["width"])
        return torch.zeros(*size, given["colors"].shape[1]), torch.zeros(*size, 1), {}

    fake = types.ModuleType("gsplat")
    fake.rasterization = rasterization
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    rendered = for_device("cuda:0")(splats(), camera())
    assert rendered.values.shape == (9, 13, 2)
    assert rendered.alpha.shape == (9, 13)
    K = called["Ks"][0].numpy()
    assert K.tolist() == [[11, 0, 6.2], [0, 12, 4.6], [0, 0, 1]]
    np.testing.assert_allclose(called["viewmats"][0].numpy(), camera().camera_from_world)


def test_without_gsplat_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(MissingExtra, match=r"lift3d\[distill\]"):
        for_device("cuda")


def test_gsplat_takes_the_arguments_we_give():
    """If it is installed: without CUDA it can be imported but not render."""
    import inspect

    gsplat = pytest.importorskip("gsplat")
    names = set(inspect.signature(gsplat.rasterization).parameters)
    assert names >= {"means", "quats", "scales", "opacities", "colors", "viewmats", "Ks"}
    assert names >= {"width", "height", "near_plane", "eps2d"}


# Losses


def test_ssim_equals_that_of_skimage():
    from skimage.metrics import structural_similarity

    random = np.random.default_rng(0)
    a, b = random.uniform(size=(2, 40, 50, 3))
    _, theirs = structural_similarity(
        a,
        b,
        full=True,
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        sigma=1.5,
    )
    crop = np.s_[12:-12, 12:-12]
    # Without the border, which both treat differently.
    ours = ssim_map(a, b)
    np.testing.assert_allclose(ours[crop], theirs[crop], atol=1e-9)
    assert float(ssim(torch.tensor(a), torch.tensor(a))) == pytest.approx(1)
    assert float(ssim(torch.tensor(a), torch.tensor(b))) == pytest.approx(ours.mean())


def ssim_map(a, b):
    """The definition: an 11 x 11 window with zero padding."""
    from scipy.ndimage import correlate1d

    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    line /= line.sum()

    def mean(x):
        for axis in (0, 1):
            x = correlate1d(x, line, axis, mode="constant")
        return x

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    top = (2 * ma * mb + 0.01**2) * (2 * both + 0.03**2)
    return top / (ma**2 + mb**2 + 0.01**2) / (va + vb + 0.03**2)


def test_smoothness_is_zero_for_equal_ids_and_grows_with_difference():
    near, drawn = torch.tensor([[1], [0]]), torch.tensor([0, 1])
    scores = torch.tensor([[1.0, 0, 0], [1, 0, 0]])
    assert float(smoothness(scores, near, drawn)) == pytest.approx(0, abs=1e-7)
    further = [float(smoothness(x * torch.eye(2, 3), near, drawn)) for x in (1.0, 2.0, 3.0)]
    assert 0 < further[0] < further[1] < further[2]
    p = torch.tensor([2.0, 0, 0]).softmax(0)
    by_hand = float((p * (p / p[[1, 0, 2]]).log()).sum())
    assert further[1] == pytest.approx(by_hand)


# Training, on two coloured balls seen from a few directions


def balls(count=60, views=4, label=(3, 70000)):
    random = np.random.default_rng(0)
    xyz = random.normal(size=(2 * count, 3))
    xyz *= 0.4 / np.linalg.norm(xyz, axis=1, keepdims=True)
    xyz[:count, 0] -= 0.5
    xyz[count:, 0] += 0.5
    rgb = np.repeat(np.uint8([[220, 40, 40], [40, 60, 200]]), count, 0)
    ids = np.repeat(np.int32(label), count)
    ones = np.ones(2 * count, np.float32)
    points = Points(xyz.astype(np.float32), rgb, (xyz * 0).astype(np.float32), ones)
    cloud = LabelledPoints(points, ids, ones)
    K = np.array([[22.0, 0, 11.5], [0, 22, 8.5], [0, 0, 1]])
    cameras = [Camera(K, 24, 18, pose(number)) for number in range(views)]
    # Target pictures: opaque Gaussians of the truth.
    opaque = Splats(
        torch.from_numpy(points.xyz),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(2 * count, 1),
        torch.full((2 * count, 3), 0.09),
        torch.full((2 * count,), 0.95),
        torch.cat([torch.from_numpy(rgb / 255.0), torch.eye(2).repeat_interleave(count, 0)], 1)
        .float(),
    )  # fmt: skip
    pictures = []
    for number, each in enumerate(cameras):
        drawn = PlainRasteriser()(opaque, each)
        image = (255 * drawn.values[..., :3]).round().byte().numpy()
        which = np.array(label, np.int32)[drawn.values[..., 3:].argmax(2).numpy()]
        labels = np.where(drawn.alpha.numpy() > 0.5, which, 0).astype(np.int32)
        pictures.append(Picture(f"{number}", each, image, labels))
    return cloud, pictures


SHORT = DistillConfig(steps=16, save_every=7, identity=IdentityConfig(channels=4))


def views_of(model, pictures):
    return [rendered_view(model, PlainRasteriser(), each.camera) for each in pictures]


def test_training_fits_colours_and_labels_and_recovers_the_ids():
    cloud, pictures = balls()
    config = replace(SHORT, steps=80, label_weight=1.0)
    made = distill(cloud, pictures, config)
    before = agreement(pictures, views_of(begin(cloud, pictures, config), pictures))
    after = agreement(pictures, views_of(made.model, pictures))
    assert after.psnr > before.psnr + 3
    assert after.miou > max(0.85, before.miou)
    assert after.objects == 2
    assert made.losses[-10:].mean() < 0.8 * made.losses[:10].mean()
    assert set(np.unique(made.model.labels())) <= {0, 3, 70000}


def test_labels_are_learnt_from_the_maps_only():
    cloud, pictures = balls(views=8)
    identity = IdentityConfig(channels=4, from_cloud=False)
    rates = Rates(identity=0.1, head=0.02)
    config = replace(SHORT, steps=80, label_weight=1.0, identity=identity, rates=rates)
    made = distill(cloud, pictures, config)
    assert (made.model.labels() == cloud.instance).mean() > 0.8


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    cloud, pictures = balls()
    config = replace(SHORT, most=70, smooth_weight=0.1)
    a, b = (distill(cloud, pictures, config).model.state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = distill(cloud, pictures, replace(config, seed=1)).model.state_dict()
    assert len(other["means"]) == 70
    assert not torch.equal(a["identity"], other["identity"])


@pytest.mark.parametrize("stop", [7, 11, 16])
def test_an_interrupted_training_resumes_with_the_same_result(tmp_path, stop):
    cloud, pictures = balls()
    config = replace(SHORT, smooth_weight=0.1)
    whole = distill(cloud, pictures, config)
    first = distill(cloud, pictures, config, tmp_path, stop_after=stop)
    assert len(first.losses) == stop
    ticks = []
    done = distill(cloud, pictures, config, tmp_path, lambda *each: ticks.append(each))
    assert len(ticks) == 16 - stop
    assert (done.losses == whole.losses).all()
    ours, theirs = done.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_foreign_checkpoint_is_ignored_and_a_damaged_checkpoint_refused(tmp_path):
    cloud, pictures = balls()
    for config, shown in ((SHORT, pictures), (replace(SHORT, label_weight=0.5), pictures[:2])):
        kept = distill(cloud, shown, config, tmp_path, stop_after=1)
        fresh = distill(cloud, shown, config, stop_after=1)
        assert (kept.losses == fresh.losses).all()
    (tmp_path / "checkpoint.pt").write_bytes(b"PK cut off")
    with pytest.raises(InputError, match="cannot be read"):
        distill(cloud, pictures, SHORT, tmp_path)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"most": 1}, {"save_every": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        distill(*balls(), replace(SHORT, **wrong))


def test_no_pictures_or_no_points_are_refused():
    cloud, pictures = balls()
    with pytest.raises(InputError, match="no picture"):
        distill(cloud, [], SHORT)
    one = LabelledPoints(cloud.points.take(np.arange(1)), cloud.instance[:1], cloud.score[:1])
    with pytest.raises(InputError, match="1 points"):
        distill(one, pictures, SHORT)


# What is measured and written


def test_miou_is_over_ids_above_0_and_pixels_of_all_views():
    image = np.zeros((2, 2, 3), np.uint8)
    truth = [np.int32([[1, 1], [0, 2]]), np.int32([[1, 0], [0, 0]])]
    found = [np.int32([[1, 0], [0, 9]]), np.int32([[1, 1], [0, 0]])]
    at = camera()
    pictures = [Picture(f"{i}", at, image, each) for i, each in enumerate(truth)]
    measured = agreement(pictures, [(image + np.uint8(255), each) for each in found])
    # Id 1: two pixels in both, four in at least one; id 2: none. 9 is no id of the label maps.
    assert measured.miou == pytest.approx((2 / 4 + 0) / 2)
    assert measured.objects == 2
    assert measured.same == pytest.approx(5 / 8)
    assert measured.psnr == 0
    assert agreement([], []) is None


def test_pixels_of_low_alpha_have_no_label():
    cloud, pictures = balls()
    model = begin(cloud, pictures, SHORT)
    with torch.no_grad():
        model.logits.fill_(-20)
    assert not any(labels.any() for _, labels in views_of(model, pictures))


@pytest.mark.parametrize("label_property", [False, True])
def test_the_ply_is_that_of_3dgs_with_labels_in_a_second_file(tmp_path, label_property):
    from plyfile import PlyData

    from lift3d.export.splat import C0, NAMES

    cloud, pictures = balls()
    model = distill(cloud, pictures, replace(SHORT, steps=3)).model
    write_gaussians(tmp_path / "point_cloud.ply", model, label_property)
    ply = PlyData.read(str(tmp_path / "point_cloud.ply"))
    vertex = ply["vertex"].data
    assert ply.byte_order == "<"
    assert vertex.dtype.names == NAMES + ("label",) * label_property
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.int32
    assert (labels == model.labels()).all()
    if label_property:
        assert (vertex["label"] == labels).all()
    stored = np.load(tmp_path / "identity.npz")
    scores = stored["identity"] @ stored["weight"].T + stored["bias"]
    assert (stored["ids"][scores.argmax(1)] == labels).all()

    # Rendered from the file only: the same picture.
    def columns(*names):
        return torch.tensor(np.stack([vertex[each] for each in names], 1))

    again = Splats(
        columns("x", "y", "z"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("scale_0", "scale_1", "scale_2").exp(),
        columns("opacity").sigmoid()[:, 0],
        0.5 + C0 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
    )
    colour, _ = rendered_view(model, PlainRasteriser(), pictures[0].camera)
    drawn = PlainRasteriser()(again, pictures[0].camera).values
    drawn = (255 * drawn).round().clamp(0, 255).byte().numpy()
    assert np.abs(drawn.astype(int) - colour).max() <= 1


# The recipe


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("distill"), views=4, width=48, height=36)


def test_the_recipe_goes_from_a_run_to_a_splat_with_labels(run_folder, tmp_path, capsys):
    out = tmp_path / "out"
    given = [str(run_folder), "--out", str(out), "--hold-out", "3", "--width", "32"]
    given += ["--distill.steps", "12", "--distill.most", "600"]
    assert recipe.main(given) == 0
    said = capsys.readouterr().out
    assert "for testing: not a real result" in said
    found = json.loads((out / "distill.json").read_text())
    assert found["for_testing"]
    assert found["size"] == [32, 24]
    assert found["distilled"]["trained"]["views"] == 2
    assert found["distilled"]["held out"]["views"] == 2
    assert found["distilled"]["trained"]["psnr"] > found["at the start"]["trained"]["psnr"]
    for stage in (found["before"], found["distilled"]["H"]):
        assert 0 < stage["view"]["H"] <= 1
    # One centimetre, because the run is metric; COLMAP has no unit.
    assert found["before"]["nothing"]["epsilon"] == 0.01
    assert found["splats"] == len(np.load(out / "labels.npy")) == 600
    assert len(list((out / "labels").glob("*.png"))) == 4
    with Image.open(out / "strip.png") as strip:
        assert strip.size == (4 * 32, 2 * (24 + 4))
    seconds = found["seconds"]
    assert recipe.main(given) == 0  # everything is finished
    assert json.loads((out / "distill.json").read_text())["seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--hold-out", "1"), "--hold-out"),
        (("--distill.steps", "0"), "expected steps"),
        (("--width", "3"), "--width"),
    ],
)
def test_the_recipe_refuses_invalid_arguments(run_folder, tmp_path, capsys, more, said):
    assert recipe.main([str(run_folder), "--out", str(tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_recipe_needs_a_finished_run(tmp_path, capsys):
    assert recipe.main([str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
    assert "finished `lift3d lift`" in capsys.readouterr().err
