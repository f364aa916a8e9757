"""MusicGen's language model: sums of the codebooks' embeddings through a transformer that attends to a text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.lm.base import TokenLM
from flowtts_core.lm.cache import KeyValueCache
from flowtts_core.lm.patterns import DelayPattern
from flowtts_core.lm.transformer import Attended, Transformer, TransformerConfig


def _published(width: int, heads: int, layers: int) -> TransformerConfig:
    return TransformerConfig(
        width=width,
        layers=layers,
        heads=heads,
        key_value_heads=heads,
        inner=4 * width,
        positions="sinusoidal",
        norm="layer",
        feed_forward="gelu",
        cross=True,
    )


@dataclass(frozen=True)
class MusicGenConfig:
    """Sizes of the model.

    Attributes:
        codes: K of each codebook.
        delays: of the codebooks; as many as there are codebooks.
        text_width: of the hidden states of the text's encoder.
    """

    codes: int = 2048
    delays: tuple[int, ...] = (0, 1, 2, 3)
    text_width: int = 768
    transformer: TransformerConfig = field(default_factory=lambda: _published(1024, 16, 24))

    @classmethod
    def published(cls, size: str) -> MusicGenConfig:
        """Return "small", "medium" or "large" (0.3, 1.5 and 3.3 billion parameters with their text encoders)."""
        sizes = {"small": (1024, 16, 24), "medium": (1536, 24, 48), "large": (2048, 32, 48)}
        if size not in sizes:
            raise ConfigError(f"no published MusicGen of size {size!r}", f"use one of: {', '.join(sizes)}")
        return cls(transformer=_published(*sizes[size]))

    @classmethod
    def debug(cls) -> MusicGenConfig:
        """Return the smallest that is whole."""
        small = replace(_published(16, 2, 1), inner=32)
        return cls(codes=8, delays=(0, 1), text_width=6, transformer=small)

    def __post_init__(self) -> None:
        if self.codes < 2 or not self.transformer.cross:
            raise ConfigError(
                f"MusicGenConfig: codes {self.codes}, cross {self.transformer.cross}",
                "use 2 codes or more, and a transformer with cross = true",
            )

    @property
    def pattern(self) -> DelayPattern:
        return DelayPattern(self.delays)


class MusicGenLM(TokenLM):
    """See `MusicGenConfig`. Its condition is what `condition_of` returns."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = config
        self.codebooks, self.codes = len(config.delays), config.codes
        width = config.transformer.width
        embeddings = [nn.Embedding(config.codes + 1, width) for _ in config.delays]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.02)
        self.embeddings = nn.ModuleList(embeddings)
        self.text_projection = nn.Linear(config.text_width, width)
        self.transformer = Transformer(config.transformer)
        self.heads = nn.ModuleList(nn.Linear(width, config.codes, bias=False) for _ in config.delays)

    def condition_of(self, text: Tensor, lengths: Tensor) -> Attended:
        """Return what is attended to of a text's hidden states [B, L, D]: 0 from `lengths` [B] on, but not hidden.

        So the published models read it: padding takes part in the softmax, and an item's sound depends on how long the
        texts beside it are. One item alone, without padding, is the reference.
        """
        inside = torch.arange(text.shape[1], device=text.device) < lengths[:, None]
        return self.transformer.attended(self.text_projection(text) * inside[..., None])

    def unconditional(self, batch: int, length: int) -> Attended:
        """Return the condition of no text: zeros, as long as the text that it goes with."""
        zeros = self.text_projection.weight.new_zeros(batch, length, self.config.transformer.width)
        return self.transformer.attended(zeros)

    def new_cache(self, batch: int, device: torch.device | str = "cpu") -> KeyValueCache:
        return self.transformer.new_cache(batch, device)

    def logits(self, sequence: Tensor, condition: Attended, cache: KeyValueCache | None = None) -> Tensor:
        books = sequence.unbind(1)
        x = torch.stack([embed(codes) for embed, codes in zip(self.embeddings, books, strict=True)]).sum(0)
        features = self.transformer(x, condition=condition, cache=cache)
        return torch.stack([head(features) for head in self.heads], 1)
