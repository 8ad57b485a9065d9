"""Train VGGT-Segmentor's head: on pairs from lifted runs, or on single pictures with masks.

python pipelines/train_vggt_segmentor.py INPUTS --out OUT

INPUTS are runs, whose label maps are pairs, or scans, photos and videos, whose pictures are
segmented; SCAN@0:30:2 takes some of the views. From a picture of any kind come pairs of the
self-supervised recipe: the picture and a copy that is scaled, rotated, cropped or mirrored, with
the mask moved likewise. `--supervised` is the share of pairs of two pictures of a run.

With VGGT's weights (`--vggt VGGT-1B`) VGGT is frozen and only the head learns, as in the paper;
`--head` starts from published weights. Without weights `--small` trains all of a small network.
Run the same command again to continue. One GPU or many:

torchrun --nproc-per-node 4 pipelines/train_vggt_segmentor.py INPUTS --out OUT --vggt VGGT-1B
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from vggt_segmentor.pairs import Recipe, Sample, batch
from vggt_segmentor.pictures import LONGEST, collected, described
from vggt_segmentor.training import Optimisation, train

from lift3d.networks.device import choose_device
from lift3d.networks.vggt.checkpoint import load as load_vggt
from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.networks.vggt_s import HeadConfig
from lift3d.networks.vggt_s.head import UnionHead
from lift3d.networks.vggt_s.network import Segmentor, load
from lift3d.networks.vggt_s.transformer import Attention
from lift3d.networks.weights import find
from lift3d.scene.errors import InputError
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.sam import SamConfig


@dataclass(frozen=True)
class Options:
    """What is trained on what."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Runs, scans, folders of photos, videos, synthetic:SEED."""
    out: Path
    """Folder of pictures and checkpoints (last.pth)."""
    vggt: str | None = None
    """VGGT's weights: a name from `lift3d weights`, or a path."""
    head: Path | None = None
    """Start from this head instead of random weights."""
    small: bool = False
    """A network of 1.5 million weights for pictures of 28 pixels, trained from random ones."""
    sam: str | None = None
    """Masks of scans by SAM with these weights, as in the paper; else by `regions`."""
    longest: int = LONGEST
    """Longer side of kept pictures in pixels."""
    supervised: float = 0.0
    """Share of pairs of two pictures of a run; needs runs."""
    recipe: Recipe = field(default_factory=Recipe)
    optimisation: Optimisation = field(default_factory=Optimisation)
    device: str = "auto"
    threads: int | None = None


SMALL_VGGT = VggtConfig(
    base_img_size=28, patch_size=7, embed_dim=64, depth=3, num_heads=4, dino_depth=1, dino_heads=4,
    camera_trunk_depth=1, camera_heads=4, intermediate_layer_idx=(0, 1, 2, 2), dpt_features=8,
    dpt_out_channels=(24, 32, 32, 32), track_features=32, corr_levels=3, corr_radius=3,
    tracker_hidden=32, tracker_depth=1,
)  # fmt: skip
SHARPER = 2.0
"""Factor on the first weights of queries in the head."""
SMALL_HEAD = HeadConfig(size=28, cells=7, width=32)


def network_of(options: Options) -> Segmentor:
    """The network to train; InputError where weights are missing."""
    torch.manual_seed(options.optimisation.seed)
    if options.small:
        return Segmentor(VGGT(SMALL_VGGT), UnionHead(SMALL_HEAD))
    if options.vggt is None:
        raise InputError("name VGGT's weights with --vggt, or train a small network with --small")
    if options.head is not None:
        weights = find(options.vggt)
        return load(options.head, lambda: weights)
    network = Segmentor(load_vggt(find(options.vggt))[0], UnionHead())
    return network


def started(network: Segmentor, images: torch.Tensor) -> None:
    """Random weights from which a small network learns in thousands of steps rather than more.

    VGGT's tables and tokens are zero without weights. In the head, keys begin as queries, so that
    what lies near, or looks alike, is attended to from the start. Each channel of the maps begins
    with mean 0 and deviation 1 over `images`, (pairs, 2, size, size, 3): else they hardly differ
    from pixel to pixel, and neither do the masks.
    """
    for name, each in network.vggt.aggregator.named_parameters():
        if "token" in name or "pos_embed" in name:
            torch.nn.init.trunc_normal_(each, std=0.02)
        elif name.endswith("gamma"):
            torch.nn.init.constant_(each, 0.3)
    for module in network.head.modules():
        if isinstance(module, Attention):
            with torch.no_grad():
                module.q_proj.weight *= SHARPER
                module.k_proj.weight.copy_(module.q_proj.weight)
    last = network.vggt.track_head.feature_extractor.scratch.output_conv1
    with torch.no_grad():
        maps = network.features(images.permute(0, 1, 4, 2, 3).float() / 255)
        deviation, mean = torch.std_mean(maps, (0, 1, 3, 4))
        last.weight /= deviation[:, None, None, None]
        last.bias.copy_((last.bias - mean) / deviation)


def main(given: Sequence[str] | None = None) -> None:
    """Collect the pictures and train."""
    options: Any = tyro.cli(Options, args=given, description=__doc__)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    many = int(os.environ.get("WORLD_SIZE", 1)) > 1
    device = choose_device(options.device)
    if many:
        local = int(os.environ["LOCAL_RANK"])
        if device.type == "cuda":
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if many and int(os.environ["RANK"]) > 0:
        torch.distributed.barrier()  # the first process writes the pictures, the others read them
    segmentation = RegionsConfig() if options.sam is None else SamConfig(find(options.sam))
    pictures = collected(options.inputs, segmentation, options.out / "pictures", options.longest)
    if many and int(os.environ["RANK"]) == 0:
        torch.distributed.barrier()
    print(described(pictures), file=sys.stderr)
    network = network_of(options)
    head = network.head.config

    def draw(step: int, indices: range) -> Sample:
        return batch(
            pictures, options.recipe, head.size, head.points, options.optimisation.seed, step,
            indices, options.supervised,
        )  # fmt: skip

    if options.small:
        started(network, draw(0, range(16)).images)

    losses = train(
        network, draw, options.optimisation, options.out, device,
        tracked=options.recipe.points == "tracker",
    )  # fmt: skip
    if losses:
        print(f"{options.out / 'last.pth'}: {len(losses)} steps, last loss {losses[-1]:.3f}")
    if many:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
