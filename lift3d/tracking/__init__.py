"""Masks of single views to masks whose ids persist, one backend per file."""

from lift3d.tracking.byocl import ByoclConfig
from lift3d.tracking.given import GivenConfig
from lift3d.tracking.independent import IndependentConfig
from lift3d.tracking.mastsam import MastsamConfig

BACKENDS: dict[str, type] = {
    "independent": IndependentConfig,
    "mastsam": MastsamConfig,
    "byocl": ByoclConfig,
    "given": GivenConfig,
}
