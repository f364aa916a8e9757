"""The network of flows on bands of the complex spectrum: ConvNeXt V2 blocks at the frame rate, whose norms know the band.

Source: Liu and Dai, "RFWave: Multi-band Rectified Flow for Audio Waveform Reconstruction" (arXiv 2403.05010), section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowtts_core.nn.convnext import KERNEL, PAD
from flowtts_core.nn.time_embedding import sinusoidal_embedding

FOURIER = (6, 7)  # powers of two of the frequencies at which noisy coefficients are shown to the network too


class BandNorm(nn.Module):
    """Layer norm of [B, T, D] with the scale and shift of each item's band."""

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Embedding(bands, dim), nn.Embedding(bands, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        normal = nn.functional.layer_norm(x, (self.scale.embedding_dim,), eps=1e-6)
        return normal * self.scale(band)[:, None] + self.shift(band)[:, None]


class ResponseNorm(nn.Module):
    """Response normalisation of [B, T, D] (Woo et al. 2023, arXiv 2301.00808): a channel by its size against the others'.

    Args:
        each_frame: sizes are those of each frame; else, as published, over all of time.
    """

    def __init__(self, dim: int, each_frame: bool) -> None:
        super().__init__()
        self.each_frame = each_frame
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs() if self.each_frame else torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return self.gamma * (x * (size / (size.mean(2, keepdim=True) + 1e-6))) + self.beta + x


class BandBlock(nn.Module):
    """A ConvNeXt V2 block of [B, D, T] whose norm knows the band."""

    def __init__(self, bands: int, dim: int, intermediate_dim: int, frame_norm: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL, padding=PAD, groups=dim)
        self.norm = BandNorm(bands, dim)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.grn = ResponseNorm(intermediate_dim, frame_norm)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        hidden = self.norm(self.dwconv(x).transpose(1, 2), band)
        hidden = self.pwconv2(self.grn(nn.functional.gelu(self.pwconv1(hidden))))
        return x + hidden.transpose(1, 2)


class BandVelocity(nn.Module):
    """Velocities of noisy bands [N, C, T] at times [N], with mels [N, M, T] and numbers of bands [N].

    Args:
        rows: M.
        channels: C.
        bands: how many there are.
        embed_kernel: frames that the first layer sees, odd.
        fourier: sines and cosines of the noisy coefficients are shown too.
        frame_norm: blocks normalise each frame by itself, so that a frame depends on `reach` frames to either side alone.
        skip: the network adds to `average_velocity`, so that a narrow one need not carry the noise through its blocks.
    """

    def __init__(
        self,
        rows: int,
        channels: int,
        bands: int,
        dim: int,
        intermediate_dim: int,
        num_layers: int,
        embed_kernel: int = KERNEL,
        fourier: bool = True,
        frame_norm: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.fourier, self.skip = fourier, skip
        self.reach = embed_kernel // 2 + num_layers * PAD if frame_norm else None
        seen = rows + channels * (1 + 2 * len(FOURIER) * fourier)
        self.embed = nn.Conv1d(seen, dim, embed_kernel, padding=embed_kernel // 2)
        self.norm = BandNorm(bands, dim)
        self.convnext = nn.ModuleList(BandBlock(bands, dim, intermediate_dim, frame_norm) for _ in range(num_layers))
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.time_mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.out = nn.Linear(dim, channels)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, z: Tensor, t: Tensor, mel: Tensor, band: Tensor) -> Tensor:
        x = self.embed(torch.cat([z, mel, *self._waves(z)], 1))
        x = self.norm(x.transpose(1, 2), band).transpose(1, 2)
        time = self.time_mlp(sinusoidal_embedding(t, self.out.in_features))[:, :, None]
        for block in self.convnext:
            x = block(x + time, band)
        velocity: Tensor = self.out(self.final_layer_norm(x.transpose(1, 2))).transpose(1, 2)
        return velocity + average_velocity(z, t) if self.skip else velocity

    def _waves(self, z: Tensor) -> list[Tensor]:
        if not self.fourier:
            return []
        frequency = 2 * math.pi * 2.0 ** torch.tensor(FOURIER, dtype=z.dtype, device=z.device)
        angle = z[:, :, None] * frequency[:, None]  # [N, C, frequencies, T]
        return [torch.stack([angle.sin(), angle.cos()], 3).flatten(1, 3)]


def average_velocity(z: Tensor, t: Tensor) -> Tensor:
    """Return the mean of x_1 - x_0 given `z` = t x_1 + (1 - t) x_0 [N, ...] at times [N], for x_0, x_1 normal and alike."""
    t = t.reshape(-1, *([1] * (z.dim() - 1)))
    return z * ((2 * t - 1) / (t.square() + (1 - t).square()))
