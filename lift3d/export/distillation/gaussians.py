"""Gaussians with an identity feature, initialised from the points of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64

from lift3d.export.distillation.rasterising import Splats
from lift3d.export.splat import C0, NAMES, sizes
from lift3d.scene import LabelledPoints
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic

OPACITY = 0.5
"""Initial opacity. 3DGS uses 0.1 for sparse clouds that must still grow; the run's cloud is dense.
Chosen by hand; not tuned on data."""
ID_SCORE = 5.0
"""Initial score (logit) of a Gaussian's id in the cloud. Chosen by hand; not tuned on data."""


@dataclass(frozen=True)
class IdentityConfig:
    """The identity feature of Gaussians."""

    channels: int = 16
    """Length of the identity feature."""
    from_cloud: bool = True
    """Initialise with the cloud's ids; False: learn ids from the label maps only."""


class Gaussians(torch.nn.Module):
    """Parameters as in 3DGS (log scales, logits of opacities, harmonics of degree 0), and identity
    features with a linear head that predicts ids.
    """

    def __init__(
        self,
        cloud: LabelledPoints,
        ids: Int32[np.ndarray, " ids"],
        config: IdentityConfig,
        seed: int,
    ) -> None:
        """`ids` are the ids of the label maps, ascending, with 0; they are the head's classes."""
        super().__init__()
        if len(cloud) < 2:
            raise InputError(f"the cloud has {len(cloud)} points; expected 2 or more")
        points = cloud.points
        count = len(cloud)
        random = torch.Generator().manual_seed(seed)
        size = torch.from_numpy(np.log(sizes(points.xyz)))

        def parameter(values: torch.Tensor) -> torch.nn.Parameter:
            return torch.nn.Parameter(values.float().contiguous())

        self.means = parameter(torch.from_numpy(points.xyz.copy()))
        self.log_scales = parameter(size[:, None].repeat(1, 3))
        self.quaternions = parameter(torch.tensor([1.0, 0, 0, 0]).repeat(count, 1))
        self.logits = parameter(torch.full((count,), float(np.log(OPACITY / (1 - OPACITY)))))
        self.harmonics = parameter((torch.from_numpy(points.rgb / 255.0) - 0.5) / C0)
        # The head's rows are a codebook of nearly orthogonal vectors, one per id.
        codes = torch.randn(len(ids), config.channels, generator=random)
        codes = codes / codes.norm(dim=1, keepdim=True)
        identity = 0.01 * torch.randn(count, config.channels, generator=random)
        if config.from_cloud:
            known = np.searchsorted(ids, cloud.instance).clip(max=len(ids) - 1)
            found = torch.from_numpy(ids[known] == cloud.instance)
            identity[found] += codes[torch.from_numpy(known)][found]
        self.identity = parameter(identity)
        self.head = torch.nn.Linear(config.channels, len(ids))
        with torch.no_grad():
            self.head.weight.copy_(ID_SCORE * codes)
            self.head.bias.zero_()
        self.ids: torch.Tensor
        self.initial_means: torch.Tensor
        self.register_buffer("ids", torch.from_numpy(ids.copy()))
        # For the neighbours in the smoothness loss; not trained.
        self.register_buffer("initial_means", self.means.detach().clone())

    def __len__(self) -> int:
        return len(self.means)

    def splats(self) -> Splats:
        """The Gaussians for rendering; values are colour (not clamped to 0..1) and identity."""
        colour = 0.5 + C0 * self.harmonics
        return Splats(
            self.means,
            self.quaternions,
            self.log_scales.exp(),
            self.logits.sigmoid(),
            torch.cat([colour, self.identity], 1),
        )

    def scores(
        self, identity: Float[torch.Tensor, "*shape channels"]
    ) -> Float[torch.Tensor, "*shape classes"]:
        """Scores (logits) of the ids, from identity features of Gaussians or pixels."""
        scores: torch.Tensor = self.head(identity)
        return scores

    @torch.no_grad()
    def labels(self) -> Int32[np.ndarray, " splats"]:
        """The most probable id of each Gaussian."""
        return self.ids[self.scores(self.identity).argmax(1)].cpu().numpy()


def class_index(
    labels: Int32[np.ndarray, "height width"], ids: Int32[np.ndarray, " ids"]
) -> Int64[np.ndarray, "height width"]:
    """Position of each pixel's id in `ids`, which must contain it."""
    return np.searchsorted(ids, labels).astype(np.int64)


@torch.no_grad()
def write_gaussians(path: Path, model: Gaussians, label_property: bool = False) -> None:
    """Write the trained Gaussians as a 3DGS PLY, in the conventions of `lift3d.export.splat`.

    Also writes `labels.npy` (one int32 per Gaussian, in order) and `identity.npz` (features and
    head) to the same folder. `label_property` adds the labels to the PLY.
    """
    from plyfile import PlyData, PlyElement

    labels = model.labels()
    kinds = [(name, "<f4") for name in NAMES] + [("label", "<i4")] * label_property
    vertex = np.zeros(len(model), np.dtype(kinds))
    turned = torch.nn.functional.normalize(model.quaternions, dim=1)
    columns = {"f_dc": model.harmonics, "scale": model.log_scales, "rot": turned}
    for axis, name in enumerate("xyz"):
        vertex[name] = model.means[:, axis].cpu().numpy()
    for name, values in columns.items():
        for axis, column in enumerate(values.T.cpu().numpy()):
            vertex[f"{name}_{axis}"] = column
    vertex["opacity"] = model.logits.cpu().numpy()
    if label_property:
        vertex["label"] = labels
    with atomic(path) as part:
        PlyData([PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(part))
    with atomic(path.with_name("labels.npy")) as part:
        np.save(part, labels)
    with atomic(path.with_name("identity.npz")) as part:
        np.savez(
            part,
            identity=model.identity.cpu().numpy(),
            weight=model.head.weight.cpu().numpy(),
            bias=model.head.bias.cpu().numpy(),
            ids=model.ids.cpu().numpy(),
        )


def thinned(cloud: LabelledPoints, most: int, seed: int) -> LabelledPoints:
    """At most `most` of the points, sampled at random, in their order."""
    if len(cloud) <= most:
        return cloud
    rng = np.random.default_rng(seed)
    index = np.sort(rng.choice(len(cloud), most, replace=False))
    return LabelledPoints(cloud.points.take(index), cloud.instance[index], cloud.score[index])
