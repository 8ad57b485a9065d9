"""What `best` and `paper` mean: every option of MastSAM with a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lift3d.tracking.initialisation import PAPER_AREA

Preset = Literal["best", "paper"]


@dataclass(frozen=True)
class Options:
    """All options settled; `MastsamConfig` says what each is."""

    points: int
    at_least_one: bool
    snap: Literal["own", "any"]
    border: float
    min_confidence: float
    min_matches: int
    stray: float
    negatives: int
    dense_prompt: bool
    min_agreement: float
    sure_agreement: float
    overlap: float
    nested: Literal["keep", "merge"]
    parts: Literal["matched", "largest", "all"]
    initialise: bool
    init_every: int
    start_from: Literal["automatic", "region"]
    min_uncovered: float
    carry: bool
    voters: int
    keyframes: int
    claim: bool
    fill: bool


BEST = Options(
    points=100,
    at_least_one=True,
    snap="own",
    border=3.0,
    min_confidence=0.1,
    min_matches=5,
    stray=4.0,
    negatives=4,
    dense_prompt=True,
    min_agreement=0.5,
    sure_agreement=0.8,
    overlap=0.5,
    nested="keep",
    parts="matched",
    initialise=True,
    init_every=1,
    start_from="automatic",
    min_uncovered=PAPER_AREA,
    carry=True,
    voters=8,
    keyframes=40,
    claim=True,
    fill=True,
)

PAPER = Options(
    points=100,
    at_least_one=False,
    snap="any",
    border=3.0,
    min_confidence=0.1,
    min_matches=5,
    stray=0.0,
    negatives=0,
    dense_prompt=False,
    min_agreement=0.0,
    sure_agreement=0.0,
    overlap=0.5,
    nested="merge",
    parts="largest",
    initialise=True,
    init_every=1,
    start_from="region",
    min_uncovered=PAPER_AREA,
    carry=False,
    voters=1,
    keyframes=0,
    claim=False,
    fill=False,
)

PRESETS: dict[Preset, Options] = {"best": BEST, "paper": PAPER}
