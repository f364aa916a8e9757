"""Speech from tokens: a language model says which (the coarse), a flow makes mel frames of them (the fine), as a clip sounds.

The hybrid of CosyVoice (Du et al. 2024, arXiv 2407.05407, 2412.10117) at a size that two cores train. The speaker's vector comes
from a small encoder that is trained with the flow; published ones use that of a recogniser of speakers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from flowtts_core.acoustic.base import AcousticBatch, AcousticModel, Condition, FlowBatch, Generated
from flowtts_core.acoustic.cosyvoice.decoder import GUIDANCE, DecoderCondition, FlowDecoder
from flowtts_core.acoustic.cosyvoice.net import FlowDecoderConfig
from flowtts_core.acoustic.infilling import piece_of
from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import LinearPath
from flowtts_core.lm.text_to_tokens import Drawing, TextToTokens, TextToTokensConfig
from flowtts_core.lm.transformer import TransformerConfig
from flowtts_core.nn.conv import CausalTimeConv, TimeConv
from flowtts_core.nn.convnext import CausalConvNeXtBlock
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import rows_of
from flowtts_core.sampling import Sampling

LOOK_AHEAD = 3  # speech tokens beyond a frame's own that its mean depends on, as published
TRIES = 3  # how often a text is drawn whose tokens do not end
_SIGMA_MIN = 1e-6  # as published
_HEARD = (0.3, 0.7)  # least and most of a clip that the speaker's vector is made of in training


@dataclass(frozen=True)
class CosyVoiceConfig:
    """Sizes of a `CosyVoice`.

    Attributes:
        mel: of the features; `mel_mean` and `mel_std` normalise them.
        n_symbols: of the front end.
        codes: number of speech tokens; `token_rate` of them a second.
        tokeniser: names what made them, see `tokenizer_fingerprint`.
        language_model, decoder: its two halves.
        token_width, token_layers: of the net between tokens and the decoder.
        speaker: width of the speaker's vector; `speaker_width` of the net that makes it.
        dropped: share of the items that learn to do without any condition.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    mel_mean: float = 0.0
    mel_std: float = 1.0
    n_symbols: int = 178
    codes: int = 1000
    token_rate: int = 25
    tokeniser: str = ""
    language_model: TextToTokensConfig = field(default_factory=TextToTokensConfig)
    decoder: FlowDecoderConfig = field(
        default_factory=lambda: FlowDecoderConfig(channels=(192,), blocks=1, middle=4, heads=3, chunk=48)
    )
    token_width: int = 192
    token_layers: int = 3
    speaker: int = 64
    speaker_width: int = 128
    dropped: float = 0.2

    def __post_init__(self) -> None:
        sizes = (self.codes, self.token_rate, self.token_width, self.token_layers, self.speaker, self.speaker_width)
        if min(sizes) < 1 or not 0 <= self.dropped < 1 or self.mel_std <= 0:
            raise ConfigError(f"CosyVoiceConfig: sizes {sizes}, dropped {self.dropped}, mel_std {self.mel_std}")
        if not self.decoder.causal:
            raise ConfigError("CosyVoiceConfig.decoder.causal = False", "a decoder that sees ahead cannot stream")

    @staticmethod
    def debug() -> CosyVoiceConfig:
        """Return a model of seconds."""
        small = TransformerConfig(width=16, layers=1, heads=2, key_value_heads=2, inner=32)
        return CosyVoiceConfig(
            codes=12,
            language_model=TextToTokensConfig(small),
            decoder=FlowDecoderConfig(channels=(16,), blocks=1, middle=1, heads=2, head_channels=8, chunk=16),
            token_width=16,
            token_layers=1,
            speaker=8,
            speaker_width=16,
        )


@dataclass(frozen=True)
class SpokenBatch(AcousticBatch):
    """An `AcousticBatch` with the speech tokens of its recordings."""

    codes: Tensor | None = None  # [B, N] int64, 0 beyond `code_lengths`
    code_lengths: Tensor | None = None  # [B]


class SpeakerEncoder(nn.Module):
    """Frames of a clip to one vector of length 1 that says who speaks: convolutions, and the mean over time."""

    def __init__(self, mels: int, width: int, out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList((TimeConv(mels, width, 5), TimeConv(width, width, 5), TimeConv(width, width, 5)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.convs)
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """Return [B, D] of frames [B, T, M], of which those are heard where [B, T] is True."""
        mask = heard[:, :, None].float()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x * mask)))
        return F.normalize(self.out((x * mask).sum(1) / mask.sum(1).clamp(min=1)), dim=1)


class TokenMeans(nn.Module):
    """Speech tokens to what the decoder reads of each, [B, N] -> [B, N, M]; it sees `LOOK_AHEAD` tokens ahead."""

    def __init__(self, codes: int, width: int, layers: int, mels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(codes, width)
        self.ahead = CausalTimeConv(width, width, LOOK_AHEAD + 1)
        self.blocks = nn.ModuleList(CausalConvNeXtBlock(width, 3 * width, 0.2) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, mels)

    def forward(self, codes: Tensor, lengths: Tensor) -> Tensor:
        x = self.embed(codes) * length_mask(lengths, codes.shape[1])[:, :, None]
        x = x + self.ahead(F.pad(x, (0, 0, 0, LOOK_AHEAD)))[:, LOOK_AHEAD:]
        for block in self.blocks:
            x = block(x.transpose(1, 2)).transpose(1, 2)
        return self.out(self.norm(x))


class Draft:
    """One utterance: its tokens as they are drawn, and the noise of its frames.

    Args:
        symbols: [L]; speaker: [1, D].
        seed: of tokens and noise.
        speed: 2.0 speaks twice as fast.

    Attributes:
        draws: by which its tokens are drawn.
        tries: how often they were begun.
    """

    def __init__(self, model: CosyVoice, symbols: Tensor, speaker: Tensor, seed: int, speed: float) -> None:
        self.model, self.symbols, self.speaker, self.speed = model, symbols, speaker, speed
        self.draws, self.tries = torch.Generator().manual_seed(seed), 0
        self._noise, self._noises = torch.Generator().manual_seed(seed), list[Tensor]()

    def begin(self, drawing: Drawing | None = None, row: int = 0) -> None:
        """Begin to draw its tokens: alone, or as a row of a drawing of several."""
        self._drawing = drawing or self.model.lm.draw([self.symbols], self.speaker, [self.draws])
        self._row, self.tries = row, self.tries + 1

    @property
    def codes(self) -> list[int]:
        """Return the tokens drawn so far."""
        return self._drawing.codes[self._row]

    @property
    def ended(self) -> bool:
        """Whether all tokens are drawn."""
        return self._drawing.ended[self._row]

    def draw(self, count: int | None = None, heard: bool = False) -> None:
        """Draw tokens until there are so many, or all. Tokens that do not end are drawn again, a few times.

        Args:
            heard: whether somebody has heard the first ones, which then must stay.

        Raises:
            FlowTTSError: where they do not end.
        """
        while True:
            while not self.ended and (count is None or len(self.codes) < count):
                self._drawing.step()
            if not self._drawing.endless[self._row]:
                return
            if heard or self.tries == TRIES:
                raise FlowTTSError(
                    f"the language model found no end: {len(self.codes)} tokens for {len(self.symbols)} symbols",
                    "ask again with another seed, or in shorter sentences",
                )
            self.begin()  # its generator goes on: other tokens

    def noise(self, frames: int) -> Tensor:
        """Return noise [1, frames, M]: the first frames of it are the same for any number of them."""
        chunk = self.model.config.decoder.chunk
        while len(self._noises) * chunk < frames:
            self._noises.append(torch.randn(chunk, self.model.features.rows, generator=self._noise))
        return torch.cat(self._noises)[None, :frames].to(self.speaker)

    def frames_known(self) -> int:
        """Return how many frames the tokens drawn so far decide."""
        if self.ended:
            return self.model.frames_of(len(self.codes), self.speed)
        return self.model.frames_of(max(0, len(self.codes) - LOOK_AHEAD), self.speed)

    def tokens_for(self, frames: int) -> int:
        """Return how many tokens decide so many frames."""
        return self.model.token_at(frames - 1, self.speed) + 1 + LOOK_AHEAD


class CosyVoice(AcousticModel):
    """The model: prompts tell who speaks. It is trained on batches with speech tokens, `SpokenBatch`."""

    n_speakers, guided, prompted = 1, True, "required"

    def __init__(self, config: CosyVoiceConfig) -> None:
        super().__init__()
        self.config, self.features, self.n_symbols = config, config.mel, config.n_symbols
        mels = config.mel.rows
        self.lm = TextToTokens(config.language_model, config.n_symbols, config.codes, config.speaker)
        self.speaker_encoder = SpeakerEncoder(mels, config.speaker_width, config.speaker)
        self.to_mels = nn.Linear(config.speaker, mels)
        self.means = TokenMeans(config.codes, config.token_width, config.token_layers, mels)
        self.decoder = FlowDecoder(replace(config.decoder, mels=mels))

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=8, temperature=1.0, guidance=GUIDANCE, grid={"name": "sway", "s": -1.0})

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Losses "lm", cross entropy of the tokens, and "flow", squared error of velocities, with their sum "loss".

        The speaker's vector is made of a piece of each clip; the language model's loss does not train it, lest it tell words.
        """
        assert isinstance(batch, SpokenBatch) and batch.codes is not None and batch.code_lengths is not None
        device, frames, lengths = batch.mel.device, batch.mel.shape[2], batch.mel_lengths
        count, rows = rows_of(batch.share, len(lengths))
        share, place, when, known = torch.rand(4, count, generator=generator)[:, rows].to(device)
        noise = torch.randn(count, frames, self.features.rows, generator=generator)[rows].to(device)
        valid = length_mask(lengths, frames)
        mel = self._normalised(batch.mel.transpose(1, 2)) * valid[:, :, None]
        heard = piece_of(lengths, frames, _HEARD[0] + (_HEARD[1] - _HEARD[0]) * share, place)
        speaker = self.speaker_encoder(mel, heard)
        said = zip(batch.condition.tokens, batch.condition.token_lengths.tolist(), strict=True)
        tokens = [self.symbols_of(own[:size]) for own, size in said]
        lm = self.lm.loss(tokens, speaker.detach(), batch.codes, batch.code_lengths, generator, batch.share)
        mean = self._laid_out(batch.codes, batch.code_lengths, frames, 1.0)
        given = DecoderCondition(mean, self.to_mels(speaker), torch.zeros_like(mel), lengths)
        t = 1 - torch.cos(when * math.pi / 2)  # as published: times are learnt as often as they are sampled
        point = LinearPath(_SIGMA_MIN).sample(noise, mel, t)
        velocity = self.decoder.velocity(point.x_t, t, given.dropped(known < self.config.dropped), chunked=True)
        flow = FlowBatch(noise, mel, valid[:, :, None].float(), given).mean_square(
            velocity, point.velocity, batch.share
        )
        return {"loss": lm + flow, "lm": lm, "flow": flow}

    def _normalised(self, mel: Tensor) -> Tensor:
        return (mel.float() - self.config.mel_mean) / self.config.mel_std

    def symbols_of(self, tokens: Tensor) -> Tensor:
        """Return the tokens of a text [L] without blanks, of which a language model needs none."""
        return tokens[tokens != 0]

    def _laid_out(self, codes: Tensor, lengths: Tensor, frames: int, speed: float) -> Tensor:
        """Return what the decoder reads of the tokens at each frame, [B, T, M]."""
        at = self._tokens_at(torch.arange(frames, device=codes.device), speed)
        at = at[None].minimum((lengths - 1)[:, None])
        means: Tensor = self.means(codes, lengths)
        return means.gather(1, at[:, :, None].expand(-1, -1, means.shape[2]))

    # --- time: which token a frame belongs to -----------------------------------------------------------------------

    def _tokens_at(self, frames: Tensor, speed: float) -> Tensor:
        return (frames.double() * (self._pace * speed)).floor().long()

    @property
    def _pace(self) -> float:
        """Return the tokens of a frame at speed 1."""
        return self.config.token_rate * self.features.hop_length / self.features.sample_rate

    def token_at(self, frame: int, speed: float) -> int:
        """Return the token that a frame belongs to."""
        return int(self._tokens_at(torch.tensor(frame), speed))

    def frames_of(self, tokens: int, speed: float) -> int:
        """Return how many frames belong to the first so many tokens."""
        return math.ceil(tokens / (self._pace * speed) - 1e-9)

    # --- generation -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def draft(self, item: Condition, seed: int, speed: float) -> Draft:
        """Begin one item (a batch of 1): who speaks is heard, the text is read, and no token is drawn yet.

        Raises:
            FlowTTSError: without a prompt, or for a text that the language model does not read.
        """
        draft = self._heard(item, seed, speed)
        draft.begin()
        return draft

    def _heard(self, item: Condition, seed: int, speed: float) -> Draft:
        prompt = item.prompt
        if prompt is None or not prompt.features.shape[1]:
            raise FlowTTSError("this model speaks as a prompt does", "give a prompt: a clip of a few seconds")
        heard = torch.ones(prompt.features.shape[:2], dtype=torch.bool, device=prompt.features.device)
        speaker = self.speaker_encoder(self._normalised(prompt.features), heard)
        return Draft(self, self.symbols_of(item.tokens[0]), speaker, seed, speed)

    @torch.inference_mode()
    def drafts(self, condition: Condition, seeds: Sequence[int], speed: float, together: bool) -> list[Draft]:
        """Begin items as `draft` does; their tokens are drawn together, or each item's apart."""
        drafts = [self._heard(condition.item(row), seed, speed) for row, seed in enumerate(seeds)]
        drawing = None
        if together:
            speakers = torch.cat([draft.speaker for draft in drafts])
            drawing = self.lm.draw([d.symbols for d in drafts], speakers, [d.draws for d in drafts])
        for row, draft in enumerate(drafts):
            draft.begin(drawing, row if together else 0)
        return drafts

    @torch.inference_mode()
    def decode(self, draft: Draft, frames: int, settings: Sampling) -> Tensor:
        """Return the first frames [M, frames] of an utterance whose tokens are drawn so far: whole chunks, or all frames.

        They are those of the whole, whatever comes after.
        """
        codes = torch.tensor([draft.codes], device=draft.speaker.device)
        lengths = codes.new_tensor([codes.shape[1]])
        mean = self._laid_out(codes, lengths, frames, draft.speed)
        sizes = codes.new_tensor([frames])
        condition = DecoderCondition(mean, self.to_mels(draft.speaker), torch.zeros_like(mean), sizes)
        made = self.decoder.solve(condition, draft.noise(frames) * settings.temperature, settings)
        return (made[0] * self.config.mel_std + self.config.mel_mean).T

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        """Sample features. A GPU draws tokens of all items together; a CPU gains little by that, and draws them apart.

        So there no rounding that a batch changes turns one token into another.
        """
        mels, notes = [], []
        for draft in self.drafts(condition, seeds, settings.speed, condition.tokens.is_cuda):
            draft.draw()
            mels.append(self.decode(draft, draft.frames_known(), settings).T)
            again = draft.tries - 1
            notes.append((f"found no end {again} time{'s' * (again > 1)}, and was drawn again",) if again else ())
        lengths = torch.tensor([len(mel) for mel in mels], device=condition.tokens.device)
        return Generated(pad_sequence(mels, batch_first=True).transpose(1, 2), lengths, notes=tuple(notes))
