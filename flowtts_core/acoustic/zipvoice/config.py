"""Settings of the ZipVoice acoustic model."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.errors import ConfigError

_SIZES = (
    "n_symbols",
    "decoder_dim",
    "decoder_feed_forward",
    "decoder_heads",
    "encoder_layers",
    "encoder_dim",
    "encoder_feed_forward",
    "encoder_heads",
    "text_dim",
    "query_dim",
    "value_dim",
    "position_dim",
    "guidance_dim",
)


@dataclass(frozen=True)
class ZipVoiceConfig:
    """ZipVoice (arXiv 2506.13053). The defaults are a compact model; `ZipVoiceConfig.published()` has the published sizes.

    Attributes:
        n_symbols: size of the token table, padding included.
        pad: the token of padding, which also stands for the frames that no token accounts for.
        scale: what the log-mel is multiplied by, to be about as large as the noise.
        decoder_layers, decoder_factors, decoder_kernels: of each stack of the velocity net, from one full frame rate to the
            other: its layers, by how much its frame rate is lower, and the kernel of its convolutions.
        decoder_feed_forward, encoder_feed_forward: width of the middle one of a layer's three feed-forward nets.
        query_dim, value_dim, position_dim: width of each attention head's queries and keys, values, and queries of positions.
        positions_dim: width of the encoding of relative positions.
        time_dim, text_dim: width of the embeddings of time and of tokens.
        embeds_guidance: the velocity net is told the weight of the guidance (a distilled model), and so is asked but once.
        guidance_dim: width of that embedding.
        dropout: of the feed-forward nets, while training.
        text_dropped: share of the items that are trained without their text.
        least_masked: share of an item's frames, in one piece, that are to be predicted: from this to all of them.
    """

    n_symbols: int = 178
    pad: int = 0
    mel: MelConfig = field(default_factory=lambda: VOCOS_24K)
    scale: float = 0.1
    decoder_dim: int = 256
    decoder_feed_forward: int = 768
    decoder_heads: int = 4
    decoder_layers: tuple[int, ...] = (1, 2, 2, 2, 1)
    decoder_factors: tuple[int, ...] = (1, 2, 4, 2, 1)
    decoder_kernels: tuple[int, ...] = (31, 15, 7, 15, 31)
    encoder_layers: int = 4
    encoder_dim: int = 128
    encoder_feed_forward: int = 384
    encoder_heads: int = 4
    encoder_kernel: int = 9
    query_dim: int = 32
    value_dim: int = 12
    position_dim: int = 4
    positions_dim: int = 48
    time_dim: int = 192
    text_dim: int = 128
    embeds_guidance: bool = False
    guidance_dim: int = 192
    dropout: float = 0.1
    text_dropped: float = 0.2
    least_masked: float = 0.7

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(f"ZipVoiceConfig.{name} = {getattr(self, name)}", "use 1 or more")
        for name in ("time_dim", "positions_dim", "guidance_dim"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ConfigError(f"ZipVoiceConfig.{name} = {getattr(self, name)}", "use an even number")
        if not 0 <= self.pad < self.n_symbols:
            raise ConfigError(f"ZipVoiceConfig.pad = {self.pad}", f"use a token from 0 to {self.n_symbols - 1}")
        if not (self.scale > 0 and 0 <= self.dropout < 1 and 0 <= self.text_dropped < 1 and 0 < self.least_masked <= 1):
            raise ConfigError(
                f"ZipVoiceConfig: scale {self.scale}, dropout {self.dropout}, text_dropped {self.text_dropped},"
                f" least_masked {self.least_masked}",
                "use a scale above 0, dropout and text_dropped from 0 to below 1, least_masked above 0 and up to 1",
            )
        self._check_stacks()

    def _check_stacks(self) -> None:
        stacks = (self.decoder_layers, self.decoder_factors, self.decoder_kernels)
        kernels = (*self.decoder_kernels, self.encoder_kernel)
        if not stacks[0] or len({len(one) for one in stacks}) > 1 or any(n < 1 for one in stacks for n in one):
            raise ConfigError(
                f"ZipVoiceConfig: decoder_layers {self.decoder_layers}, decoder_factors {self.decoder_factors},"
                f" decoder_kernels {self.decoder_kernels}",
                "give each stack a number of layers, a factor and a kernel, all 1 or more",
            )
        if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ConfigError(f"ZipVoiceConfig: kernels {kernels}", "use odd numbers")

    @classmethod
    def published(cls, n_symbols: int = 360) -> ZipVoiceConfig:
        """Return the published model: 123 M parameters; 360 symbols are those of Chinese and English."""
        return cls(
            n_symbols=n_symbols,
            decoder_dim=512,
            decoder_feed_forward=1536,
            decoder_layers=(2, 2, 4, 4, 4),
            encoder_dim=192,
            encoder_feed_forward=512,
            text_dim=192,
        )

    @classmethod
    def debug(cls) -> ZipVoiceConfig:
        """Return a model that trains in seconds on a CPU."""
        return cls(
            n_symbols=24,
            decoder_dim=32,
            decoder_feed_forward=48,
            decoder_heads=2,
            decoder_layers=(1, 1, 1),
            decoder_factors=(1, 2, 1),
            decoder_kernels=(7, 5, 7),
            encoder_layers=1,
            encoder_dim=24,
            encoder_feed_forward=32,
            encoder_heads=2,
            encoder_kernel=5,
            query_dim=8,
            value_dim=6,
            positions_dim=16,
            time_dim=32,
            text_dim=24,
            guidance_dim=16,
            dropout=0.0,
        )
