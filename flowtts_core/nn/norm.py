"""Normalisations of [B, T, C] activations that can be told where an item ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.masks import length_mask


class ChannelNorm(nn.Module):
    """Layer norm over channels with parameters named `gamma` and `beta`, as Glow-TTS and Matcha-TTS name them."""

    def __init__(self, channels: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gamma.shape, self.gamma, self.beta, self.eps)


class BlockNorm(nn.Module):
    """Group norm over time and groups of channels ("group"), or layer norm of each frame ("layer"); same parameters."""

    def __init__(self, channels: int, kind: str, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        self.kind, self.groups, self.eps = kind, groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalise [B, T, C]; group statistics run over the first `lengths[b]` frames (None: over all)."""
        if self.kind == "layer":
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        if lengths is None:
            image = x.transpose(1, 2).unsqueeze(2)
            return F.group_norm(image, self.groups, self.weight, self.bias, self.eps).squeeze(2).transpose(1, 2)
        return self._masked(x, lengths)

    def _masked(self, x: Tensor, lengths: Tensor) -> Tensor:
        batch, time, channels = x.shape
        grouped = x.float().reshape(batch, time, self.groups, -1)
        mask = length_mask(lengths, time)[:, :, None, None].float()
        count = (lengths * (channels // self.groups)).clamp(min=1).float()[:, None, None, None]
        mean = (grouped * mask).sum((1, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred.square() * mask).sum((1, 3), keepdim=True) / count
        normalised = (centred * torch.rsqrt(variance + self.eps)).reshape(batch, time, channels)
        return (normalised * self.weight + self.bias).to(x.dtype)
