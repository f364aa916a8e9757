"""Frames of codes that were lost on their way: the last one is repeated, and its sound fades until codes come again."""

from __future__ import annotations

import torch
from torch import Tensor

LOST = -1  # in place of a code; a frame of which any code is lost is lost
FADE_S = 0.06  # from full to nothing: a repeated frame sounds like speech for that long, and then like a buzz


def lose(codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return codes [B, Q, T] of which a share of the frames, drawn one by one, is lost."""
    gone = torch.rand(codes.shape[0], 1, codes.shape[2], generator=generator) < share
    return codes.masked_fill(gone.to(codes.device), LOST)


class Concealment:
    """Fills the gaps in one stream of codes, and fades the sound of what filled them.

    Args:
        hop_length: samples of a frame.
        fade_frames: how many frames a gap takes to become silent. The first frame behind it is faded in.
    """

    def __init__(self, hop_length: int, fade_frames: float) -> None:
        self.hop_length, self._step = hop_length, 1 / fade_frames
        self._last: Tensor | None = None  # [B, Q]
        self._edges: Tensor | None = (
            None  # [B, E]: gains where frames meet, from the first frame that is not played whole
        )
        self._played = 0  # samples of that frame

    def filled(self, codes: Tensor) -> Tensor:
        """Return the next codes [B, Q, T] of the stream, without gaps; at its start, where there is nothing to repeat, code 0."""
        gone = (codes == LOST).any(1)
        if self._last is None or self._edges is None:
            self._last = torch.zeros_like(codes[..., :0]).sum(-1)
            begins_lost = gone[:, :1].any(1)
            self._edges = (~begins_lost)[:, None].float()
        filled, edges = [], [self._edges]
        for lost, frame in zip(gone.unbind(1), codes.unbind(2), strict=True):
            self._last = torch.where(lost[:, None], self._last, frame)
            filled.append(self._last)
            edges.append(torch.where(lost[:, None], (edges[-1][:, -1:] - self._step).clamp(min=0), 1.0))
        self._edges = torch.cat(edges, 1)
        return torch.stack(filled, 2) if filled else codes

    def faded(self, sound: Tensor) -> Tensor:
        """Return the next samples [B, C, S] of the stream, each with the gain of its place; unchanged where nothing is lost."""
        if self._edges is None or not sound.shape[-1]:
            return sound
        place = self._played + torch.arange(sound.shape[-1], device=sound.device)
        frame, within = place // self.hop_length, (place % self.hop_length) / self.hop_length
        before, after = self._edges[:, frame], self._edges[:, frame + 1]
        whole = (self._played + sound.shape[-1]) // self.hop_length
        self._played += sound.shape[-1] - whole * self.hop_length
        self._edges = self._edges[:, whole:]
        if bool((before == 1).all() and (after == 1).all()):
            return sound
        return sound * torch.lerp(before, after, within)[:, None]
