"""What the codes of MV-SAM tell before anything is learnt, and what its attention makes of them.

    python benchmarks/mvsam_codes.py --out out/mvsam

On the held-out rooms of `mvsam.py`: ten prompts in the view that shows an object best.

1. Each token takes its largest code similarity with a prompt; IoU at the best threshold of each
   mask, in the prompted view and in the others: the most that codes alone can give.
2. Untrained, with random weights and with `start_comparing`: the share of the prompts' first
   attention that lies on the object, over the object's share of the view (1: none); how well the
   attention of a token to prompts ranks the object's tokens (AUC; 0.5: not at all); and the mean
   cosine of two tokens after the first self-attention (1: all are alike).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mvsam import FIRST_HELD_OUT, HEADS, SCALE, WIDTH, Room, described, room, with_errors

from lift3d.networks.mvsam.network import Features, MvSam, PointCode, PromptTokens
from lift3d.networks.mvsam.pointmaps import PointMaps, Tokens, normalised, per_cell
from lift3d.networks.mvsam.sizes import MvSamConfig
from lift3d.networks.mvsam.training import draw, prompt_tokens
from lift3d.networks.mvsam.weights import start_comparing

CELLS = 16
CODES = [("2d", 0.5), ("2d", 1.0), ("3d", 0.15), ("3d", 0.25), ("3d", 0.5), ("3d", 1.0)]


def asked(
    rooms: list[Room], wrong: float, code: str
) -> Iterator[tuple[Features, Tokens, PromptTokens, np.ndarray, list[int]]]:
    """Features, tokens, prompts, the object's tokens, and its views, the prompted one first."""
    rng = np.random.default_rng(0)
    for own in rooms:
        xyz, sure = with_errors(own.xyz, wrong, np.random.default_rng(0))
        pixels = normalised(PointMaps(torch.from_numpy(xyz), torch.from_numpy(sure)), 0.15)
        features, tokens = described(own.image), per_cell(pixels, CELLS, CELLS)
        shown = [own.shown(view) for view in range(len(own.ids))]
        for each in sorted({one for some in shown for one in some}):
            truth = own.ids == each
            views = [view for view, some in enumerate(shown) if each in some]
            views.sort(key=lambda n: -int(truth[n].sum()))
            if len(views) < 3:
                continue
            prompts = prompt_tokens(pixels, [(views[0], draw(truth[views[0]], 10, 0, rng))], code)
            side = truth.shape[1] // CELLS
            cells = truth.reshape(-1, CELLS, side, CELLS, side).mean((2, 4)) > 0.5
            views = [view for view in views if cells[view].any()]
            yield features, tokens, prompts, cells.reshape(len(cells), -1), views


def best_iou(score: np.ndarray, truth: np.ndarray) -> float:
    """The largest IoU over all thresholds."""
    hits = np.cumsum(truth[np.argsort(-score)])
    return float((hits / (np.arange(len(hits)) + 1 + truth.sum() - hits)).max())


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a token of the object has the larger score than another (Mann-Whitney)."""
    rank = score.argsort().argsort() + 1
    inside, outside = truth.sum(), (~truth).sum()
    return float((rank[truth].sum() - inside * (inside + 1) / 2) / (inside * outside))


def by_codes(rooms: list[Room], wrong: float, code: str, scale: float) -> tuple[float, float]:
    """IoU of the code's similarity alone: prompted views, other views."""
    torch.manual_seed(0)
    network = MvSam(MvSamConfig(WIDTH, HEADS, 2, 4 * WIDTH, 4, code, scale=scale))
    network.code = PointCode(4 * WIDTH, scale, learned=False)
    prompted, others = [], []
    for _, tokens, prompts, truth, views in asked(rooms, wrong, code):
        place, _ = network._places(tokens, CELLS, CELLS)
        alike = (network.code(place) @ network.code(prompts.xyz[0]).T).amax(-1).flatten(1).numpy()
        found = [best_iou(alike[view], truth[view]) for view in views]
        prompted.append(found[0])
        others += found[1:]
    return float(np.mean(prompted)), float(np.mean(others))


@torch.no_grad()
def untrained(rooms: list[Room], wrong: float, code: str, comparing: bool) -> dict[str, float]:
    """What the first layer does in prompted views, before training."""
    torch.manual_seed(0)
    network = MvSam(MvSamConfig(WIDTH, HEADS, 2, 4 * WIDTH, 4, code, scale=SCALE[code])).eval()
    if comparing:
        start_comparing(network)
    network.decoder.config._attn_implementation = "eager"
    layer, seen = network.decoder.transformer.layers[0], {}
    for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
        attention = getattr(layer, name)
        attention.config._attn_implementation = "eager"

        def keep(_module: Any, _given: Any, found: Any, name: str = name) -> None:
            seen[name] = found

        attention.register_forward_hook(keep)
    on_object, ranks, alike = [], [], []
    for features, tokens, prompts, truth, views in asked(rooms, wrong, code):
        one = slice(views[0], views[0] + 1)
        network(Features(*(e[one] for e in features)), Tokens(*(e[one] for e in tokens)), prompts)
        inside = truth[views[0]]
        # The first six tokens are SAM's own; the others are prompts.
        looks = seen["cross_attn_token_to_image"][1].mean(1).squeeze()[6:].numpy()
        looked = seen["cross_attn_image_to_token"][1].mean(1).squeeze()[:, 6:].amax(1).numpy()
        on_object.append(looks[:, inside].sum(1).mean() / inside.mean())
        ranks.append(auc(looked, inside))
        out = torch.nn.functional.normalize(seen["self_attn"][0].squeeze(), dim=-1)
        alike.append(float((out @ out.T).mean()))
    names = ("on the object", "AUC", "cosine")
    return {n: float(np.mean(e)) for n, e in zip(names, (on_object, ranks, alike), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=4)
    parser.add_argument("--wrong", type=float, default=0.15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.out / "rooms"
    rooms = [room(FIRST_HELD_OUT + n, 16, 64, folder) for n in range(options.held_out)]
    each = [np.nanstd(own.xyz[view], (0, 1)) for own in rooms for view in range(16)]
    every = [np.nanstd(own.xyz, (0, 1, 2)) for own in rooms]
    print("deviation of points in metres: one view", np.mean(each, 0), "all", np.mean(every, 0))
    for code, scale in CODES:
        own, others = by_codes(rooms, options.wrong, code, scale)
        print(f"{code}, deviation {scale}: prompted {own:.3f}, others {others:.3f}", flush=True)
    for code in ("2d", "3d"):
        for comparing in (False, True):
            found = untrained(rooms, options.wrong, code, comparing)
            print(code, "start_comparing" if comparing else "random", found, flush=True)


if __name__ == "__main__":
    main()
