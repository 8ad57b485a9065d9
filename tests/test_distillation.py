"""Distillation: the rasteriser against a slow twin, losses, training, what is written."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_export import pose  # noqa: E402

from lift3d.distillation.plain import PlainRasteriser, rotations  # noqa: E402
from lift3d.distillation.rasterising import (  # noqa: E402
    BLUR,
    DENSEST,
    FAINTEST,
    NEAR,
    Splats,
    for_device,
)
from lift3d.errors import MissingExtra  # noqa: E402
from lift3d.scene import Camera  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Toys gain nothing from more, and lose much on a busy machine."""
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
    """Pixel by pixel, Gaussian by Gaussian, as the papers write it."""
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
        # The Jacobian at the nearest place that is at most 15 % outside the picture.
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
def test_the_plain_rasteriser_draws_what_the_slow_twin_draws(seed):
    # Seeds 3 and up stand among the Gaussians: some are behind, some far outside the picture.
    given = splats(seed=seed) if seed < 3 else splats(60, seed=seed, spread=3)
    rendered = PlainRasteriser()(given, camera(number=seed))
    picture, covered = drawn_slowly(given, camera(number=seed))
    assert covered.max() > 0.3
    np.testing.assert_allclose(rendered.values.numpy(), picture, atol=1e-12)
    np.testing.assert_allclose(rendered.alpha.numpy(), covered, atol=1e-12)


def test_single_precision_draws_the_same_to_rounding():
    given = splats(40, seed=9)
    single = Splats(*(each.float() for each in vars(given).values()))
    rendered = PlainRasteriser()(single, camera())
    picture, _ = drawn_slowly(given, camera())
    np.testing.assert_allclose(rendered.values.numpy(), picture, atol=2e-5)


@pytest.mark.parametrize("name", ["means", "quaternions", "scales", "opacities", "values"])
def test_gradients_are_those_of_finite_differences(name, monkeypatch):
    # Where alpha falls below FAINTEST the picture jumps, which differences would see.
    monkeypatch.setattr("lift3d.distillation.plain.FAINTEST", 1e-12)
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
    # The one behind is seen through a quarter.
    assert middle.tolist() == pytest.approx([0.25 * DENSEST, 0.75], abs=1e-6)


def test_nothing_in_view_gives_an_empty_picture_and_no_gradient():
    given = splats(3)
    behind = replace(given, means=(given.means + 100).requires_grad_())
    rendered = PlainRasteriser()(behind, camera())
    assert not rendered.values.any()
    rendered.values.sum().backward()


def test_quaternions_turn_as_scipy_turns():
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
    """Where it is installed: it imports without CUDA and renders nothing there."""
    import inspect

    gsplat = pytest.importorskip("gsplat")
    names = set(inspect.signature(gsplat.rasterization).parameters)
    assert names >= {"means", "quats", "scales", "opacities", "colors", "viewmats", "Ks"}
    assert names >= {"width", "height", "near_plane", "eps2d"}
