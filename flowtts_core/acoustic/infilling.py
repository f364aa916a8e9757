"""Infilling: which frames of a recording a model is to predict from the others, as Voicebox, F5-TTS and ZipVoice train."""

from __future__ import annotations

import torch
from torch import Tensor


def infilling_mask(lengths: Tensor, frames: int, least: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw one piece of each item's frames: True [B, frames] where they are to be predicted.

    Args:
        lengths: [B] frames of the items, on the CPU.
        least: share of an item that the piece has at least; at most it is all of it.
        generator: of the CPU; without one, torch's global one is drawn from.
    """
    share, place = torch.rand(2, len(lengths), generator=generator)
    return piece_of(lengths, frames, least + (1 - least) * share, place)


def piece_of(lengths: Tensor, frames: int, share: Tensor, place: Tensor) -> Tensor:
    """Return True [B, frames] in one piece of each item: a share [B] of it, at a place [B] from 0, its beginning, to 1."""
    size = (share * lengths).long()
    begin = (place * (lengths - size)).long()
    position = torch.arange(frames, device=lengths.device)
    return (position >= begin[:, None]) & (position < (begin + size)[:, None])
