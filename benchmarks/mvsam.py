"""MV-SAM's ablation in kind: 3D codes, 2D codes or none, with and without confidence vectors.

    python benchmarks/mvsam.py --out out/mvsam --seeds 0 1 2
    python benchmarks/mvsam.py --out out/mvsam --variants 3d+ --seeds 0     # one run of many
    python benchmarks/mvsam.py --out out/mvsam --variants 3d+ 3d- \
        --errors elsewhere --wrong 0.33 --vectors-rate 10   # what the confidence vectors are worth
    python benchmarks/mvsam.py --out out/mvsam --full-size 20    # seconds and memory of full size

A small decoder on a frozen encoder, as in the paper; SAM's weights are missing, so the features are
colours and their mean and deviation at three scales, mixed at random, and the decoder starts with
attention that compares codes (`start_comparing`), the same in every variant. It is trained on
single views of synthetic rooms, each z-scored alone, and tested on held-out rooms with several
views: 10 positive and 2 negative prompts in the view that shows an object best; IoU of that view,
and of the other views that show it. A seventh of each point map is wrong, in patches, and its
confidence there is low (`--wrong 0`: none). A patch is moved as a whole, which a prompt in it does
not notice, as the rest of the patch moves too; with `--errors elsewhere` its points are those of
other pixels, a token's together. Interrupted, it continues: one file per variant and seed. What the
codes tell before training: `mvsam_codes.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry import unproject
from lift3d.networks.mvsam.encoders import Sam2Encoder
from lift3d.networks.mvsam.network import Features, MvSam, PromptTokens
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
from lift3d.networks.mvsam.weights import start_comparing
from lift3d.scene.storage import atomic

FIRST_HELD_OUT, FIRST_TRAINED = 900, 1000
LEAST = 0.015
"""Share of a view's pixels that an object needs."""
WIDTH, HEADS = 64, 1
SCALE = {"3d": 0.25, "2d": 0.5, "none": 1.0}
"""Deviation of the frequencies of each code, the one with which single views are learnt faster."""
RATE = 2e-3
BLOCK = 4
"""Pixels along the side of a token, which are wrong together."""
VARIANTS = [f"{code}{sign}" for sign, code in product("+-", ("3d", "2d", "none"))]


@dataclass(frozen=True, eq=False)
class Room:
    """Some views of a room, squares."""

    image: np.ndarray
    xyz: np.ndarray
    ids: np.ndarray

    def shown(self, view: int) -> list[int]:
        """Objects that the view shows well enough."""
        values, counts = np.unique(self.ids[view], return_counts=True)
        large = counts >= LEAST * self.ids[view].size
        return [int(each) for each in values[large] if each > 0]


def room(seed: int, views: int, side: int, folder: Path) -> Room:
    """A room's views, resized to squares of `side` pixels; kept in `folder`."""
    import cv2

    file = folder / f"{seed:04d}_{views}_{side}.npz"
    if not file.exists():
        image, xyz, ids = [], [], []
        rows = ((np.arange(side) + 0.5) * 120 / side).astype(int)
        columns = ((np.arange(side) + 0.5) * 160 / side).astype(int)
        for view in SyntheticConfig(seed=seed, views=views, width=160, height=120).read().views:
            small = cv2.resize(view.image(), (side, side), interpolation=cv2.INTER_AREA)
            image.append(small)
            xyz.append(unproject(view.camera, view.depth())[rows][:, columns])
            ids.append(view.instances()[rows][:, columns])
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(file) as part, part.open("wb") as stream:
            np.savez(stream, image=np.stack(image), xyz=np.stack(xyz), ids=np.stack(ids))
    with np.load(file) as stored:
        return Room(stored["image"], stored["xyz"].astype(np.float32), stored["ids"])


def with_errors(
    xyz: np.ndarray, wrong_share: float, rng: np.random.Generator, errors: str = "moved"
) -> tuple[np.ndarray, np.ndarray]:
    """Points that are wrong in patches of each view, and the confidence.

    `moved`: each patch by half a metre (standard deviation); `elsewhere`: each `BLOCK` of a patch
    has the point of any pixel of the view.
    """
    views, height, width = xyz.shape[:3]
    found = xyz.copy()
    sure = 0.5 + 0.5 * rng.random((views, height, width), np.float32)
    rows, columns = np.mgrid[:height, :width]
    for view in range(views):
        wrong = np.zeros((height, width), bool)
        while wrong.mean() < wrong_share:
            row, column = rng.integers(height), rng.integers(width)
            radius = rng.uniform(0.05, 0.15) * width
            patch = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            if errors == "moved":
                found[view][patch] += rng.normal(0, 0.5, 3)
            else:
                pixel = rng.integers(height * width, size=(height // BLOCK, width // BLOCK))
                other = xyz[view].reshape(-1, 3)[pixel]
                found[view][patch] = other.repeat(BLOCK, 0).repeat(BLOCK, 1)[patch]
            wrong |= patch
        sure[view][wrong] *= 0.4
    return found.astype(np.float32), sure


def low_share(wrong: float) -> float:
    """Share of the points that are of low confidence: the wrong ones, or the paper's."""
    return max(MvSamConfig.low_share, wrong)


def described(pictures: np.ndarray) -> Features:
    """Features of strides 4, 2 and 1, of unit deviation, `WIDTH` channels: the frozen encoder."""
    import cv2

    stacks = []
    for picture in pictures:
        lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 50
        parts = [lab]
        for sigma in (1.5, 3, 6):
            mean = cv2.GaussianBlur(lab, (0, 0), sigma)
            square = cv2.GaussianBlur(lab**2, (0, 0), sigma)
            parts += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
        stacks.append(np.concatenate(parts, 2))
    fine = torch.from_numpy(np.stack(stacks)).permute(0, 3, 1, 2)
    fine = fine - fine.mean((0, 2, 3), keepdim=True)
    mix = torch.randn(3, WIDTH, fine.shape[1], generator=torch.Generator().manual_seed(0))
    pool = torch.nn.functional.avg_pool2d
    found = [
        torch.einsum("vchw,dc->vdhw", each, own)
        for each, own in zip((pool(fine, 4), pool(fine, 2), fine), mix, strict=True)
    ]
    return Features(*(each / each.std() for each in found))


@dataclass(frozen=True, eq=False)
class Data:
    """Single views to train on, each z-scored alone."""

    features: Features
    tokens: Tokens
    pixels: Tokens
    masks: list[np.ndarray]
    """The objects of each view (objects, side, side)."""

    @staticmethod
    def of(rooms: Sequence[Room], wrong: float, errors: str) -> Data:
        """Every view that shows an object."""
        rng = np.random.default_rng(0)
        views = [(own, v, own.shown(v)) for own in rooms for v in range(len(own.ids))]
        views = [each for each in views if each[2]]
        pixels = []
        for own, view, _ in views:
            xyz, sure = with_errors(own.xyz[view : view + 1], wrong, rng, errors)
            maps = PointMaps(torch.from_numpy(xyz), torch.from_numpy(sure))
            pixels.append(normalised(maps, low_share(wrong)))
        together = Tokens(*(torch.cat(each) for each in zip(*pixels, strict=True)))
        cells = together.low.shape[1] // 4
        return Data(
            described(np.stack([own.image[view] for own, view, _ in views])),
            per_cell(together, cells, cells),
            together,
            [np.stack([own.ids[view] == each for each in ids]) for own, view, ids in views],
        )

    def batch(
        self, views: np.ndarray, objects: int, code: str, rng: np.random.Generator
    ) -> tuple[Features, Tokens, PromptTokens, torch.Tensor]:
        """Features, tokens, prompts and true masks of some views, `objects` of each."""
        drawn, truths = [], []
        for view in views:
            masks = self.masks[view]
            chosen = [masks[n] for n in rng.integers(len(masks), size=objects)]
            told = [(0, training_prompts(mask, PromptConfig(), rng)) for mask in chosen]
            own = Tokens(*(each[view : view + 1] for each in self.pixels))
            drawn.append(prompt_tokens(own, told, code, 10))
            truths.append(np.stack(chosen))
        at = torch.from_numpy(views)
        return (
            Features(*(each[at] for each in self.features)),
            Tokens(*(each[at] for each in self.tokens)),
            stacked(drawn),
            torch.from_numpy(np.stack(truths)),
        )


def trained(variant: str, seed: int, data: Data, options: argparse.Namespace) -> MvSam:
    """A variant, trained on single views."""
    torch.manual_seed(seed)
    steps, batch, objects = options.steps, options.batch, options.objects
    code, vectors = variant[:-1], variant[-1] == "+"
    sizes, low = (WIDTH, HEADS, 2, 4 * WIDTH, 4), low_share(options.wrong)
    network = MvSam(
        MvSamConfig(*sizes, code, scale=SCALE[code], confidence_vectors=vectors, low_share=low)
    )
    if options.start == "comparing":
        start_comparing(network)
    own = network.confidence.weight
    parts = [{"params": [each for each in network.parameters() if each is not own]}]
    optimiser = torch.optim.AdamW([*parts, {"params": [own]}], RATE, weight_decay=1e-4)
    rates = [RATE, RATE * options.vectors_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    began, log = time.process_time(), []
    for step in range(steps):
        views = rng.integers(len(data.masks), size=batch)
        features, tokens, prompts, truth = data.batch(views, objects, code, rng)
        found = network(features, tokens, prompts)
        loss = mask_loss(found, truth, LossConfig())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            inside = found.logits > 0
            both, either = (inside & truth).sum((2, 3)), (inside | truth).sum((2, 3))
        log.append((float(loss.detach()), float((both / either.clamp_min(1)).mean())))
        if (step + 1) % 50 == 0:
            loss_now, iou = np.mean(log[-50:], 0)
            used = time.process_time() - began
            told = f"step {step + 1}: loss {loss_now:.4f}, IoU {iou:.3f}, {used:.0f} s"
            print(variant, seed, told, file=sys.stderr, flush=True)
    return network.eval()


@torch.no_grad()
def tested(network: MvSam, rooms: Sequence[Room], wrong: float, errors: str) -> dict[str, float]:
    """Mean IoU over objects: of the other views, and of the prompted one; and the share of the
    views that do not show an object with a mask of less than `LEAST` of the pixels.
    """
    rng = np.random.default_rng(0)
    others, own_view, empty = [], [], []
    for own in rooms:
        xyz, sure = with_errors(own.xyz, wrong, np.random.default_rng(0), errors)
        maps = PointMaps(torch.from_numpy(xyz), torch.from_numpy(sure))
        pixels = normalised(maps, network.config.low_share)
        features = described(own.image)
        cells = features.image.shape[-1]
        tokens = per_cell(pixels, cells, cells)
        shown = [own.shown(view) for view in range(len(own.ids))]
        for each in sorted({one for some in shown for one in some}):
            views = [view for view, some in enumerate(shown) if each in some]
            if len(views) < 3:
                continue
            truth = own.ids == each
            view = max(views, key=lambda n: int(truth[n].sum()))
            told = draw(truth[view], 10, 2, rng)
            prompts = prompt_tokens(pixels, [(view, told)], network.config.code)
            found = (network(features, tokens, prompts).logits[:, 0] > 0).numpy()
            both, either = (found & truth).sum((1, 2)), (found | truth).sum((1, 2))
            iou = both / np.maximum(either, 1)
            own_view.append(iou[view])
            others.append(np.mean([iou[n] for n in views if n != view]))
            absent = [n for n in range(len(truth)) if not truth[n].any()]
            empty += [found[n].mean() < LEAST for n in absent]
    return {
        "others": round(float(np.mean(others)), 4),
        "prompted": round(float(np.mean(own_view)), 4),
        "empty": round(float(np.mean(empty)), 4),
        "objects": len(others),
    }


def full_size(views: int, threads: int) -> dict[str, float]:
    """Seconds and memory of the paper's sizes with random weights: SAM 2.1's large encoder at 1024
    pixels, and the decoder with 12 prompts of one object. Encoded one view at a time.
    """
    import resource

    import transformers

    torch.set_num_threads(threads)
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 144, "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4], "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
        "window_size_per_stage": [8, 4, 16, 8], "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
    }  # fmt: skip
    vision = {"backbone_config": backbone, "backbone_channel_list": [1152, 576, 288, 144]}
    encoder = Sam2Encoder(transformers.Sam2Model(transformers.Sam2Config(vision_config=vision)))
    network = MvSam(MvSamConfig()).eval()
    rng = np.random.default_rng(0)
    maps = PointMaps(torch.randn(views, 256, 256, 3), torch.rand(views, 256, 256))
    pixels = normalised(maps, 0.15)
    mask = np.zeros((256, 256), bool)
    mask[80:160, 80:160] = True
    prompts = prompt_tokens(pixels, [(0, draw(mask, 10, 2, rng))], "3d")
    encode = decode = 0.0
    with torch.inference_mode():
        for view in range(views):
            began = time.perf_counter()
            features = encoder(torch.randn(1, 3, encoder.side, encoder.side))
            encode += time.perf_counter() - began
            began = time.perf_counter()
            cells = features.image.shape[-1]
            own = Tokens(*(each[view : view + 1] for each in pixels))
            network(features, per_cell(own, cells, cells), prompts)
            decode += time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    parts = {"encode_s": encode, "answer_s": decode, "peak_gib": peak}
    sizes = {"encoder": sum(each.numel() for each in encoder.parameters())}
    return {**{name: round(each, 2) for name, each in parts.items()}, **sizes}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, default=30)
    parser.add_argument("--held-out", type=int, default=6)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8, help="views")
    parser.add_argument("--objects", type=int, default=4, help="of each view")
    parser.add_argument("--wrong", type=float, default=0.15, help="share of a point map")
    parser.add_argument("--errors", choices=("moved", "elsewhere"), default="moved")
    parser.add_argument(
        "--vectors-rate", type=float, default=1.0, help="learning rate of the confidence vectors"
        ", which start from zero, over that of the rest",
    )  # fmt: skip
    parser.add_argument("--start", choices=("comparing", "random"), default="comparing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--full-size", type=int, metavar="VIEWS", help="measure the cost only")
    options = parser.parse_args(given)
    if options.full_size:
        print(json.dumps(full_size(options.full_size, 2)))
        return
    torch.set_num_threads(1)

    def read(first: int, count: int) -> list[Room]:
        folder = options.out / "rooms"
        return [room(first + n, options.views, options.side, folder) for n in range(count)]

    data = Data.of(read(FIRST_TRAINED, options.rooms), options.wrong, options.errors)
    held_out = read(FIRST_HELD_OUT, options.held_out)
    for seed, variant in product(options.seeds, options.variants):
        how = (options.steps, options.wrong, options.errors, options.vectors_rate, options.start)
        file = options.out / f"{variant}_{seed}_{'_'.join(map(str, how))}.json"
        if not file.exists():
            began = time.process_time()
            network = trained(variant, seed, data, options)
            found = tested(network, held_out, options.wrong, options.errors)
            found["cpu_s"] = round(time.process_time() - began)
            with atomic(file) as part:
                part.write_text(json.dumps(found))
        print(variant, seed, file.read_text(), flush=True)


if __name__ == "__main__":
    main()
