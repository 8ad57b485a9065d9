"""Sizes of the network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import shown

LARGEST = 65536
"""Largest size that is believed; those published are below 5000."""


@dataclass(frozen=True)
class VggtConfig:
    """Sizes of the network; the defaults are those of the published VGGT-1B."""

    base_img_size: int = 518
    """Side in pixels of the pictures that the table of positions is for."""
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    """Rounds of one block within frames and one across frames."""
    num_heads: int = 16
    num_register_tokens: int = 4
    dino_depth: int = 24
    """Blocks of the patch embedder."""
    dino_heads: int = 16
    rope_freq: int = 100
    """Base of the frequencies of the rotary position embedding."""
    camera_trunk_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    intermediate_layer_idx: tuple[int, int, int, int] = (4, 11, 17, 23)
    """Rounds whose tokens the heads of pixels use, finest map first."""
    dpt_out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    """Channels of the four maps, finest first."""
    dpt_features: int = 256
    """Channels of the fusion in the depth and the point head."""
    track_features: int = 128
    """Channels of the track head's feature maps."""
    corr_levels: int = 7
    corr_radius: int = 4
    tracker_hidden: int = 384
    tracker_depth: int = 6
    tracker_attention_heads: int = 8
    tracker_iterations: int = 4
    tracker_stride: int = 2
    """Pixels of the picture per pixel of the feature maps."""
    num_virtual_tracks: int = 64

    @property
    def special_tokens(self) -> int:
        """Tokens of a frame before its patches: the camera token and the registers."""
        return 1 + self.num_register_tokens

    @property
    def last(self) -> int:
        """The last round."""
        return self.depth - 1

    @staticmethod
    def parsed(options: dict[str, Any], where: object) -> VggtConfig:
        """From options of these names; other names are ignored, missing ones have the default.

        Raises InputError, naming `where`, for values that no network can have.
        """
        known = {each.name: each.default for each in fields(VggtConfig)}
        values: dict[str, Any] = {}
        for name, default in known.items():
            if name not in options:
                continue
            value = options[name]
            four = isinstance(default, tuple)
            numbers = value if four and isinstance(value, list | tuple) else [value]
            least = 0 if name in ("intermediate_layer_idx", "num_register_tokens") else 1
            if len(numbers) != (4 if four else 1) or not all(
                isinstance(each, int | float)
                and not isinstance(each, bool)
                and least <= each <= LARGEST
                and each == int(each)
                for each in numbers
            ):
                raise InputError(
                    f"{where}: {name} is {shown(value)}, expected "
                    f"{'4 whole numbers' if four else 'a whole number'} from {least} to {LARGEST}"
                )
            whole = tuple(int(each) for each in numbers)
            values[name] = whole if four else whole[0]
        config = VggtConfig(**values)
        config.check(where)
        return config

    def check(self, where: object) -> None:
        """InputError, naming `where`, where the sizes do not fit together."""
        for what, width, heads, unit in (
            ("frame and global blocks", self.embed_dim, self.num_heads, 4),
            ("patch embedder", self.embed_dim, self.dino_heads, 1),
            ("camera head", 2 * self.embed_dim, self.camera_heads, 1),
            ("tracker", self.tracker_hidden, self.tracker_attention_heads, 1),
        ):
            if width % (unit * heads):
                raise InputError(
                    f"{where}: the {what} has {width} channels and {heads} heads; expected a "
                    f"multiple of {unit * heads} channels"
                )
        if self.base_img_size % self.patch_size:
            raise InputError(
                f"{where}: base_img_size is {self.base_img_size}, expected a multiple of "
                f"{self.patch_size}"
            )
        if max(self.intermediate_layer_idx) >= self.depth:
            raise InputError(
                f"{where}: intermediate_layer_idx is {list(self.intermediate_layer_idx)}, but "
                f"there are {self.depth} rounds, numbered from 0"
            )
        for name, unit in (("dpt_out_channels", 4), ("dpt_features", 8), ("track_features", 4)):
            value = getattr(self, name)
            if any(each % unit for each in (value if isinstance(value, tuple) else (value,))):
                raise InputError(
                    f"{where}: {name} is {shown(value)}, expected multiples of {unit}: positions "
                    "are encoded in them"
                )
