"""Settings of the Matcha-TTS acoustic model."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError

_SIZES = (
    "n_symbols",
    "n_speakers",
    "speaker_channels",
    "encoder_channels",
    "encoder_filter_channels",
    "encoder_layers",
    "encoder_heads",
    "encoder_kernel",
    "duration_channels",
    "duration_kernel",
    "decoder_heads",
    "decoder_head_channels",
)


@dataclass(frozen=True)
class MatchaConfig:
    """Matcha-TTS (arXiv:2309.03199). The defaults are our compact voice; `MatchaConfig.published()` has the paper's sizes.

    Attributes:
        n_symbols: size of the token table, padding included.
        n_speakers, speaker_channels: above one speaker, a learnt vector joins the encoder and the decoder input.
        mel_mean, mel_std: of the training data's log-mel; kept as buffers too, which a checkpoint overrides.
        encoder_dropout, encoder_attention_dropout, prenet_dropout, decoder_dropout: probabilities while training.
        decoder_channels: widths from full to half frame rate; exactly two.
        masking: "true": padding is never seen, by attention, norms, convolutions or losses. "published": the published
            model's result for a single item: attention adds 1 to valid keys, group norms run over the length rounded up to
            a multiple of 4, and prior and flow losses are taken as upstream takes them.
        norm: of decoder blocks, "layer" (each frame by itself) or "group" (over time; published).
        activation: of decoder blocks, "silu" or "mish" (published; 9 times the time of silu on a CPU).
        feed_forward: of decoder transformers, "gelu", "gelu-approximate" (by tanh) or "snakebeta" (published).
        predicts: what the decoder's output is: "velocity" (published), or "data", the clean frames from which the velocity
            follows. A narrow net need not carry the noise through to its output then (arXiv 2511.13720), and a single step
            gives the mean of what may be said without any of it. Training prefers early times then.
        segment_frames: train the flow on a random window of so many frames (None: whole utterances).
        sigma_min: noise left at the end of the path.
    """

    n_symbols: int = 178
    n_speakers: int = 1
    speaker_channels: int = 64
    mel: MelConfig = field(default_factory=MelConfig)
    mel_mean: float = 0.0
    mel_std: float = 1.0
    encoder_channels: int = 144
    encoder_filter_channels: int = 432
    encoder_layers: int = 4
    encoder_heads: int = 2
    encoder_kernel: int = 3
    encoder_dropout: float = 0.1
    encoder_attention_dropout: float = 0.0
    prenet: bool = True
    prenet_dropout: float = 0.5
    duration_channels: int = 144
    duration_kernel: int = 3
    decoder_channels: tuple[int, ...] = (128, 128)
    decoder_blocks: int = 1
    decoder_mid_blocks: int = 1
    decoder_heads: int = 2
    decoder_head_channels: int = 64
    decoder_dropout: float = 0.0
    masking: str = "true"
    norm: str = "layer"
    activation: str = "silu"
    feed_forward: str = "gelu"
    predicts: str = "velocity"
    segment_frames: int | None = 192
    sigma_min: float = 1e-4

    def __post_init__(self) -> None:
        _choose("masking", self.masking, ("true", "published"))
        _choose("predicts", self.predicts, ("velocity", "data"))
        _choose("norm", self.norm, ("layer", "group"))
        _choose("activation", self.activation, ("silu", "mish"))
        _choose("feed_forward", self.feed_forward, ("gelu", "gelu-approximate", "snakebeta"))
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(f"MatchaConfig.{name} = {getattr(self, name)}", "use 1 or more")
        if self.encoder_kernel % 2 == 0 or self.duration_kernel % 2 == 0:
            raise ConfigError(
                f"encoder_kernel = {self.encoder_kernel}, duration_kernel = {self.duration_kernel}", "use odd numbers"
            )
        if len(self.decoder_channels) != 2 or any(width < 8 or width % 8 for width in self.decoder_channels):
            raise ConfigError(f"decoder_channels = {self.decoder_channels}", "give two widths, multiples of 8")
        width = self.encoder_width
        if width % self.encoder_heads or (width // self.encoder_heads) % 4:
            raise ConfigError(
                f"encoder width {width} does not divide into {self.encoder_heads} heads",
                "the width of each head (speaker channels included) must be a multiple of 4",
            )
        if self.segment_frames is not None and (self.segment_frames < 4 or self.segment_frames % 4):
            raise ConfigError(
                f"segment_frames = {self.segment_frames}", "use a multiple of 4, or null for whole utterances"
            )
        if not self.mel_std > 0:
            raise ConfigError(f"mel_std = {self.mel_std}", "use the standard deviation of the training data's log-mel")

    @property
    def encoder_width(self) -> int:
        """Return the channels of the encoder's transformer: with several speakers, the speaker vector included."""
        return self.encoder_channels + (self.speaker_channels if self.n_speakers > 1 else 0)

    @property
    def decoder_input(self) -> int:
        """Return the channels of the decoder's input: noisy mel, prior mean and speaker."""
        return 2 * self.mel.rows + (self.speaker_channels if self.n_speakers > 1 else 0)

    @classmethod
    def published(cls) -> MatchaConfig:
        """Return the published model: 18.2 M parameters, LJSpeech statistics."""
        return cls(
            mel_mean=-5.536622,
            mel_std=2.116101,
            encoder_channels=192,
            encoder_filter_channels=768,
            encoder_layers=6,
            encoder_attention_dropout=0.1,
            duration_channels=256,
            decoder_channels=(256, 256),
            decoder_mid_blocks=2,
            decoder_dropout=0.05,
            masking="published",
            norm="group",
            activation="mish",
            feed_forward="snakebeta",
            segment_frames=None,
        )

    @classmethod
    def debug(cls) -> MatchaConfig:
        """Return a model that trains in seconds on a CPU."""
        return cls(
            n_symbols=24,
            encoder_channels=32,
            encoder_filter_channels=48,
            encoder_layers=2,
            duration_channels=24,
            decoder_channels=(32, 32),
            decoder_mid_blocks=1,
            decoder_head_channels=16,
            segment_frames=None,
        )


def _choose(field_name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"MatchaConfig.{field_name} = {value!r}", f"use one of: {', '.join(choices)}")
