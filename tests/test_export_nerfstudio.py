"""nerfstudio's own data parsers open our exports: `make nerfstudio`, which sets them up.

They live in an environment of their own; `LIFT3D_NERFSTUDIO` names its Python.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_export import crooked

from lift3d.export.nerfstudio import OPENGL
from lift3d.export.registry import FORMATS
from lift3d.geometry import project

PYTHON = os.environ.get("LIFT3D_NERFSTUDIO", "")
pytestmark = pytest.mark.skipif(
    not (PYTHON and Path(PYTHON).is_file()),
    reason="needs nerfstudio in an environment of its own: `make nerfstudio`",
)
SCRIPT = """
import json, sys
from pathlib import Path
import torch
name, folder = sys.argv[1:]
common = dict(orientation_method="none", center_method="none", auto_scale_poses=False,
              eval_mode="all", load_3D_points=True)
if name == "nerfstudio":
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
    config = NerfstudioDataParserConfig(data=Path(folder), **common)
else:
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
    config = ColmapDataParserConfig(
        data=Path(folder), colmap_path=Path("sparse/0"), downscale_factor=1,
        assume_colmap_world_coordinate_convention=False, **common)
out = config.setup().get_dataparser_outputs("train")
cameras = out.cameras
lens = cameras.distortion_params
# One ray through the centre of a pixel, from nerfstudio's own code.
rays = []
for i in range(len(cameras)):
    ray = cameras.generate_rays(camera_indices=i, coords=torch.tensor([[12.5, 30.5]]))
    rays.append([ray.origins[0].tolist(), ray.directions[0].tolist()])
print("JSON" + json.dumps(dict(
    files=[p.name for p in out.image_filenames],
    pose=cameras.camera_to_worlds.tolist(),
    values=torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], 1).tolist(),
    lens=None if lens is None else lens.tolist(),
    masks=[p.is_file() for p in out.mask_filenames or []],
    xyz=out.metadata["points3D_xyz"].tolist(),
    rgb=out.metadata["points3D_rgb"].tolist(),
    rays=rays,
)))
"""


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_nerfstudios_parser_reads_the_export(tmp_path, name, text):
    content = crooked(distortion=(0.1, -0.05, 0.004, -0.003), text=text, keep=(3,))
    FORMATS[name].write(content, tmp_path, lambda done, total: None)
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, name, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("JSON")[2])
    assert found["files"] == ["img_00.png", "img_01.png", "img_02.png"]
    points = content.cloud.points
    np.testing.assert_allclose(found["xyz"], points.xyz, atol=1e-6)
    np.testing.assert_array_equal(found["rgb"], points.rgb)
    if name == "nerfstudio":
        assert found["masks"] == [True] * 3
    for number, view in enumerate(content.scene.views):
        camera, K = view.camera, view.camera.K
        pose = (camera.pose @ OPENGL)[:3]
        np.testing.assert_allclose(found["pose"][number], pose, atol=1e-6)
        values = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
        np.testing.assert_allclose(found["values"][number], values, atol=1e-4)
        k1, k2, _, _, p1, p2 = found["lens"][number]
        np.testing.assert_allclose([k1, k2, p1, p2], camera.distortion, atol=1e-7)
        # Its coordinates are y, x from the corner: row 12, column 30 of ours.
        origin, direction = np.array(found["rays"][number])
        xy, _ = project(camera, (origin + 2 * direction)[None])
        np.testing.assert_allclose(xy[0], [30, 12], atol=0.01)
