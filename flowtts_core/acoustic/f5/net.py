"""F5-TTS's net: noisy mel, the known frames and the text, side by side, through a diffusion transformer to a velocity.

Shapes: B items, T frames, M mel bands, C channels. Its state dict has the published names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.nn.dit import ConvPositions, DiTBlock, FinalModulation, RotaryPositions, TimeEmbedding, only
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.time_embedding import sinusoidal_embedding

_SINUSOIDS = 256  # of a weight of guidance, as of a time


@dataclass(frozen=True)
class Frames:
    """Which frames of a batch are an item's own.

    Attributes:
        valid: [B, T, 1] bool; None where all are.
        shown: [B, 1, 1, T] bool, what attention sees; None for all.
        apart: the text's norms run over each item's own frames. The published code runs them over the whole batch's.
    """

    valid: Tensor | None = None
    shown: Tensor | None = None
    apart: bool = True

    def twice(self) -> Frames:
        """Return the frames of the batch and the same batch again."""
        valid, shown = (None if part is None else torch.cat((part, part)) for part in (self.valid, self.shown))
        return Frames(valid, shown, self.apart)


def true_frames(lengths: Tensor, time: int) -> Frames:
    """Return frames of which padding is never seen: what an item would be alone."""
    valid = length_mask(lengths, time)
    return Frames(valid.unsqueeze(2), valid[:, None, None])


def published_frames(lengths: Tensor, time: int, attention_mask: bool = False) -> Frames:
    """Return frames as the published code takes a batch: norms, and attention without its mask, see padding."""
    valid = length_mask(lengths, time)
    return Frames(valid.unsqueeze(2), valid[:, None, None] if attention_mask else None, apart=False)


class ResponseNorm(nn.Module):
    """Global response normalisation over time (ConvNeXt V2, arXiv 2301.00808): channels that respond strongly are raised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        response = torch.linalg.vector_norm(only(x, valid).float(), dim=1, keepdim=True)
        relative = response / (response.mean(2, keepdim=True) + 1e-6)
        return self.gamma * (x * relative.to(x.dtype)) + self.beta + x


class TextBlock(nn.Module):
    """A ConvNeXt V2 block over time."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, inner)
        self.grn = ResponseNorm(inner)
        self.pwconv2 = nn.Linear(inner, channels)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        hidden = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        hidden = self.grn(F.gelu(self.pwconv1(hidden)), valid)
        return x + self.pwconv2(hidden)


class TextEmbedding(nn.Module):
    """Tokens, one a frame from the first frame on and 0 after the last, as vectors for each frame."""

    def __init__(self, config: F5Config) -> None:
        super().__init__()
        self.mask_padding, self.average_upsampling = config.text_mask_padding, config.average_upsampling
        self.text_embed = nn.Embedding(config.n_symbols, config.text_dim)
        self.text_blocks = nn.ModuleList(
            TextBlock(config.text_dim, 2 * config.text_dim) for _ in range(config.conv_layers)
        )

    def forward(self, tokens: Tensor, frames: Frames, hidden: Tensor | None = None) -> Tensor:
        """Embed tokens [B, T] as [B, T, C].

        Args:
            hidden: [B] bool, items whose text is not to be known. Where it was stays known, as in the published code.
        """
        said = (tokens != 0).unsqueeze(2)
        if frames.valid is not None:
            said = said & frames.valid
            tokens = tokens * frames.valid.squeeze(2)
        x = self.text_embed(tokens if hidden is None else tokens.masked_fill(hidden[:, None], 0))
        if len(self.text_blocks):
            x = self._mixed(only(x + self._positions(x), frames.valid), said, frames)
        else:
            x = only(x, frames.valid)
        return self._spread(x, said.squeeze(2), frames) if self.average_upsampling else x

    def _mixed(self, x: Tensor, said: Tensor, frames: Frames) -> Tensor:
        own = frames.valid if frames.apart else None
        kept = said if self.mask_padding else own
        for block in self.text_blocks:
            x = block(only(x, kept), own)
        return only(x, kept)

    @staticmethod
    def _positions(x: Tensor) -> Tensor:
        """Cosines, then sines, of each frame's place: [T, C]."""
        _, time, width = x.shape
        frequency = 10000.0 ** -(torch.arange(0, width, 2, device=x.device).float() / width)
        angle = torch.arange(time, device=x.device).float()[:, None] * frequency
        return torch.cat((angle.cos(), angle.sin()), 1)

    @staticmethod
    def _spread(x: Tensor, said: Tensor, frames: Frames) -> Tensor:
        """Give each token of an item as many frames as the others; the last ones take what does not divide."""
        count = said.sum(1, keepdim=True)
        time = x.shape[1]
        ends = torch.full_like(count, time) if frames.valid is None else frames.valid.squeeze(2).sum(1, keepdim=True)
        each, rest = ends // count.clamp(min=1), ends % count.clamp(min=1)
        place = torch.arange(time, device=x.device)[None]
        short = (count - rest) * each  # frames of those tokens that take no more than `each`
        token = torch.where(
            place < short, place // each.clamp(min=1), (count - rest) + (place - short) // (each + 1)
        ).clamp(max=time - 1)
        spread = x.gather(1, token.unsqueeze(2).expand_as(x))
        return spread * ((place < ends) & (count > 0)).unsqueeze(2).to(x.dtype)


class InputEmbedding(nn.Module):
    """Noisy mel, known frames and text, side by side."""

    def __init__(self, config: F5Config) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * config.mel.rows + config.text_dim, config.dim)
        self.conv_pos_embed = ConvPositions(config.dim)

    def forward(self, x: Tensor, known: Tensor, text: Tensor, valid: Tensor | None) -> Tensor:
        mixed = self.proj(torch.cat((x, known, text), 2))
        return self.conv_pos_embed(mixed, valid) + mixed


class DiT(nn.Module):
    """The transformer; `forward` is the velocity, and `text_embed` what it is to be given of a text."""

    def __init__(self, config: F5Config) -> None:
        super().__init__()
        self.time_embed = TimeEmbedding(config.dim)
        if config.embeds_guidance:
            self.guidance_embed = nn.Linear(_SINUSOIDS, config.dim, bias=False)
            nn.init.zeros_(self.guidance_embed.weight)  # a student begins as its teacher
        self.text_embed = TextEmbedding(config)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryPositions(config.head_channels)
        self.transformer_blocks = nn.ModuleList(
            DiTBlock(
                config.dim,
                config.heads,
                config.head_channels,
                config.ff_mult,
                config.dropout,
                config.rotated_heads,
                config.qk_norm,
            )
            for _ in range(config.depth)
        )
        self.long_skip_connection = nn.Linear(2 * config.dim, config.dim, bias=False) if config.long_skip else None
        self.norm_out = FinalModulation(config.dim)
        self.proj_out = nn.Linear(config.dim, config.mel.rows)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self, x: Tensor, t: Tensor, known: Tensor, text: Tensor, frames: Frames, guidance: Tensor | None = None
    ) -> Tensor:
        """Return velocities [B, T, M], float32; so is what passes from block to block, whatever products are made in.

        Args:
            x: [B, T, M] at times t [B], or [1] for all.
            known: [B, T, M] frames that are given, 0 where there are none.
            text: [B, T, C] of `text_embed`.
            guidance: weights [B], or [1] for all, of a net that embeds them.
        """
        time, angles = self.time_embed(t), self.rotary_embed(x.shape[1])
        if guidance is not None:
            time = time + self.guidance_embed(sinusoidal_embedding(guidance, _SINUSOIDS))
        x = first = self.input_embed(x, known, text, frames.valid).float()
        for block in self.transformer_blocks:
            x = block(x, time, angles, frames.valid, frames.shown)
        if self.long_skip_connection is not None:
            x = self.long_skip_connection(torch.cat((x, first), 2))
        velocity: Tensor = self.proj_out(self.norm_out.applied(x, time)).float()
        return velocity
