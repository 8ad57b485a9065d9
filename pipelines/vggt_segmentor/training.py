"""Train the head, or all of a small network, on pairs."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lift3d.networks.checkpoint import read_checkpoint
from lift3d.networks.vggt_s.losses import loss
from lift3d.networks.vggt_s.network import Segmentor
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic
from vggt_segmentor.pairs import Sample

WARM_UP = 100
"""Steps in which the learning rate grows, in the schedule `cosine`; at most a tenth of all."""


@dataclass(frozen=True)
class Optimisation:
    """The defaults are those of the authors' configuration."""

    steps: int = 360_000
    """Batches of one process in all; the authors: 12 epochs of 240 000 pairs, 4 GPUs."""
    batch: int = 8
    """Pairs per process."""
    rate: float = 5e-5
    decay: float = 1e-4
    """Weight decay, on every parameter."""
    schedule: str = "steps"
    """steps: a tenth after 8/12 and 11/12 of all steps; cosine: warm-up, then down to 0."""
    clip: float = 1.0
    """Greatest norm of the gradient."""
    refinements: int = 1
    """Passes after the first, for half of each batch; only the last one has a gradient."""
    train_vggt: bool = False
    """Also train VGGT: only for small networks without weights."""
    vggt_rate: float = 0.3
    """Factor on the learning rate of VGGT, where it is trained: with 1 its maps grow until nothing
    else is seen beside them."""
    bfloat16: bool = False
    """Autocast to bfloat16, as the authors do; the loss is in float32."""
    seed: int = 0
    save_every: int = 200
    minutes: float | None = None
    """End early after this time, in all starts of this process; the schedule follows steps."""

    def factor(self, step: int) -> float:
        """Of the learning rate, at a step."""
        if self.schedule == "cosine":
            up = min(1.0, (step + 1) / max(1, min(WARM_UP, self.steps // 10)))
            return up * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        if self.schedule != "steps":
            raise InputError(f"schedule is {self.schedule!r}; expected steps or cosine")
        return 0.1 ** sum(12 * step >= after * self.steps for after in (8, 11))


class Step(nn.Module):
    """A batch to its loss: what `DistributedDataParallel` wraps."""

    def __init__(self, network: Segmentor, options: Optimisation, tracked: bool) -> None:
        super().__init__()
        self.network, self.options, self.tracked = network, options, tracked

    def forward(self, pairs: Sample) -> Tensor:
        """The first half does one pass, the other `refinements` more."""
        network, options = self.network, self.options
        images = pairs.images.permute(0, 1, 4, 2, 3).float() / 255
        maps = images.new_empty(
            *images.shape[:2], network.head.config.width, *[network.head.config.grid] * 2
        )
        parts = []
        with torch.set_grad_enabled(options.train_vggt and torch.is_grad_enabled()):
            for chosen, encode in (
                (pairs.together, network.features),
                (~pairs.together, network.features_apart),
            ):
                if chosen.any():
                    parts.append((chosen, encode(images[chosen])))
        target_xy = pairs.target_xy
        for chosen, found in parts:
            maps = maps.masked_scatter(chosen[:, None, None, None, None], found)
        if self.tracked and pairs.together.any():
            target_xy = target_xy.clone()
            with torch.no_grad():
                tracks = network.vggt.track(maps[pairs.together], pairs.source_xy[pairs.together])
            last = pairs.images.shape[2] - 1
            target_xy[pairs.together] = tracks.xy[-1][:, 1].float().clamp(0, last)
        half = len(maps) // 2
        logits = []
        for part, passes in ((slice(0, half), 1), (slice(half, None), 1 + options.refinements)):
            if len(maps[part]):
                answers = network.head(
                    maps[part], pairs.mask[part], pairs.source_xy[part], target_xy[part],
                    passes, trained=True,
                )  # fmt: skip
                logits.append(answers[-1].logits[:, 0])
        with torch.autocast(images.device.type, enabled=False):
            return loss(torch.cat(logits).float(), pairs.truth)


def train(
    network: Segmentor, draw: Callable[[int, range], Sample], options: Optimisation, out: Path,
    device: torch.device, tracked: bool = False,
) -> list[float]:  # fmt: skip
    """Train until the last step, from the last checkpoint in `out` on; losses of this start.

    `draw` gives the pairs of a step with these numbers. Under torchrun every process draws its
    own; the first one writes.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    network.to(device).train()
    network.head.requires_grad_(True)
    network.vggt.requires_grad_(options.train_vggt)
    if not options.train_vggt:
        network.vggt.eval()
    module: nn.Module = Step(network, options, tracked)
    weights = [each for each in network.parameters() if each.requires_grad]
    groups = [{"params": list(network.head.parameters()), "share": 1.0}]
    if options.train_vggt:
        groups.append({"params": list(network.vggt.parameters()), "share": options.vggt_rate})
    optimiser = torch.optim.AdamW(groups, options.rate, weight_decay=options.decay)
    first = restore(network, optimiser, out / "last.pth", options)
    if world > 1:
        # Heads of VGGT that the maps do not need, and the first half's mask encoder, have none.
        module = nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
    began, losses, shown = time.monotonic(), [], 0.0
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * options.factor(step) * group["share"]
        own = range(rank * options.batch, (rank + 1) * options.batch)
        pairs = Sample(*(each.to(device) for each in draw(step, own)))
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            value = module(pairs)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(weights, options.clip)
        optimiser.step()
        losses.append(value.item())
        minutes = (time.monotonic() - began) / 60
        last = step + 1 == options.steps or (
            options.minutes is not None and world == 1 and minutes >= options.minutes
        )
        if rank == 0 and (last or (step + 1) % options.save_every == 0):
            save(network, optimiser, step + 1, options, out / "last.pth")
        if rank == 0 and (last or minutes - shown > 0.5):
            shown = minutes
            recent = losses[-50:]
            print(
                f"step {step + 1} of {options.steps}: loss {sum(recent) / len(recent):.3f}, "
                f"{minutes:.1f} min", file=sys.stderr, flush=True,
            )  # fmt: skip
        if last:
            break
    return losses


def save(
    network: Segmentor, optimiser: torch.optim.Optimizer, step: int, options: Optimisation,
    file: Path,
) -> None:  # fmt: skip
    """A checkpoint as the authors' with the sizes, and VGGT where it was trained."""
    vggt = network.vggt
    content: dict[str, Any] = {
        "model": network.head.state_dict(),
        "config": {"head": asdict(network.head.config), "vggt": asdict(vggt.config)},
        "optimizer": optimiser.state_dict(),
        "step": step,
        "batch": options.batch,
    }
    if options.train_vggt:
        content["vggt"] = vggt.state_dict()
    with atomic(file) as part:
        torch.save(content, part)


def restore(
    network: Segmentor, optimiser: torch.optim.Optimizer, file: Path, options: Optimisation
) -> int:
    """Continue from a checkpoint; the number of steps done, 0 without one."""
    if not file.exists():
        return 0
    content = read_checkpoint(file, "Remove it to train from the start.")
    if content["config"]["head"] != asdict(network.head.config) or (
        content["batch"] != options.batch or options.train_vggt != ("vggt" in content)
    ):
        raise InputError(
            f"{file} is of a training with other sizes; train into another folder, or remove it"
        )
    network.head.load_state_dict(content["model"])
    if options.train_vggt:
        network.vggt.load_state_dict(content["vggt"])
    optimiser.load_state_dict(content["optimizer"])
    return int(content["step"])
