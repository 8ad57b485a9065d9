"""What every network that answers prompts is told, whatever library it is from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from lift3d.networks import Precision
from lift3d.networks.sam.automatic import AutomaticConfig
from lift3d.networks.sam.embeddings import EmbeddingConfig
from lift3d.scene.errors import MissingExtra
from lift3d.scene.protocols import Segmenter, SegmenterConfig

if TYPE_CHECKING:
    from lift3d.networks.sam.promptable import Network


@dataclass(frozen=True, kw_only=True)
class PromptedConfig(SegmenterConfig):
    """Where and how such a network runs, and what counts as everything in a view."""

    gives_features: ClassVar[bool] = True
    called: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Libraries, beside torch."""

    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1', ...; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """Of the image encoder; auto is float32 on a CPU, else bfloat16 or, where the GPU is too old
    for it, float16."""
    batch: int | None = None
    """Prompts at a time; by default 64 on a GPU, 16 elsewhere. Bounds memory."""
    automatic: AutomaticConfig = field(default_factory=AutomaticConfig)
    # Not compared: where embeddings are kept changes no mask, and the folder fills meanwhile.
    embeddings: EmbeddingConfig = field(default_factory=EmbeddingConfig, compare=False)

    def build(self) -> Segmenter:
        """The segmenter; MissingExtra without the libraries, InputError for other weights."""
        try:
            for library in self.needs:
                import_module(library)
            from lift3d.networks.sam.promptable import Promptable
        except ImportError as error:
            raise MissingExtra(
                f"{self.called} needs {error.name}, which is not installed: "
                "pip install 'lift3d[sam]'"
            ) from error
        return Promptable(self.network(), self.automatic, self.embeddings, self.batch)

    @abstractmethod
    def network(self) -> Network:
        """Loaded."""
