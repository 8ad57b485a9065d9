"""The network: a small U-Net over voxels in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree

from lift3d.datasets.synthetic.world import CATEGORIES
from lift3d.run.feed import Sample

SIDES = (0.08, 0.16, 0.32, 0.64, 1.28)
"""Voxel sides of the levels in metres; the first is the spacing of the points."""
CHANNELS = (32, 48, 64, 96, 128)
NEIGHBOURS = 8
CLASSES = len(CATEGORIES) + 1
"""Includes 0, no class, which is not trained on and never predicted."""


@dataclass(frozen=True, eq=False)
class Level:
    """Points of one level, their neighbours, and each point's voxel in the next level."""

    xyz: torch.Tensor
    near: torch.Tensor
    cell: torch.Tensor | None


def pyramid(xyz: torch.Tensor) -> list[Level]:
    """Levels of points; each level has the means of the voxels of the level before."""
    levels = []
    for side in (*SIDES[1:], None):
        count = min(NEIGHBOURS, len(xyz))
        _, near = cKDTree(xyz.numpy()).query(xyz.numpy(), k=range(1, count + 1))
        cell = None
        if side is not None:
            _, cell = torch.unique(torch.floor(xyz / side).long(), dim=0, return_inverse=True)
        levels.append(Level(xyz, torch.from_numpy(near), cell))
        if cell is not None:
            size = torch.bincount(cell)[:, None]
            xyz = torch.zeros(len(size), 3).index_add(0, cell, xyz) / size
    return levels


class Local(torch.nn.Module):
    """Maximum over neighbours of their features and offsets, as in PointNet++ and DGCNN."""

    def __init__(self, before: int, after: int, side: float) -> None:
        super().__init__()
        self.side = side
        self.own = torch.nn.Linear(before, after)
        self.what = torch.nn.Linear(before, after)
        self.where = torch.nn.Linear(3, after)
        self.out = torch.nn.Linear(after, after)
        self.norm = torch.nn.LayerNorm(after)

    def forward(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """New features of the same points."""
        away = (level.xyz[level.near] - level.xyz[:, None]) / self.side
        # index_select, because the gradient of x[index] is many times slower on the CPU.
        there = self.what(x).index_select(0, level.near.flatten()).unflatten(0, level.near.shape)
        around = torch.relu(there + self.where(away)).amax(1)
        return torch.relu(self.norm(self.own(x) + self.out(around)))


class Network(torch.nn.Module):
    """U-Net over the levels; from colour, normal and height to a score per class."""

    def __init__(self) -> None:
        super().__init__()
        before = (7, *CHANNELS[:-1])
        self.down = torch.nn.ModuleList(map(Local, before, CHANNELS, SIDES))
        pairs = zip(CHANNELS[:-1], CHANNELS[1:], SIDES[:-1], strict=True)
        self.up = torch.nn.ModuleList(Local(a + b, a, side) for a, b, side in pairs)
        self.head = torch.nn.Linear(CHANNELS[0], CLASSES)

    def forward(self, sample: Sample) -> torch.Tensor:
        """Scores (points, classes) of the sample's points."""
        levels = pyramid(sample.xyz)
        x = torch.cat([sample.colour, sample.normal, sample.xyz[:, 2:]], 1)
        kept = []
        for block, level in zip(self.down, levels, strict=True):
            x = block(x, level)
            kept.append(x)
            if level.cell is not None:
                index = level.cell[:, None].expand(-1, x.shape[1])
                coarse = torch.zeros(int(level.cell.max()) + 1, x.shape[1])
                x = coarse.scatter_reduce(0, index, x, "amax", include_self=False)
        for number in reversed(range(len(self.up))):
            level = levels[number]
            x = self.up[number](torch.cat([kept[number], x.index_select(0, level.cell)], 1), level)
        return self.head(x)
