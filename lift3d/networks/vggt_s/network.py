"""VGGT-Segmentor: VGGT's features of two pictures, and the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.checkpoint import fit, is_state, read_checkpoint
from lift3d.networks.known import VGGT_S
from lift3d.networks.vggt.checkpoint import load as load_vggt
from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.networks.vggt_s import HeadConfig
from lift3d.networks.vggt_s.head import UnionHead
from lift3d.scene.errors import InputError

ADVICE = (
    f"Expected the weights of VGGT-Segmentor's head, such as {VGGT_S} (main_exp.pth), or a "
    "checkpoint of pipelines/train_vggt_segmentor.py"
)


class Segmentor(nn.Module):
    """VGGT with the head. Of VGGT only the aggregator and the track head are used."""

    def __init__(self, vggt: VGGT, head: UnionHead) -> None:
        super().__init__()
        if vggt.config.track_features != head.config.width:
            raise InputError(
                f"VGGT's maps have {vggt.config.track_features} channels and the head expects "
                f"{head.config.width}; take weights that belong together"
            )
        self.vggt, self.head = vggt, head

    def features(
        self, images: Float[Tensor, "pairs frames 3 size size"]
    ) -> Float[Tensor, "pairs frames width grid grid"]:
        """The maps that the head reads, in float32; the frames of a pair see each other."""
        tokens = self.vggt.aggregate(images, self.vggt.config.intermediate_layer_idx)
        return self.vggt.track_features(tokens).float()

    def features_apart(
        self, images: Float[Tensor, "pairs frames 3 size size"]
    ) -> Float[Tensor, "pairs frames width grid grid"]:
        """The maps of frames that do not see each other."""
        return self.features(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2])[:, :, 0]


def load(path: Path, vggt: Callable[[], Path] | None) -> Segmentor:
    """The network with the head's weights at `path`, float32, on the CPU.

    The file is a table with the head's weights under `model`, as published. One of our training
    also has the sizes, and VGGT's weights where they were trained too; otherwise `vggt` gives the
    path of VGGT's checkpoint. Raises InputError for files of other networks.
    """
    content = read_checkpoint(Path(path), ADVICE)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not is_state(state):
        raise InputError(f"{path}: holds no 'model' with weights. {ADVICE}")
    sizes = content.get("config")
    own = content.get("vggt")
    head = load_head(state, sizes.get("head") if isinstance(sizes, dict) else None, path)
    if own is None:
        if vggt is None:
            raise InputError(
                f"{path} has the head's weights alone; name those of VGGT too, such as VGGT-1B"
            )
        return Segmentor(load_vggt(vggt())[0], head).eval()
    if not is_state(own) or not isinstance(sizes, dict) or not isinstance(sizes.get("vggt"), dict):
        raise InputError(f"{path}: its VGGT has no sizes. {ADVICE}")
    with torch.device("meta"):
        network = VGGT(VggtConfig.parsed(sizes["vggt"], path))
    network.load_state_dict(fit(own, network.state_dict(), Path(path), ADVICE), assign=True)
    return Segmentor(network.eval().requires_grad_(False), head).eval()


def load_head(
    state: Mapping[str, Tensor], sizes: Mapping[str, Any] | None, path: Path
) -> UnionHead:
    """The head with these weights; all keys must be there, others are ignored as by the authors.

    Without `sizes` they are those of the published head.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    known = asdict(HeadConfig())
    given = {name: value for name, value in (sizes or {}).items() if name in known}
    if not all(isinstance(each, int) and 0 < each < 65536 for each in given.values()):
        raise InputError(f"{path}: its sizes are no whole numbers above 0. {ADVICE}")
    config = HeadConfig(**given)
    config.check(path)
    with torch.device("meta"):
        head = UnionHead(config)
    wanted = head.state_dict()
    kept = {key: value for key, value in state.items() if key in wanted}
    head.load_state_dict(fit(kept, wanted, Path(path), ADVICE), assign=True)
    return head.eval().requires_grad_(False)
