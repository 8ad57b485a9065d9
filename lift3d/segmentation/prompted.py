"""Settings common to all promptable networks."""

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
    """Device and precision of a promptable network, and its automatic masks."""

    gives_features: ClassVar[bool] = True
    called: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Required libraries besides torch."""

    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1', ...; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """Precision of the image encoder; auto is float32 on a CPU, bfloat16 on a GPU, or float16 if
    the GPU does not support bfloat16."""
    batch: int | None = None
    """Prompts per batch; by default 64 on a GPU, 16 elsewhere. Limits memory."""
    automatic: AutomaticConfig = field(default_factory=AutomaticConfig)
    # Not compared: the place of the embeddings does not change the masks.
    embeddings: EmbeddingConfig = field(default_factory=EmbeddingConfig, compare=False)

    def build(self) -> Segmenter:
        """The segmenter; MissingExtra without the libraries, InputError for unsupported weights."""
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
        """Load the network."""
