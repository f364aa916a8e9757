"""Settings of the F5-TTS acoustic model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowtts_core.audio.mel import F5_24K, MelConfig
from flowtts_core.errors import ConfigError

_SIZES = ("n_symbols", "dim", "depth", "heads", "head_channels", "ff_mult", "text_dim", "duration_channels")
_SHARES = ("dropout", "drop_prompt", "drop_all")
_CONV_GROUPS = 16  # of the convolutions that tell positions


@dataclass(frozen=True)
class F5Config:
    """F5-TTS (arXiv:2410.06885). The defaults are the published v1 base model but for its sizes; see `published`.

    Attributes:
        n_symbols: size of the token table; token 0 fills frames without text.
        mel_mean, mel_std: of the training data's log-mel; published models take it as it is.
        dim, depth, heads, head_channels, ff_mult: of the transformer.
        dropout: probability while training.
        text_dim, conv_layers: width and number of the text's ConvNeXt V2 blocks.
        text_mask_padding: keep frames without text at zero through these blocks (v1; the first generation did not).
        average_upsampling: spread the text evenly over the frames, instead of one token a frame from the first on.
        rotated_heads: heads that are told positions, the first ones; None for all (v1), 1 in the first generation.
        qk_norm, long_skip: variants of the published code.
        between: tokens between a prompt's text and what is to be said after it.
        token_bytes: UTF-8 bytes that each token stands for, for durations by bytes; None for one each.
        durations: "bytes": a text takes as many frames a byte as its prompt; "learnt": a small net says how long texts are,
            and the prompt how much slower or faster; "aligned": each token has frames of its own, found by an alignment search
            while training and told by a small net afterwards, and the text is laid out by them instead of filled up at its end.
        duration_channels: width of these nets.
        mask: least and greatest share of a clip that is filled in while training.
        precision: of products while generating: "fp32", or "bf16", which takes less than half the time where the processor
            multiplies it natively (GPUs, CPUs with AMX). Results then depend a little on the processor and, on a GPU, the batch.
        embeds_guidance: the net is told the weight of the guidance (a distilled model), and so is asked but once.
        drop_prompt, drop_all: probabilities that training hides the rest of a clip, and that with its text, for guidance.
    """

    n_symbols: int = 2546
    mel: MelConfig = F5_24K
    mel_mean: float = 0.0
    mel_std: float = 1.0
    dim: int = 320
    depth: int = 9
    heads: int = 5
    head_channels: int = 64
    ff_mult: int = 2
    dropout: float = 0.1
    text_dim: int = 256
    conv_layers: int = 4
    text_mask_padding: bool = True
    average_upsampling: bool = False
    rotated_heads: int | None = None
    qk_norm: bool = False
    long_skip: bool = False
    between: tuple[int, ...] = ()
    token_bytes: tuple[int, ...] | None = None
    durations: str = "bytes"
    duration_channels: int = 128
    precision: str = "fp32"
    embeds_guidance: bool = False
    mask: tuple[float, float] = (0.7, 1.0)
    drop_prompt: float = 0.3
    drop_all: float = 0.2

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(f"F5Config.{name} = {getattr(self, name)}", "use 1 or more")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"F5Config.{name} = {getattr(self, name)}", "use a probability below 1")
        if self.conv_layers < 0:
            raise ConfigError(f"F5Config.conv_layers = {self.conv_layers}", "use 0 or more")
        if self.dim % _CONV_GROUPS or self.head_channels % 2 or self.text_dim % 2:
            raise ConfigError(
                f"F5Config: dim {self.dim}, head_channels {self.head_channels}, text_dim {self.text_dim}",
                f"dim must be a multiple of {_CONV_GROUPS}, the others even",
            )
        if self.rotated_heads is not None and not 0 <= self.rotated_heads <= self.heads:
            raise ConfigError(f"F5Config.rotated_heads = {self.rotated_heads}", f"use 0 to {self.heads}, or null")
        if self.average_upsampling and not self.text_mask_padding:
            raise ConfigError(
                "F5Config: average_upsampling without text_mask_padding", "set text_mask_padding, as its models have it"
            )
        if self.durations not in ("bytes", "learnt", "aligned"):
            raise ConfigError(f"F5Config.durations = {self.durations!r}", "use one of: bytes, learnt, aligned")
        if self.durations == "aligned" and self.average_upsampling:
            raise ConfigError(
                "F5Config: aligned durations with average_upsampling", "tokens are spread once: use one of them"
            )
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"F5Config.precision = {self.precision!r}", "use one of: fp32, bf16")
        if len(self.mask) != 2 or not 0 < self.mask[0] <= self.mask[1] <= 1:
            raise ConfigError(f"F5Config.mask = {self.mask}", "give a least and a greatest share, above 0 and up to 1")
        if any(not 0 <= token < self.n_symbols for token in self.between):
            raise ConfigError(f"F5Config.between = {self.between}", f"use tokens below {self.n_symbols}")
        if self.token_bytes is not None and (
            len(self.token_bytes) != self.n_symbols or any(count < 0 for count in self.token_bytes)
        ):
            raise ConfigError(
                f"F5Config.token_bytes: {len(self.token_bytes)} numbers for {self.n_symbols} tokens",
                "give one of 0 or more for each token",
            )
        if not self.mel_std > 0:
            raise ConfigError(f"mel_std = {self.mel_std}", "use the standard deviation of the training data's log-mel")

    @classmethod
    def published(cls) -> F5Config:
        """Return the published v1 base model: 337 M parameters, characters and pinyin of English and Chinese."""
        return cls(dim=1024, depth=22, heads=16, text_dim=512)

    @classmethod
    def published_small(cls) -> F5Config:
        """Return the published v1 small model: 159 M parameters."""
        return replace(cls.published(), dim=768, depth=18, heads=12)

    def first_generation(self) -> F5Config:
        """Return the same sizes as F5-TTS had before v1: positions for one head, text blocks that see padding."""
        return replace(self, text_mask_padding=False, rotated_heads=1)

    @classmethod
    def debug(cls) -> F5Config:
        """Return a model that trains in seconds on a CPU."""
        return cls(
            n_symbols=24,
            mel=MelConfig(),
            dim=32,
            depth=2,
            heads=2,
            head_channels=16,
            text_dim=16,
            conv_layers=2,
            duration_channels=16,
        )
