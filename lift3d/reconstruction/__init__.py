"""Images to cameras and depth: one file per backend."""

from lift3d.reconstruction.sensor import SensorConfig

BACKENDS: dict[str, type] = {"sensor": SensorConfig}
