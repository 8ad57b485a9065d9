"""Rendering by gsplat (Ye et al. 2025) on CUDA. Tests check only the arguments of the call.

gsplat's pixel centres are at 0.5, and it stops blending at a transmittance of 1e-4.
"""

from __future__ import annotations

import numpy as np
import torch

from lift3d.export.distillation.rasterising import BLUR, NEAR, Rendered, Splats
from lift3d.scene import Camera
from lift3d.scene.errors import MissingExtra


class GsplatRasteriser:
    """`gsplat.rasterization` as a `Rasteriser`."""

    name = "gsplat"

    def __init__(self) -> None:
        try:
            from gsplat import rasterization
        except ImportError as error:
            raise MissingExtra(
                "distilling on CUDA needs gsplat; install it with: pip install 'lift3d[distill]'"
            ) from error
        self._rasterization = rasterization

    def __call__(self, splats: Splats, camera: Camera) -> Rendered:
        """Render one camera."""

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(array, dtype=splats.means.dtype, device=splats.means.device)

        corner = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        values, alpha, _ = self._rasterization(
            means=splats.means,
            quats=splats.quaternions,
            scales=splats.scales,
            opacities=splats.opacities,
            colors=splats.values,
            viewmats=tensor(camera.camera_from_world)[None],
            Ks=tensor(camera.K + corner)[None],
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            eps2d=BLUR,
        )
        return Rendered(values[0], alpha[0, ..., 0])
