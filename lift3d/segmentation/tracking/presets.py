"""The presets `best` and `paper`: a value for every option of MastSAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lift3d.segmentation.tracking.initialisation import PAPER_AREA

Preset = Literal["best", "paper"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options with values, documented in `MastsamConfig`; defaults are common to both."""

    points: int = 100
    at_least_one: bool
    snap: Literal["own", "any"]
    border: float = 3.0
    min_confidence: float = 0.1
    min_matches: int = 5
    stray: float
    negatives: int
    dense_prompt: bool
    min_agreement: float
    good_agreement: float
    overlap: float = 0.5
    nested: Literal["keep", "merge"]
    parts: Literal["matched", "largest", "all"]
    initialise: bool = True
    init_every: int = 1
    start_from: Literal["automatic", "region"]
    min_uncovered: float = PAPER_AREA
    carry: bool
    voters: int
    keyframes: int
    claim: bool
    fill: bool


BEST = Options(
    at_least_one=True,
    snap="own",
    stray=4.0,
    negatives=4,
    dense_prompt=True,
    min_agreement=0.5,
    good_agreement=0.8,
    nested="keep",
    parts="matched",
    start_from="automatic",
    carry=True,
    voters=8,
    keyframes=40,
    claim=True,
    fill=True,
)

PAPER = Options(
    at_least_one=False,
    snap="any",
    stray=0.0,
    negatives=0,
    dense_prompt=False,
    min_agreement=0.0,
    good_agreement=0.0,
    nested="merge",
    parts="largest",
    start_from="region",
    carry=False,
    voters=1,
    keyframes=0,
    claim=False,
    fill=False,
)

PRESETS: dict[Preset, Options] = {"best": BEST, "paper": PAPER}
