"""ZipVoice's two nets: the text encoder, and the velocity net with its guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.zipvoice.config import ZipVoiceConfig
from flowtts_core.flow.guidance import Guidance
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.zipformer import LayerSizes, Zipformer

SPEECH_KEPT_UNTIL = 0.5  # the flow time up to which guidance goes away from what the prompt alone would give


@dataclass(frozen=True)
class Given:
    """What a velocity is conditioned on, frame by frame; nothing beyond `lengths`."""

    text: Tensor  # [B, T, M]
    speech: Tensor  # [B, T, M], 0 where it is to be predicted
    lengths: Tensor | None  # [B]; None where nothing is padded


def text_net(config: ZipVoiceConfig) -> Zipformer:
    """Return the net from embedded tokens to what each of them says."""
    return Zipformer(
        config.text_dim,
        config.mel.rows,
        _sizes(config, config.encoder_dim, config.encoder_feed_forward, config.encoder_heads),
        factors=(1,),
        layers=(config.encoder_layers,),
        kernels=(config.encoder_kernel,),
        dropout=config.dropout,
    )


def with_pad(tokens: Tensor, lengths: Tensor, pad: int) -> Tensor:
    """Return tokens [B, L + 1]: at least one of padding follows each item's last."""
    tokens = nn.functional.pad(tokens, (0, 1))
    return torch.where(length_mask(lengths, tokens.shape[1]), tokens, pad)


def spread(encoded: Tensor, token_lengths: Tensor, frame_lengths: Tensor, frames: int) -> Tensor:
    """Give each of an item's tokens equally many whole frames, and those that are left over to its token of padding.

    Args:
        encoded: [B, L + 1, M] of tokens with their padding.
        frames: T of the [B, T, M] that it returns.
    """
    each = (frame_lengths // token_lengths)[:, None]
    places = torch.arange(frames, device=encoded.device)[None] // each.clamp(min=1)
    places = torch.where(each > 0, places, token_lengths[:, None]).minimum(token_lengths[:, None])
    return encoded.gather(1, places.unsqueeze(2).expand(-1, -1, encoded.shape[2]))


class VelocityNet(Zipformer):
    """Where noisy frames go, from them and what is given. A distilled one is told the guidance."""

    def __init__(self, config: ZipVoiceConfig) -> None:
        super().__init__(
            3 * config.mel.rows,
            config.mel.rows,
            _sizes(config, config.decoder_dim, config.decoder_feed_forward, config.decoder_heads),
            factors=config.decoder_factors,
            layers=config.decoder_layers,
            kernels=config.decoder_kernels,
            time_dim=config.time_dim,
            guidance_dim=config.guidance_dim if config.embeds_guidance else None,
            dropout=config.dropout,
        )

    def velocity(self, x: Tensor, t: Tensor, given: Given, guidance: Tensor | None = None) -> Tensor:
        """Return velocities [B, T, M] at times [B] or [1]; `guidance` is what the net is told of it."""
        return self(torch.cat([x, given.text, given.speech], 2), given.lengths, t, guidance)

    def guided(self, x: Tensor, t: Tensor, given: Given, guidance: Guidance) -> Tensor:
        """Return velocities at times [B] or [1], away from those without the text, in one call of twice the batch.

        From `SPEECH_KEPT_UNTIL` on they go away from those without the prompt too.
        """
        weight = guidance.at(t)
        if not bool(weight.any()):
            return self.velocity(x, t, given)
        keeps = (t <= SPEECH_KEPT_UNTIL)[:, None, None]
        without = Given(torch.zeros_like(given.text), given.speech * keeps, given.lengths)
        both = Given(
            torch.cat([without.text, given.text]),
            torch.cat([without.speech, given.speech]),
            None if given.lengths is None else given.lengths.repeat(2),
        )
        times = t if len(t) == 1 else t.repeat(2)
        unconditional, conditional = self.velocity(x.repeat(2, 1, 1), times, both).chunk(2)
        return conditional + weight[:, None, None] * (conditional - unconditional)


def drop_text(given: Given, kept: Tensor) -> Given:
    """Take the text away from items where `kept` [B] is 0."""
    return replace(given, text=given.text * kept[:, None, None].to(given.text.dtype))


def _sizes(config: ZipVoiceConfig, dim: int, feed_forward: int, heads: int) -> LayerSizes:
    return LayerSizes(
        dim, feed_forward, heads, config.query_dim, config.value_dim, config.position_dim, config.positions_dim
    )
