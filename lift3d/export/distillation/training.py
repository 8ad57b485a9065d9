"""Fit Gaussians to pictures and label maps; training can resume from checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32

from lift3d.export.distillation.gaussians import Gaussians, IdentityConfig, class_index, thinned
from lift3d.export.distillation.losses import photometric, smoothness
from lift3d.export.distillation.rasterisers import for_device
from lift3d.export.distillation.rasterising import Rasteriser
from lift3d.scene import Camera, Image, LabelledPoints, LabelMap
from lift3d.scene.errors import InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.progress import Tick
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam per parameter, as in 3DGS except for colour and opacity."""

    means: float = 1.6e-4
    """Times the extent of the cameras; decays to a hundredth at the end."""
    log_scales: float = 5e-3
    quaternions: float = 1e-3
    logits: float = 2.5e-2
    harmonics: float = 1e-2
    identity: float = 1e-2
    head: float = 1e-3


@dataclass(frozen=True)
class DistillConfig:
    """Settings of the training."""

    steps: int = 7000
    """Number of training steps, with one picture each."""
    most: int = 1_000_000
    """Maximum number of Gaussians; larger clouds are sampled at random. Gaussians are not added."""
    seed: int = 0
    """Seed of the sampled points, the codebook and the order of the pictures."""
    label_weight: float = 0.1
    """Weight of the identity's cross-entropy; the photometric loss has weight 1."""
    smooth_weight: float = 0.0
    """Weight of the 3D smoothness of identities; 0 disables it."""
    smooth_samples: int = 1000
    """Number of Gaussians sampled for the smoothness in each step."""
    smooth_neighbours: int = 5
    """Number of neighbours of each sampled Gaussian."""
    save_every: int = 500
    """Steps between checkpoints."""
    device: str = "cpu"
    """cpu: the plain rasteriser, for testing; cuda: gsplat."""
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    rates: Rates = field(default_factory=Rates)

    def check(self) -> None:
        """Raise InputError for invalid settings."""
        if min(self.steps, self.save_every, self.smooth_neighbours, self.smooth_samples) < 1:
            raise InputError("expected steps, save_every and smooth_* of 1 or more")
        if self.most < 2 or self.identity.channels < 1:
            raise InputError("expected 2 Gaussians or more with 1 identity channel or more")


@dataclass(frozen=True, eq=False)
class Picture:
    """Target picture and label map of one view."""

    name: str
    camera: Camera
    image: Image
    labels: LabelMap


@dataclass(frozen=True, eq=False)
class Distilled:
    """The trained Gaussians, with losses, time and memory."""

    model: Gaussians
    rasteriser: Rasteriser
    losses: Float32[np.ndarray, " steps"]
    """Loss of every step."""
    seconds: float
    """Time of all steps, including those before an interruption."""
    peak_gpu_mb: float | None
    """Peak GPU memory allocated by torch since the last start, in MiB; None on the CPU."""


def begin(cloud: LabelledPoints, pictures: Sequence[Picture], config: DistillConfig) -> Gaussians:
    """The initial Gaussians: the cloud's points, with the ids of cloud and label maps."""
    known = [np.zeros(1, np.int32), np.unique(cloud.instance)]
    ids = np.unique(np.concatenate([*known, *(np.unique(each.labels) for each in pictures)]))
    cloud = thinned(cloud, config.most, config.seed)
    return Gaussians(cloud, ids.astype(np.int32), config.identity, config.seed).to(config.device)


def distill(
    cloud: LabelledPoints,
    pictures: Sequence[Picture],
    config: DistillConfig,
    folder: Path | None = None,
    tick: Tick = lambda done, total: None,
    stop_after: int | None = None,
) -> Distilled:
    """Fit Gaussians to the pictures.

    With a `folder`, training resumes from the checkpoint there if cloud, pictures, settings and
    code are equal; else it starts again. An interrupted training gives the same result as an
    uninterrupted one, bit for bit on the CPU. `stop_after` stops after that step, with a
    checkpoint.
    """
    config.check()
    if not pictures:
        raise InputError("no picture to learn from; expected 1 or more")
    rasteriser = for_device(config.device)
    model = begin(cloud, pictures, config)
    optimiser = _optimiser(model, config, pictures)
    shown = [[each.name, each.camera, each.image, each.labels] for each in pictures]
    inputs = [_deciding(config), cloud.points.xyz, cloud.instance, code_of(distill)]
    key = fingerprint([inputs, shown])
    state = _State(np.zeros(config.steps, np.float32))
    path = None if folder is None else folder / CHECKPOINT
    if path is not None and path.exists():
        state = _restore(path, key, model, optimiser, config.device, config.steps)
    targets = [_target(each, model, config.device) for each in pictures]
    near = _neighbours(model, config)
    if config.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    began = time.perf_counter() - state.seconds
    for step in range(state.step, last):
        which = _order(config.seed, step, len(pictures))
        _decay(optimiser, step / config.steps)
        photo, classes = targets[which]
        rendered = rasteriser(model.splats(), pictures[which].camera)
        loss = photometric(rendered.values[..., :3], photo)
        scores = model.scores(rendered.values[..., 3:])
        loss = loss + config.label_weight * F.cross_entropy(scores.flatten(0, 1), classes.flatten())
        if near is not None:
            drawn = _drawn(config, step, len(model)).to(config.device)
            loss = loss + config.smooth_weight * smoothness(
                model.scores(model.identity), near[drawn], drawn
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        state.losses[step] = loss.item()
        state.step, state.seconds = step + 1, time.perf_counter() - began
        if path is not None and ((step + 1) % config.save_every == 0 or step + 1 == last):
            _save(path, key, model, optimiser, state)
        tick(step + 1, config.steps)
    gpu = None
    if config.device.startswith("cuda"):
        gpu = torch.cuda.max_memory_allocated() / 2**20
    return Distilled(model, rasteriser, state.losses[: state.step], state.seconds, gpu)


@dataclass
class _State:
    losses: np.ndarray
    step: int = 0
    seconds: float = 0.0


def _deciding(config: DistillConfig) -> dict[str, Any]:
    """The settings that affect the result."""
    return {k: v for k, v in asdict(config).items() if k not in ("save_every", "device")}


def _optimiser(
    model: Gaussians, config: DistillConfig, pictures: Sequence[Picture]
) -> torch.optim.Adam:
    """One group per parameter; the learning rate of the means is scaled by the cameras' extent."""
    places = np.stack([each.camera.pose[:3, 3] for each in pictures])
    extent = 1.1 * float(np.linalg.norm(places - places.mean(0), axis=1).max()) or 1.0
    groups: list[dict[str, Any]] = []
    for name, rate in asdict(config.rates).items():
        part = getattr(model, name)
        params = list(part.parameters()) if isinstance(part, torch.nn.Module) else [part]
        rate = rate * extent if name == "means" else rate
        groups.append({"params": params, "lr": rate, "first": rate, "name": name})
    return torch.optim.Adam(groups, eps=1e-15)


def _decay(optimiser: torch.optim.Adam, share: float) -> None:
    """The learning rate of the means decays exponentially to a hundredth."""
    for group in optimiser.param_groups:
        if group["name"] == "means":
            group["lr"] = group["first"] * 0.01**share


def _order(seed: int, step: int, count: int) -> int:
    """The picture of a step; every epoch is a new permutation of all pictures."""
    epoch, position = divmod(step, count)
    return int(np.random.default_rng([seed, 1, epoch]).permutation(count)[position])


def _drawn(config: DistillConfig, step: int, count: int) -> torch.Tensor:
    rng = np.random.default_rng([config.seed, 2, step])
    return torch.from_numpy(rng.integers(0, count, config.smooth_samples))


def _neighbours(model: Gaussians, config: DistillConfig) -> torch.Tensor | None:
    """Nearest neighbours of each initial Gaussian; None if smoothness is disabled."""
    if config.smooth_weight == 0:
        return None
    from scipy.spatial import cKDTree

    # By the initial means, so that resuming gives the same neighbours.
    xyz = model.initial_means.cpu().numpy()
    k = min(config.smooth_neighbours + 1, len(xyz))
    _, index = cKDTree(xyz).query(xyz, k=range(2, k + 1))
    return torch.from_numpy(np.asarray(index, np.int64)).to(config.device)


def _target(picture: Picture, model: Gaussians, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    classes = class_index(picture.labels, model.ids.cpu().numpy())
    photo = torch.from_numpy(picture.image.copy()).to(device).float() / 255
    return photo, torch.from_numpy(classes).to(device)


def _save(
    path: Path, key: str, model: Gaussians, optimiser: torch.optim.Adam, state: _State
) -> None:
    content = {
        "key": key,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "losses": torch.from_numpy(state.losses),
    }
    with atomic(path) as part:
        torch.save(content, part)


def _restore(
    path: Path, key: str, model: Gaussians, optimiser: torch.optim.Adam, device: str, steps: int
) -> _State:
    """Load a checkpoint with the same key into model and optimiser; else returns a new state."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if content["key"] != key:
            return _State(np.zeros(steps, np.float32))
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        losses = content["losses"].cpu().numpy().copy()
        return _State(losses, content["step"], content["seconds"])
    except Exception as error:  # torch.load raises many kinds of errors for damaged files
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); remove it to start again"
        ) from error
