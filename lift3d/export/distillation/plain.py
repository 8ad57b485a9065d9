"""Rendering in plain PyTorch, on any device: for tests and small scenes.

There are no tiles: every pair of a Gaussian and a pixel in its range is a row of a list, sorted by
pixel and then from front to back. Memory grows with the pairs (about 200 bytes each with
gradients), and a step is some hundred times slower than with gsplat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64

from lift3d.export.distillation.rasterising import BLUR, DENSEST, FAINTEST, NEAR, Rendered, Splats
from lift3d.scene import Camera


class PlainRasteriser:
    """Exact up to rounding; deterministic on the CPU."""

    name = "plain PyTorch (for testing)"

    def __call__(self, splats: Splats, camera: Camera) -> Rendered:
        """Render one camera."""
        flat = projected(splats, camera)
        which, pixel = _pairs(flat, camera.width, camera.height)
        column, row = pixel % camera.width, pixel // camera.width
        # index_select: the gradient of x[index] is much slower on the CPU.
        away = torch.stack([column, row], 1) - flat.centre.index_select(0, which)
        a, b, c = flat.inverse.index_select(0, which).unbind(1)
        x, y = away.unbind(1)
        power = -0.5 * (a * x * x + c * y * y) - b * x * y
        alpha = (flat.opacity.index_select(0, which) * torch.exp(power)).clamp(max=DENSEST)
        drawn = (alpha >= FAINTEST).nonzero()[:, 0]
        alpha, pixel, which = alpha[drawn], pixel[drawn], which[drawn]
        weight = alpha * _transmittance(alpha, pixel)
        size = camera.width * camera.height
        values = splats.values.index_select(0, flat.index[which])
        covered = torch.zeros(size, dtype=weight.dtype, device=weight.device)
        blended = torch.zeros(
            size, values.shape[1], dtype=values.dtype, device=values.device
        ).index_add(0, pixel, weight[:, None] * values)
        return Rendered(
            blended.reshape(camera.height, camera.width, -1),
            covered.index_add(0, pixel, weight).reshape(camera.height, camera.width),
        )


@dataclass(frozen=True, eq=False)
class Projected:
    """Gaussians projected into the image, from front to back."""

    index: Int64[torch.Tensor, " drawn"]
    """Index of the splat."""
    centre: Float[torch.Tensor, "drawn 2"]
    covariance: Float[torch.Tensor, "drawn 3"]
    """xx, xy, yy in square pixels."""
    inverse: Float[torch.Tensor, "drawn 3"]
    """xx, xy, yy of the inverse."""
    opacity: Float[torch.Tensor, " drawn"]


def projected(splats: Splats, camera: Camera) -> Projected:
    """EWA splatting: project covariances by the Jacobian of the projection at the centre.

    As in gsplat, the Jacobian is evaluated at most 15 % of the picture's size outside it, because
    the affine approximation diverges there.
    """
    camera_from_world = torch.as_tensor(camera.camera_from_world).to(splats.means)
    rotation = camera_from_world[:3, :3]
    place = splats.means @ rotation.T + camera_from_world[:3, 3]
    front = (place[:, 2].detach() > NEAR).nonzero()[:, 0]
    order = place[front, 2].detach().argsort(stable=True)
    index = front[order]
    x, y, z = place[index].unbind(1)
    fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
    cx, cy = float(camera.K[0, 2]), float(camera.K[1, 2])
    centre = torch.stack([fx * x / z + cx, fy * y / z + cy], 1)
    margin_x, margin_y = 0.15 * camera.width, 0.15 * camera.height
    slope_x = (x / z).clamp((-cx - 0.5 - margin_x) / fx, (camera.width - cx - 0.5 + margin_x) / fx)
    slope_y = (y / z).clamp((-cy - 0.5 - margin_y) / fy, (camera.height - cy - 0.5 + margin_y) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * slope_x / z], 1),
            torch.stack([zero, fy / z, -fy * slope_y / z], 1),
        ],
        1,
    )
    axes = rotations(splats.quaternions[index]) * splats.scales[index][:, None, :]
    root = jacobian @ (rotation @ axes)
    covariance = root @ root.transpose(1, 2)
    xx, yy = covariance[:, 0, 0] + BLUR, covariance[:, 1, 1] + BLUR
    xy = covariance[:, 0, 1]
    determinant = xx * yy - xy * xy
    inverse = torch.stack([yy, -xy, xx], 1) / determinant[:, None]
    return Projected(index, centre, torch.stack([xx, xy, yy], 1), inverse, splats.opacities[index])


def rotations(
    quaternions: Float[torch.Tensor, "splats 4"],
) -> Float[torch.Tensor, "splats 3 3"]:
    """Rotation matrices of quaternions w x y z of any length.

    >>> rotations(torch.tensor([[2.0, 0, 0, 0]]))[0].diagonal()
    tensor([1., 1., 1.])
    """
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


@torch.no_grad()
def _pairs(
    flat: Projected, width: int, height: int
) -> tuple[Int64[torch.Tensor, " pairs"], Int64[torch.Tensor, " pairs"]]:
    """Gaussian and pixel of every pair to blend, sorted by pixel, then from front to back."""
    # alpha = FAINTEST is an ellipse; these are the half sides of its bounding box.
    reach = (2 * torch.log(flat.opacity / FAINTEST)).clamp(min=0).sqrt()[:, None]
    half = reach * flat.covariance[:, [0, 2]].sqrt()
    last = torch.tensor([width - 1, height - 1], device=half.device)
    low = (flat.centre - half).ceil().clamp(min=0)
    high = torch.minimum((flat.centre + half).floor(), last.to(half.dtype))
    seen = (flat.opacity >= FAINTEST) & (high >= low).all(1)
    kept = seen.nonzero()[:, 0]
    low, sides = low[kept].long(), (high - low)[kept].long() + 1
    count = sides.prod(1)
    gaussian = kept.repeat_interleave(count)
    within = torch.arange(len(gaussian), device=count.device)
    within -= (count.cumsum(0) - count).repeat_interleave(count)
    wide = sides[:, 0].repeat_interleave(count)
    start = low.repeat_interleave(count, 0)
    pixel = (start[:, 1] + within // wide) * width + start[:, 0] + within % wide
    pixel, order = pixel.sort(stable=True)
    return gaussian[order], pixel


def _transmittance(
    alpha: Float[torch.Tensor, " pairs"], pixel: Int64[torch.Tensor, " pairs"]
) -> Float[torch.Tensor, " pairs"]:
    """Transmittance in front of each Gaussian: the product of 1 - alpha of those before it."""
    if not len(alpha):
        return alpha
    # Cumulative sum of logarithms over all pairs, minus its value at the pixel's first pair; in
    # float64, because the sum grows over all pixels.
    log = torch.log1p(-alpha.double())
    before = log.cumsum(0) - log
    _, count = torch.unique_consecutive(pixel, return_counts=True)
    first = (count.cumsum(0) - count).repeat_interleave(count)
    return torch.exp(before - before.index_select(0, first)).to(alpha.dtype)
