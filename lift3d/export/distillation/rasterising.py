"""Gaussians drawn into a camera: what both rasterisers take and give.

Both follow 3DGS (Kerbl et al. 2023): each Gaussian is projected by the affine approximation of
EWA splatting (Zwicker et al. 2001), its image is widened by `BLUR`, and Gaussians are blended
from front to back in the order of their centres. What is not covered is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from lift3d.scene import Camera

NEAR = 0.01
"""Gaussians whose centre is nearer than this along z are not drawn."""
BLUR = 0.3
"""Added to the variance in the image, in square pixels: no Gaussian is thinner than a pixel."""
FAINTEST, DENSEST = 1 / 255, 0.999
"""An alpha below the one is not drawn, an alpha above the other is cut down to it."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians in the world, ready to be drawn."""

    means: Float[torch.Tensor, "splats 3"]
    quaternions: Float[torch.Tensor, "splats 4"]
    """World from Gaussian, w x y z, of any length above 0."""
    scales: Float[torch.Tensor, "splats 3"]
    """Standard deviations along the Gaussian's own axes."""
    opacities: Float[torch.Tensor, " splats"]
    values: Float[torch.Tensor, "splats channels"]
    """What is blended: colour, identity, or both side by side."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """One view."""

    values: Float[torch.Tensor, "height width channels"]
    """Blended over 0."""
    alpha: Float[torch.Tensor, "height width"]
    """How much of the pixel is covered, 0 to 1."""


@runtime_checkable
class Rasteriser(Protocol):
    """Draws Gaussians, differentiably in everything but the camera."""

    name: str

    def __call__(self, splats: Splats, camera: Camera) -> Rendered:
        """The picture of an undistorted camera with a pose."""
        ...
