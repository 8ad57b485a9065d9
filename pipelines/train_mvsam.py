"""Train MV-SAM (arXiv 2601.17866) on single images with masks and point maps.

    python pipelines/train_mvsam.py --out OUT --runs runs/* --sam facebook/sam2.1-hiera-large
    python pipelines/train_mvsam.py --out OUT --sa1b SA1B --pointmaps MAPS --sam SAM2
    torchrun --nproc-per-node 8 pipelines/train_mvsam.py ...

Data: folders of lifted runs (pictures, depth and label maps of every view), and SA-1B's layout:
`NAME.jpg` beside `NAME.json` with masks in COCO's run lengths, and `MAPS/NAME.npz` with `xyz`
(height, width, 3), NaN where unknown, and perhaps `confidence` (height, width), from any network
that gives point maps. Every image is z-scored alone, as in the paper. Runs whose name falls in the
validation part (`lift3d.run.feed.part_of`) are held out: prompts in one view, IoU over the others.

The frozen encoder is that of a SAM 2.1 in transformers' form, whose decoder is the start; `--sam
small` trains a small encoder along, for trials, and attention starts by comparing places. The paper
gives losses and prompts, not optimiser, rate, batch or steps: those are ours. Run again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import distributed

from lift3d.geometry import unproject
from lift3d.networks.device import choose_device
from lift3d.networks.mvsam.network import MvSam, PromptTokens
from lift3d.networks.mvsam.pointmaps import PointMaps, Tokens, normalised, per_cell
from lift3d.networks.mvsam.sizes import MvSamConfig
from lift3d.networks.mvsam.training import (
    LossConfig,
    PromptConfig,
    draw,
    mask_loss,
    perturbed,
    prompt_tokens,
    stacked,
    training_prompts,
)
from lift3d.networks.mvsam.weights import (
    SMALL,
    counted,
    encoder_of,
    save,
    start_comparing,
    start_from,
)
from lift3d.run.feed import part_of
from lift3d.run.run import Run
from lift3d.scene import Camera
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.arrays import load_npz
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.storage import atomic
from lift3d.segmentation.mask_files import read_masks

LEAST = 0.002
"""Share of the image that a mask needs. Chosen by hand."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, which SAM 2's processor uses."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, a square of the encoder's side, with its points and masks."""

    image: np.ndarray
    xyz: np.ndarray
    confidence: np.ndarray | None
    masks: list[np.ndarray]


def squared(
    image: np.ndarray, xyz: np.ndarray, confidence: np.ndarray | None, masks: Any, side: int
) -> Sample:
    """Stretched to a square, as SAM 2 does."""
    import cv2

    large = [nearest(each, side) for each in masks]
    return Sample(
        cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA),
        nearest(xyz, side).astype(np.float32),
        None if confidence is None else nearest(confidence, side).astype(np.float32),
        [each for each in large if each.mean() >= LEAST],
    )


def nearest(array: np.ndarray, side: int) -> np.ndarray:
    """A square of `side` pixels."""
    rows = ((np.arange(side) + 0.5) * array.shape[0] / side).astype(int)
    columns = ((np.arange(side) + 0.5) * array.shape[1] / side).astype(int)
    return array[rows][:, columns]


class Runs:
    """Every view of some runs."""

    def __init__(self, folders: Sequence[Path], side: int) -> None:
        self.runs = [Run.open(each) for each in folders]
        self.items = [(run, index) for run in self.runs for index in range(len(run.cameras))]
        self.side = side
        self.sample = lru_cache(256)(self._sample)

    def __len__(self) -> int:
        return len(self.items)

    def _sample(self, number: int) -> Sample:
        run, index = self.items[number]
        view = run.scene.views[index]
        depth = view.depth()
        if depth is None or view.depth_camera is not None:
            raise InputError(f"{run.folder}: view {view.name} has no depth for each of its pixels")
        labels = run.labels[view.name]
        masks = [labels == each for each in np.unique(labels[labels > 0])]
        return squared(
            view.image(), unproject(view.camera, depth), view.confidence(), masks, self.side
        )


class Sa1b:
    """Images in the layout of SA-1B, with point maps beside."""

    def __init__(self, folder: Path, maps: Path, side: int) -> None:
        self.items = [
            each for each in sorted(folder.rglob("*.jpg")) if each.with_suffix(".json").is_file()
        ]
        if not self.items:
            raise InputError(f"{folder} has no NAME.jpg beside NAME.json, the layout of SA-1B")
        self.maps, self.side = maps, side

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, number: int) -> Sample:
        """One image."""
        path = self.items[number]
        image = np.asarray(Image.open(path).convert("RGB"))
        camera = Camera(np.eye(3), image.shape[1], image.shape[0])
        masks = read_masks(path.with_suffix(".json"), camera).stack
        advice = "make a point map of every image first"
        stored = load_npz(self.maps / f"{path.stem}.npz", ["xyz", "confidence"], advice=advice)
        if "xyz" not in stored or stored["xyz"].shape != image.shape:
            raise InputError(f"{path.stem}.npz has no xyz of the picture's size; {advice}")
        return squared(image, stored["xyz"], stored.get("confidence"), masks, self.side)


def as_tensor(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures as SAM 2's encoder expects them."""
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
    return (stack - mean) / deviation


@dataclass(frozen=True, eq=False)
class Batch:
    """Images with `objects` objects each."""

    images: torch.Tensor
    tokens: Tokens
    prompts: PromptTokens
    masks: torch.Tensor
    """Logits of mask prompts (images, objects, rows, columns)."""
    with_masks: torch.Tensor
    truth: torch.Tensor

    def on(self, device: torch.device) -> Batch:
        """The same on a device."""

        def moved(each: Any) -> Any:
            if isinstance(each, tuple):
                return type(each)(*(part.to(device) for part in each))
            return each.to(device)

        return Batch(*(moved(each) for each in vars(self).values()))


def batches(
    data: Sequence[Any], config: MvSamConfig, options: argparse.Namespace, cells: int, start: int
) -> Iterator[Batch]:
    """Batches without end from step `start`; each depends on seed, step and process alone."""
    step, prompt = start, PromptConfig()
    sizes = np.array([len(each) for each in data])
    while True:
        rng = np.random.default_rng([options.seed, step, rank()])
        samples: list[Sample] = []
        while len(samples) < options.batch:
            number = int(rng.integers(sizes.sum()))
            which = int(np.searchsorted(np.cumsum(sizes), number, "right"))
            sample = data[which].sample(number - int(sizes[:which].sum()))
            if sample.masks:
                samples.append(sample)
        tokens, prompts, dense, told, truths = [], [], [], [], []
        for sample in samples:
            sure = None if sample.confidence is None else torch.from_numpy(sample.confidence)[None]
            maps = PointMaps(torch.from_numpy(sample.xyz)[None], sure)
            pixels = normalised(maps, config.low_share, config.statistics)
            chosen = [
                sample.masks[i] for i in rng.integers(len(sample.masks), size=options.objects)
            ]
            drawn = [(0, training_prompts(mask, prompt, rng)) for mask in chosen]
            tokens.append(per_cell(pixels, cells, cells, config.cell))
            prompts.append(prompt_tokens(pixels, drawn, config.code, prompt.count))
            dense.append(np.stack([perturbed(mask, 4 * cells, rng) for mask in chosen]))
            told.append(rng.random(options.objects) < prompt.dense)
            truths.append(np.stack(chosen))
        yield Batch(
            as_tensor([each.image for each in samples]),
            Tokens(*(torch.cat(each) for each in zip(*tokens, strict=True))),
            stacked(prompts),
            torch.from_numpy(np.stack(dense)).float(),
            torch.from_numpy(np.stack(told)),
            torch.from_numpy(np.stack(truths)),
        )
        step += 1


@torch.no_grad()
def validate(
    network: MvSam, encoder: Any, runs: Runs, device: torch.device, most: int = 12
) -> float:
    """Mean IoU over held-out runs: 10 + 2 prompts in the view that shows an object best, scored in
    the other views.
    """
    config, rng, scores = network.config, np.random.default_rng(0), []
    for run in runs.runs:
        of_run = [n for n, (own, _) in enumerate(runs.items) if own is run][:most]
        samples = [runs.sample(each) for each in of_run]
        ids = [run.labels[name] for name in list(run.cameras)[: len(of_run)]]
        xyz = torch.from_numpy(np.stack([each.xyz for each in samples]))
        sure = [each.confidence for each in samples if each.confidence is not None]
        known = torch.from_numpy(np.stack(sure)) if len(sure) == len(samples) else None
        pixels = normalised(PointMaps(xyz, known), config.low_share, config.statistics)
        features = encoder(as_tensor([each.image for each in samples]).to(device))
        cells = features.image.shape[-1]
        tokens = Tokens(*(each.to(device) for each in per_cell(pixels, cells, cells, config.cell)))
        maps = np.stack([nearest(each, runs.side) for each in ids])
        for each in np.unique(maps[maps > 0]):
            size = (maps == each).mean((1, 2))
            shown = np.flatnonzero(size >= LEAST)
            if len(shown) < 2:
                continue
            view = int(size.argmax())
            drawn = [(view, draw(maps[view] == each, 10, 2, rng))]
            prompts = prompt_tokens(pixels, drawn, config.code)
            prompts = PromptTokens(*(part.to(device) for part in prompts))
            logits = network(features, tokens, prompts).logits
            large = torch.nn.functional.interpolate(logits, maps.shape[1:], mode="bilinear")
            found = (large[:, 0] > 0).cpu().numpy()
            for other in shown[shown != view]:
                truth = maps[other] == each
                scores.append((found[other] & truth).sum() / max((found[other] | truth).sum(), 1))
    return float(np.mean(scores)) if scores else float("nan")


def rank() -> int:
    """Number of this process among those of torchrun."""
    return int(os.environ.get("RANK", 0))


def reduced(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Mean of the gradients over all processes."""
    if distributed.is_initialized():
        for each in parameters:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
            distributed.all_reduce(each.grad)
            each.grad /= distributed.get_world_size()


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train up to `options.steps`; what the last validation gave."""
    if "RANK" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    name = options.device
    if name == "auto" and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = choose_device(name)
    config = MvSamConfig(
        options.width, options.heads, 2, 8 * options.width, code=options.code,
        confidence_vectors=not options.no_confidence_vectors,
    )  # fmt: skip
    torch.manual_seed(options.seed)
    network, sam = MvSam(config), None
    if options.sam != SMALL:
        from lift3d.networks.sam.transformers import load as load_sam

        sam, _ = load_sam(options.sam, local_files_only=False)
        start_from(network, sam)
    else:
        start_comparing(network)
    encoder = encoder_of(options.sam, config.width, sam)
    network, encoder = network.to(device).train(), encoder.to(device)
    shares = (options.validation, 0.0, options.seed)
    parts = [part_of(each.name, *shares) for each in options.runs]
    kept = [p for p, part in zip(options.runs, parts, strict=True) if part == "train"]
    held = [p for p, part in zip(options.runs, parts, strict=True) if part != "train"]
    data: list[Any] = [Runs(kept, encoder.side)] if kept else []
    if options.sa1b is not None:
        data.append(Sa1b(options.sa1b, options.pointmaps, encoder.side))
    if not data:
        raise InputError("nothing to train on: give --runs or --sa1b")
    with torch.no_grad():
        blank = torch.zeros(1, 3, encoder.side, encoder.side, device=device)
        cells = encoder(blank).image.shape[-1]
    parameters = [p for p in [*network.parameters(), *encoder.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, options.rate, weight_decay=0.01)
    begun = options.out / "state.pt"
    step, log = 0, []
    if begun.is_file():
        state = torch.load(begun, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        if options.sam == SMALL:
            encoder.load_state_dict(state["encoder"])
        optimiser.load_state_dict(state["optimiser"])
        step, log = state["step"], json.loads(state["log"])
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    began = time.perf_counter()
    feed = batches(data, config, options, cells, step)
    while step < options.steps:
        batch = next(feed).on(device)
        with torch.autocast(device.type, half, enabled=half != torch.float32):
            features = encoder(batch.images)
            found = network(features, batch.tokens, batch.prompts, batch.masks, batch.with_masks)
        loss = mask_loss(found, batch.truth, LossConfig())
        optimiser.zero_grad()
        loss.backward()
        reduced(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        if rank() == 0 and (step % options.every == 0 or step == options.steps):
            row = {"step": step, "loss": round(float(loss.detach()), 5)}
            row["seconds"] = round(time.perf_counter() - began, 1)
            if held:
                value = validate(network.eval(), encoder.eval(), Runs(held, encoder.side), device)
                row["validation_iou"] = round(value, 4)
                network.train(), encoder.train()
            log.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"step": step, "log": json.dumps(log)}
            if options.sam == SMALL:
                state["encoder"] = encoder.state_dict()
            with atomic(begun) as part:
                torch.save(state, part)
            save(options.out / "mvsam.safetensors", network, encoder, options.sam)
    return {"parameters": counted(network), "log": log}


def main(given: Sequence[str] | None = None) -> None:
    """Train, and print the log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of lifted runs")
    parser.add_argument("--sa1b", type=Path, help="folder in SA-1B's layout")
    parser.add_argument("--pointmaps", type=Path, help="NAME.npz for each image of --sa1b")
    parser.add_argument("--sam", default=SMALL, help="SAM 2.1 in transformers' form, or `small`")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--code", choices=("3d", "2d", "none"), default="3d")
    parser.add_argument("--no-confidence-vectors", action="store_true")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=8, help="images of each process")
    parser.add_argument("--objects", type=int, default=4, help="objects of each image")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--validation", type=float, default=0.1, help="share of the runs held out")
    parser.add_argument("--every", type=int, default=1000, help="steps between validations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(given)
    if (options.sa1b is None) != (options.pointmaps is None):
        parser.error("--sa1b and --pointmaps belong together")
    options.out.mkdir(parents=True, exist_ok=True)
    told = {k: str(v) for k, v in vars(options).items() if k not in ("out", "steps", "every")}
    settings = options.out / "settings.json"
    if settings.is_file():
        if load_json(settings) != told:
            raise SystemExit(f"{settings} is of other settings; give another --out")
    else:
        with atomic(settings) as part:
            part.write_text(json.dumps(told, indent=1))
    print(json.dumps(train(options), indent=1))
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
