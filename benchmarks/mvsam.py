"""MV-SAM's ablation in kind: 3D codes, 2D codes or none, with and without confidence vectors.

    python benchmarks/mvsam.py --out out/mvsam --steps 1500 --seeds 0 1 2

A small network with a small encoder of its own (no weights are used) is trained on single views of
synthetic rooms, each z-scored alone, and tested on held-out rooms: 10 positive and 2 negative
prompts in the view that shows an object best, IoU over the other views that show it. A seventh of
each point map is wrong, in patches, as a network's is, and its confidence there is low.
Interrupted, it continues: one file per variant and seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry import unproject
from lift3d.networks.mvsam.encoders import SmallEncoder
from lift3d.networks.mvsam.network import MvSam
from lift3d.networks.mvsam.pointmaps import PointMaps, Tokens, normalised, per_cell
from lift3d.networks.mvsam.sizes import MvSamConfig
from lift3d.networks.mvsam.training import (
    LossConfig,
    PromptConfig,
    draw,
    mask_loss,
    prompt_tokens,
    stacked,
    training_prompts,
)

FIRST_HELD_OUT, FIRST_TRAINED = 900, 1000
LEAST = 0.015
"""Share of a view's pixels that an object needs."""
WRONG = 0.15
"""Share of each point map that is wrong."""
SCALE = 0.3
"""Standard deviation of the codes' frequencies; smaller than SAM's, which takes longer to learn."""
RATE = 1e-3
VARIANTS = [f"{code}{sign}" for sign, code in product("+-", ("3d", "2d", "none"))]


def room(seed: int, views: int, side: int, folder: Path) -> dict[str, np.ndarray]:
    """Pictures, points and ids of a room's views, squares of `side` pixels."""
    import cv2

    file = folder / f"{seed:04d}_{views}_{side}.npz"
    if not file.exists():
        found: dict[str, list[np.ndarray]] = {"image": [], "xyz": [], "ids": []}
        rows = ((np.arange(side) + 0.5) * 120 / side).astype(int)
        columns = ((np.arange(side) + 0.5) * 160 / side).astype(int)
        for view in SyntheticConfig(seed=seed, views=views, width=160, height=120).read().views:
            found["image"].append(
                cv2.resize(view.image(), (side, side), interpolation=cv2.INTER_AREA)
            )
            xyz = unproject(view.camera, view.depth())
            found["xyz"].append(xyz[rows][:, columns])
            found["ids"].append(view.instances()[rows][:, columns])
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{name: np.stack(each) for name, each in found.items()})
    with np.load(file) as stored:
        return {name: stored[name] for name in stored}


def with_errors(xyz: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patches of each view moved by half a metre (standard deviation), and the confidence."""
    views, height, width = xyz.shape[:3]
    found = xyz.copy()
    sure = 0.5 + 0.5 * rng.random((views, height, width), np.float32)
    rows, columns = np.mgrid[:height, :width]
    for view in range(views):
        wrong = np.zeros((height, width), bool)
        while wrong.mean() < WRONG:
            row, column = rng.integers(height), rng.integers(width)
            radius = rng.uniform(0.05, 0.15) * width
            patch = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            found[view][patch] += rng.normal(0, 0.5, 3)
            wrong |= patch
        sure[view][wrong] *= 0.4
    return found.astype(np.float32), sure


def images(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def shown(ids: np.ndarray) -> list[int]:
    values, counts = np.unique(ids, return_counts=True)
    return [int(v) for v, n in zip(values, counts, strict=True) if v > 0 and n >= LEAST * ids.size]


def built(variant: str, seed: int) -> tuple[MvSam, SmallEncoder]:
    torch.manual_seed(seed)
    code, vectors = variant[:-1], variant[-1] == "+"
    config = MvSamConfig(64, 4, 2, 256, 4, code, scale=SCALE, confidence_vectors=vectors)
    network = MvSam(config)
    # SAM 2.1's decoder, the paper's start, compares codes already. Here queries and keys start out
    # alike, in every variant, so that attention begins as a kernel of the distance of codes.
    for layer in network.decoder.transformer.layers:
        for attention in (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token):
            attention.k_proj.load_state_dict(attention.q_proj.state_dict())
    return network, SmallEncoder(64)


def trained(
    variant: str, seed: int, rooms: list[dict[str, np.ndarray]], steps: int, batch: int
) -> tuple[MvSam, SmallEncoder]:
    network, encoder = built(variant, seed)
    parameters = [*network.parameters(), *encoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    began, total = time.perf_counter(), 0.0
    cells = 8
    objects_of = {id(own): [shown(ids) for ids in own["ids"]] for own in rooms}
    for step in range(steps):
        pictures, tokens, drawn, truths = [], [], [], []
        while len(pictures) < batch:
            own = rooms[rng.integers(len(rooms))]
            view = int(rng.integers(len(own["ids"])))
            objects = objects_of[id(own)][view]
            if not objects:
                continue
            mask = own["ids"][view] == objects[rng.integers(len(objects))]
            xyz, sure = with_errors(own["xyz"][view : view + 1], rng)
            maps = PointMaps(torch.from_numpy(xyz), torch.from_numpy(sure))
            pixels = normalised(maps, network.config.low_share)
            tokens.append(per_cell(pixels, cells, cells))
            drawn.append(
                prompt_tokens(
                    pixels, [(0, training_prompts(mask, PromptConfig(), rng))], variant[:-1], 10
                )
            )
            pictures.append(own["image"][view])
            truths.append(mask)
        together = Tokens(*(torch.cat(each) for each in zip(*tokens, strict=True)))
        found = network(encoder(images(np.stack(pictures))), together, stacked(drawn))
        loss = mask_loss(found, torch.from_numpy(np.stack(truths))[:, None], LossConfig())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % 100 == 0:
            wall = time.perf_counter() - began
            print(
                f"{variant} {seed} {step + 1}: {total / 100:.4f} {wall:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            total = 0.0
    return network.eval(), encoder.eval()


@torch.no_grad()
def tested(
    network: MvSam, encoder: SmallEncoder, rooms: list[dict[str, np.ndarray]], seed: int
) -> dict[str, float]:
    """Mean IoU over objects: of the other views, and of the prompted one."""
    rng = np.random.default_rng(seed)
    others, own_view = [], []
    for own in rooms:
        xyz, sure = with_errors(own["xyz"], np.random.default_rng(0))
        pixels = normalised(PointMaps(torch.from_numpy(xyz), torch.from_numpy(sure)), 0.15)
        tokens: Tokens = per_cell(pixels, 8, 8)
        features = encoder(images(own["image"]))
        size = {}
        for view, ids in enumerate(own["ids"]):
            for each in shown(ids):
                size.setdefault(each, {})[view] = int((ids == each).sum())
        for each, in_views in size.items():
            if len(in_views) < 3:
                continue
            view = max(in_views, key=in_views.get)
            told = draw(own["ids"][view] == each, 10, 2, rng)
            prompts = prompt_tokens(pixels, [(view, told)], network.config.code)
            logits = network(features, tokens, prompts).logits
            large = torch.nn.functional.interpolate(logits, own["ids"].shape[1:], mode="bilinear")
            found = (large[:, 0] > 0).numpy()
            scores = {
                v: (found[v] & (own["ids"][v] == each)).sum()
                / max((found[v] | (own["ids"][v] == each)).sum(), 1)
                for v in in_views
            }
            own_view.append(scores.pop(view))
            others.append(float(np.mean(list(scores.values()))))
    return {
        "others": round(float(np.mean(others)), 4),
        "prompted": round(float(np.mean(own_view)), 4),
        "objects": len(others),
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--held-out", type=int, default=6)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    folder = options.out / "rooms"

    def read(first: int, count: int) -> list[dict[str, np.ndarray]]:
        return [room(first + n, options.views, options.side, folder) for n in range(count)]

    trained_on = read(FIRST_TRAINED, options.rooms)
    held_out = read(FIRST_HELD_OUT, options.held_out)
    for seed, variant in product(options.seeds, options.variants):
        file = options.out / f"{variant}_{seed}_{options.steps}.json"
        if not file.exists():
            began = time.process_time()
            found = tested(
                *trained(variant, seed, trained_on, options.steps, options.batch), held_out, 0
            )
            found["cpu_s"] = round(time.process_time() - began)
            file.write_text(json.dumps(found))
        print(variant, seed, file.read_text(), flush=True)


if __name__ == "__main__":
    main()
