"""Choose the rasteriser for a device."""

from __future__ import annotations

from lift3d.export.distillation.rasterising import Rasteriser


def for_device(device: str) -> Rasteriser:
    """gsplat on CUDA (MissingExtra without it), else the plain rasteriser, for testing."""
    if device.startswith("cuda"):
        from lift3d.export.distillation.gsplat_cuda import GsplatRasteriser

        return GsplatRasteriser()
    from lift3d.export.distillation.plain import PlainRasteriser

    return PlainRasteriser()
