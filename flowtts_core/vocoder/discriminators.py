"""The discriminators that train a vocoder: of waveforms folded by period, and of spectrograms at several resolutions.

Sources: HiFi-GAN (arXiv 2010.05646, section 2.3) for the periods, UnivNet (arXiv 2106.07889, section 2.2) for the
resolutions. Both are kept narrow by default, since on a CPU they cost more than the vocoder itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowtts_core.nn.share import Share, mean_of

Scored = tuple[Tensor, list[Tensor]]  # scores, and the feature maps of every layer

SLOPE = 0.1


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Periods in samples, STFT sizes in samples (the hop is a quarter), and widths of the layers of each discriminator."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (12, 32, 64, 128)
    n_ffts: tuple[int, ...] = (512, 1024, 2048)
    resolution_channels: int = 12


class PeriodDiscriminator(nn.Module):
    """Scores every p-th sample together: the waveform [B, S] is folded to [B, 1, S / p, p]."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = (1, *channels)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, waveform: Tensor) -> Scored:
        short = -waveform.shape[-1] % self.period
        x = nn.functional.pad(waveform[:, None], (0, short), mode="reflect")
        return _score(x.unflatten(-1, (-1, self.period)), self.convs, self.out)


class ResolutionDiscriminator(nn.Module):
    """Scores the magnitude spectrogram [B, 1, T, F] of one STFT size; F is halved by each strided layer."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.window: Tensor
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(1 if i == 0 else channels, channels, (3, 9), (1, 2), (1, 4))) for i in range(4)
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, (3, 3), 1, 1))

    def forward(self, waveform: Tensor) -> Scored:
        spectrum = torch.stft(waveform, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return _score(magnitude.transpose(1, 2)[:, None], self.convs, self.out)


class Discriminators(nn.Module):
    """All discriminators of a config; `forward(waveform[B, S])` gives the scores and feature maps of each."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            [PeriodDiscriminator(p, config.period_channels) for p in config.periods]
            + [ResolutionDiscriminator(n, config.resolution_channels) for n in config.n_ffts]
        )

    def forward(self, waveform: Tensor) -> list[Scored]:
        return [one(waveform) for one in self.each]


def _score(x: Tensor, convs: nn.ModuleList, out: nn.Module) -> Scored:
    features = []
    for conv in convs:
        x = nn.functional.leaky_relu(conv(x), SLOPE)
        features.append(x)
    return out(x), features


def discriminator_loss(real: list[Scored], fake: list[Scored], share: Share | None = None) -> Tensor:
    """Return the hinge loss, the mean over discriminators: real scores above 1, fake ones below -1."""
    losses = [
        torch.relu(1 - r.float()).mean() + torch.relu(1 + f.float()).mean()
        for (r, _), (f, _) in zip(real, fake, strict=True)
    ]
    return mean_of(share, torch.stack(losses).mean())


def adversarial_loss(fake: list[Scored], share: Share | None = None) -> Tensor:
    """Return what the vocoder minimises: the mean over discriminators of the negated score (hinge form)."""
    return mean_of(share, torch.stack([torch.relu(1 - score.float()).mean() for score, _ in fake]).mean())


def feature_loss(real: list[Scored], fake: list[Scored], share: Share | None = None) -> Tensor:
    """Return the mean absolute difference of the feature maps, relative to the size of the real ones, so that none dominates."""
    sizes = []
    for (_, real_maps), (_, fake_maps) in zip(real, fake, strict=True):
        for r, f in zip(real_maps, fake_maps, strict=True):
            sizes.append(torch.stack([(r.detach().float() - f.float()).abs().mean(), r.detach().float().abs().mean()]))
    both = mean_of(share, torch.stack(sizes))  # [maps, 2]
    return (both[:, 0] / both[:, 1].clamp(min=1e-5)).mean()
