"""Load the published weights of MASt3R; no code in the file is run."""

from __future__ import annotations

import argparse
import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lift3d.networks.checkpoint import fit, is_state, read_checkpoint, shape
from lift3d.networks.known import MAST3R
from lift3d.networks.mast3r.network import Mast3r
from lift3d.networks.mast3r.sizes import NetworkConfig
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size, reading
from lift3d.scene.guarded.json_file import load_json, shown

ADVICE = f"Expected the weights of MASt3R, such as {MAST3R} (.pth file or hub folder)"

SIZES = {
    "enc_embed_dim": "encoder_width",
    "enc_depth": "encoder_depth",
    "enc_num_heads": "encoder_heads",
    "dec_embed_dim": "decoder_width",
    "dec_depth": "decoder_depth",
    "dec_num_heads": "decoder_heads",
    "patch_size": "patch",
}
DPT_SIZES = {"layer_dims": "dpt_widths", "feature_dim": "dpt_features", "last_dim": "dpt_last"}
MODES: dict[str, Any] = {
    "pos_embed": "RoPE100",
    "head_type": "catmlp+dpt",
    "depth_mode": ("exp", -math.inf, math.inf),
    "conf_mode": ("exp", 1, math.inf),
    "desc_conf_mode": ("exp", 0, math.inf),
    "two_confs": True,
}
"""Options that this implementation has; checkpoints with other values are refused."""
LARGEST = 65536
"""Largest size of a network that is believed; those published are below 5000."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Path, sizes and scale of a loaded checkpoint."""

    path: Path
    config: NetworkConfig
    metric: bool
    """True where the weights were trained for metric scale; known only from the name."""


def load(path: Path) -> tuple[Mast3r, CheckpointInfo]:
    """The network with the weights at `path`, float32, on the CPU.

    `path` is a `.pth` file as published by the authors, or a folder with `config.json` and
    `model.safetensors` as on the Hugging Face hub. Raises InputError where it is neither, is
    truncated, or belongs to another network.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. {ADVICE}")
    if path.suffix == ".safetensors":
        path = path.parent
    options, state = _read_folder(path) if path.is_dir() else _read_pth(path)
    config = parse_options(options, path)
    with torch.device("meta"):
        model = Mast3r(config)
    model.load_state_dict(fitted(state, model, path), assign=True)
    model.eval().requires_grad_(False)
    return model, CheckpointInfo(path, config, is_metric(path))


def is_metric(path: Path) -> bool:
    """Whether the name of the file or folder contains "metric".

    In the hub's cache the folder `models--...` has the name.

    >>> is_metric(Path("MASt3R_512_catmlpdpt_metric.pth")), is_metric(Path("metric/nano.pth"))
    (True, False)
    """
    names = [path.name, *(part for part in path.parts if part.startswith("models--"))]
    return any(re.search(r"(?<!non)(?<!non[_-])metric", name, re.IGNORECASE) for name in names)


def parse_options(options: Mapping[str, Any], path: Path) -> NetworkConfig:
    """Sizes from the constructor's arguments; missing ones are those of the published model."""
    output = str(options.get("output_mode", "pts3d+desc24"))
    descriptors = re.fullmatch(r"pts3d\+desc(\d+)", output)
    if descriptors is None:
        raise InputError(
            f"{path}: output_mode is {output!r}, without descriptors (a DUSt3R checkpoint?); "
            f"matching needs them. {ADVICE}"
        )
    for name, expected in MODES.items():
        if name in options and _plain(options[name]) != expected:
            raise InputError(
                f"{path}: {name} is {options[name]!r}, this network computes {expected!r}. {ADVICE}"
            )
    sizes: dict[str, Any] = {
        ours: options[theirs] for theirs, ours in SIZES.items() if theirs in options
    }
    dpt = options.get("dpt_override") or {}
    if not isinstance(dpt, dict):
        raise InputError(f"{path}: dpt_override is {shown(dpt)}, expected a table. {ADVICE}")
    sizes |= {ours: _plain(dpt[theirs]) for theirs, ours in DPT_SIZES.items() if theirs in dpt}
    for name, value in sizes.items():
        numbers = value if name == "dpt_widths" else (value,)
        count = 4 if name == "dpt_widths" else 1
        if (
            not isinstance(numbers, tuple)
            or len(numbers) != count
            or not all(isinstance(number, int) and 0 < number <= LARGEST for number in numbers)
        ):
            raise InputError(
                f"{path}: {name} is {shown(value)}, expected {count} whole number"
                f"{'s' * (count > 1)} from 1 to {LARGEST}. {ADVICE}"
            )
    config = replace(NetworkConfig(), **sizes, descriptor_width=int(descriptors[1]))
    for side in ("encoder", "decoder"):
        width, heads = getattr(config, f"{side}_width"), getattr(config, f"{side}_heads")
        if width % (4 * heads):
            raise InputError(
                f"{path}: the {side} has {width} channels and {heads} heads; expected a multiple "
                f"of 4 channels per head. {ADVICE}"
            )
    return config


def fitted(state: Mapping[str, Tensor], model: Mast3r, path: Path) -> dict[str, Tensor]:
    """The weights under the model's names; InputError for missing, unknown or misshaped ones."""
    state = dict(state)
    token = state.pop("mask_token", None)  # from pre-training, unused since
    if token is not None and token.shape != (1, 1, model.config.decoder_width):
        raise InputError(
            f"{path}: mask_token is {shape(token)}, expected 1x1x{model.config.decoder_width}; "
            "the file and its configuration do not belong together"
        )
    for key in [key for key in state if ".scratch.layer_rn." in key]:
        # The authors' module has these four layers under two names.
        before, after = key.split(".layer_rn.")
        index, _, rest = after.partition(".")
        if not index.isdecimal():
            continue
        named = f"{before}.layer{int(index) + 1}_rn.{rest}"
        repeated = state.pop(key)
        if not torch.equal(state.setdefault(named, repeated), repeated):
            raise InputError(
                f"{path}: {key} differs from {named}, which it should repeat; the file is damaged. "
                "Download it again"
            )
    wanted = model.state_dict()
    missing = wanted.keys() - state.keys()
    if missing and all("head_local_features" in key for key in missing):
        raise InputError(
            f"{path}: no descriptor head (a DUSt3R checkpoint?), {min(missing)} is missing. "
            f"{ADVICE}"
        )
    return fit(state, wanted, path, ADVICE)


def _read_pth(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    content = read_checkpoint(path, ADVICE, [argparse.Namespace])
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not is_state(state):
        raise InputError(f"{path}: holds no 'model' with weights. {ADVICE}")
    text = getattr(content.get("args"), "model", None)
    if not isinstance(text, str):
        raise InputError(f"{path}: holds no 'args.model' with the network's sizes. {ADVICE}")
    return parse_call(text, path), state


def parse_call(text: str, path: Path) -> dict[str, Any]:
    """The keyword arguments of a constructor call, parsed from text without running it."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a call")
        return {word.arg: _literal(word.value) for word in call.keywords if word.arg is not None}
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: args.model is {text[:80]!r}, expected a constructor call with plain values. "
            f"{ADVICE}"
        ) from error


def _literal(node: ast.expr) -> Any:
    """A constant, inf, or a sequence of them."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Name("inf") | ast.Call(ast.Name("float"), [ast.Constant("inf")]):
            return math.inf
        case ast.UnaryOp(ast.USub(), operand):
            value = _literal(operand)
            if not isinstance(value, int | float):
                raise ValueError("minus before a value that is not a number")
            return -value
        case ast.Tuple(elements) | ast.List(elements):
            return tuple(map(_literal, elements))
    raise ValueError(f"{ast.unparse(node)} is not a plain value")


def _read_folder(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    from safetensors.torch import load_file

    weights = next(
        (
            path / name
            for name in ("model.safetensors", "weights.safetensors")
            if (path / name).exists()
        ),
        None,
    )
    if weights is None or not (path / "config.json").exists():
        raise InputError(f"{path}: no config.json with model.safetensors inside. {ADVICE}")
    config = load_json(path / "config.json", advice=ADVICE, kind=dict)
    again = "it may be cut short: compare its size with the source and download it again"
    file_size(weights, advice=again)
    with reading(weights, "a safetensors file", advice=again):
        state = load_file(weights)
    if isinstance(config.get("model_kwargs"), dict):
        config = {**config["model_kwargs"], "dpt_override": config.get("dpt_override") or {}}
    return config, state


def _plain(value: Any) -> Any:
    """A JSON value with lists as tuples and "inf" as a number."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return float(value) if value in ("inf", "-inf") else value
