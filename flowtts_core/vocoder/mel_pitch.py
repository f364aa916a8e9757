"""Pitch from a mel alone, for vocoders that build on it where the acoustic model tells none.

A small network says how likely each of a row of pitches is, frame by frame, and the mean around the likeliest is taken, as
CREPE does of waveforms (Kim et al. 2018, arXiv 1802.06182, section 2.2). It learns from the rows of `audio/pitch.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowtts_core.audio.pitch import HIGH_HZ, LOW_HZ, MIDDLE_HZ, SCALE
from flowtts_core.nn.convnext import PAD
from flowtts_core.vocoder.vocos import VocosBackbone

_DIM, _INTERMEDIATE, _LAYERS = 96, 288, 3
CONTEXT = PAD * (_LAYERS + 1)  # frames to either side that a pitch depends on
_STEP = SCALE * math.log(2) / 60  # between pitches, in units of the row: 20 cents
_LOWEST = SCALE * math.log(LOW_HZ / MIDDLE_HZ)
_PITCHES = math.ceil((SCALE * math.log(HIGH_HZ / MIDDLE_HZ) - _LOWEST) / _STEP) + 1
_BLUR = 1.25  # standard deviation of the target, in steps
_NEAR = 4  # steps to either side of the likeliest that its mean takes in


class MelPitch(nn.Module):
    """Log-mels [B, M, T] to scores [B, T, P] of pitches; `row_of` makes the row of pitch of them."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.backbone = VocosBackbone(n_mels, _DIM, _INTERMEDIATE, _LAYERS)
        self.out = nn.Linear(_DIM, _PITCHES)
        nn.init.zeros_(self.out.bias)
        places = _LOWEST + _STEP * torch.arange(_PITCHES, dtype=torch.float32)
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        scores: Tensor = self.out(self.backbone(mel, mask)).float()
        return scores

    def row_of(self, scores: Tensor) -> Tensor:
        """Return the row of pitch [B, 1, T] of scores."""
        best = scores.argmax(2, keepdim=True)
        far = (torch.arange(_PITCHES, device=scores.device) - best).abs() > _NEAR
        likely = scores.masked_fill(far, -torch.inf).softmax(2)
        return (likely @ self.places)[:, None]

    def loss(self, scores: Tensor, row: Tensor) -> Tensor:
        """Return the mean cross-entropy of scores against rows of pitch [B, T], each blurred over its neighbours."""
        distance = (row[:, :, None].clamp(self.places[0], self.places[-1]) - self.places) / (_STEP * _BLUR)
        target = (-0.5 * distance.square()).softmax(2)
        return -(target * scores.log_softmax(2)).sum(2).mean()
