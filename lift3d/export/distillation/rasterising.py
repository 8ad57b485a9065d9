"""Rendering of Gaussians: input and output of both rasterisers.

Both follow 3DGS (Kerbl et al. 2023): each Gaussian is projected by the affine approximation of
EWA splatting (Zwicker et al. 2001), its image is blurred by `BLUR`, and Gaussians are blended
from front to back in the order of their centres, over a background of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from lift3d.scene import Camera

NEAR = 0.01
"""Near plane along z, in world units; Gaussians with a nearer centre are not rendered."""
BLUR = 0.3
"""Added to the variance in the image, in square pixels: no Gaussian is thinner than a pixel. As
in 3DGS."""
FAINTEST, DENSEST = 1 / 255, 0.999
"""Smaller alpha is ignored, larger alpha is clamped. As in 3DGS and gsplat."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians in the world frame, for rendering."""

    means: Float[torch.Tensor, "splats 3"]
    quaternions: Float[torch.Tensor, "splats 4"]
    """World from Gaussian, w x y z, of any length above 0."""
    scales: Float[torch.Tensor, "splats 3"]
    """Standard deviations along the Gaussian's axes."""
    opacities: Float[torch.Tensor, " splats"]
    values: Float[torch.Tensor, "splats channels"]
    """The blended values: colour, identity, or both concatenated."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """One rendered view."""

    values: Float[torch.Tensor, "height width channels"]
    """Blended over a background of 0."""
    alpha: Float[torch.Tensor, "height width"]
    """Coverage of the pixel, 0 to 1."""


@runtime_checkable
class Rasteriser(Protocol):
    """Renders Gaussians, differentiable in everything except the camera."""

    name: str

    def __call__(self, splats: Splats, camera: Camera) -> Rendered:
        """Render an undistorted camera with a pose."""
        ...
