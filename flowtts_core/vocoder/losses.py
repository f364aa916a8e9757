"""What trains a vocoder: distances of log-mels and of STFTs at several resolutions, and what discriminators say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.nn.share import Share, mean_of
from flowtts_core.vocoder.discriminators import Scored

ADVERSARIAL = ("hinge", "least_squares")
LEAST_POWER = 1e-14  # a magnitude as small as the smallest floor of mels
_FLOOR = 1e-6  # power below which there is nothing to be heard, and no phase


class MultiMelLoss(nn.Module):
    """Mean absolute difference of log-mels at several window sizes (as DAC's, arXiv 2306.06546), up to the mel's own f_max."""

    def __init__(
        self, mel: MelConfig, n_ffts: Sequence[int] = (256, 512, 1024, 2048), n_mels: Sequence[int] = (20, 40, 80, 160)
    ) -> None:
        super().__init__()
        # the root of a power of exactly 0 would have an infinite gradient
        mel = replace(mel, pitch=False, padding="center", magnitude_eps=max(mel.magnitude_eps, LEAST_POWER))
        self.mels = nn.ModuleList(
            LogMel(replace(mel, n_fft=n, win_length=n, hop_length=n // 4, n_mels=m))
            for n, m in zip(n_ffts, n_mels, strict=True)
        )

    def forward(self, predicted: Tensor, target: Tensor, share: Share | None = None) -> Tensor:
        """Compare waveforms [B, S]; returns a scalar in nats a band."""
        return mean_of(share, torch.stack([(mel(predicted) - mel(target)).abs().mean() for mel in self.mels]).mean())


class MultiSTFTLoss(nn.Module):
    """Spectral convergence plus log-magnitude distance at several window sizes (Parallel WaveGAN, arXiv 1910.11480)."""

    def __init__(self, n_ffts: Sequence[int] = (512, 1024, 2048)) -> None:
        super().__init__()
        self.n_ffts = tuple(n_ffts)
        for n in self.n_ffts:
            self.register_buffer(f"window_{n}", torch.hann_window(n), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor, share: Share | None = None) -> Tensor:
        """Compare waveforms [B, S]; returns a scalar."""
        norms, distances = [], []
        for n in self.n_ffts:
            p, t = self._magnitude(predicted, n), self._magnitude(target, n)
            norms.append(torch.stack([torch.linalg.vector_norm(t - p), torch.linalg.vector_norm(t)]))
            distances.append((p.log() - t.log()).abs().mean())
        both = torch.stack(norms)  # [sizes, 2]
        if share is not None:
            both = share.sum(both.square()).sqrt()
        convergence = both[:, 0] / both[:, 1].clamp(min=1e-6)
        return (convergence + mean_of(share, torch.stack(distances))).mean()

    def _magnitude(self, waveform: Tensor, n_fft: int) -> Tensor:
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True)
        # the floor keeps what lies below hearing, such as a band the recording does not have, out of the logarithm
        return _power(spectrum).clamp(min=_FLOOR).sqrt()


class PhaseSTFTLoss(nn.Module):
    """WaveFM's distance of STFTs (arXiv 2503.16689, section 3.4): log-magnitudes, phases, and how magnitudes change.

    Magnitudes are compared by their slopes over time and over frequency and by their Laplacian (Sobel's filters); phases
    where both sounds have some. The mean over windows of half the FFT, a quarter of which is the hop.
    """

    def __init__(self, n_ffts: Sequence[int] = (1024, 2048, 512)) -> None:
        super().__init__()
        self.n_ffts = tuple(n_ffts)
        for n in self.n_ffts:
            self.register_buffer(f"window_{n}", torch.hann_window(n // 2), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor, share: Share | None = None) -> Tensor:
        """Compare waveforms [B, S]; returns a scalar."""
        alike, angles, counts = [], [], []
        for n in self.n_ffts:
            p, t = self._spectrum(predicted, n), self._spectrum(target, n)
            p_power, t_power = _power(p), _power(t)
            p_size, t_size = (p_power + _FLOOR).sqrt(), (t_power + _FLOOR).sqrt()
            alike.append((p_size.log() - t_size.log()).abs().mean() + _change(p_size - t_size))
            sounds = (p_power > _FLOOR) & (t_power > _FLOOR)
            turned = torch.where(sounds, t * p.conj(), torch.ones_like(t))
            angles.append(turned.angle().abs().sum())
            counts.append(sounds.sum())
        angle, count = torch.stack(angles), torch.stack(counts).to(angles[0].dtype)
        if share is not None:
            angle, count = share.sum(torch.stack([angle, count]))
        return (mean_of(share, torch.stack(alike)) + angle / count.clamp(min=1)).mean()

    def _spectrum(self, waveform: Tensor, n_fft: int) -> Tensor:
        window = getattr(self, f"window_{n_fft}")
        return torch.stft(waveform, n_fft, n_fft // 8, n_fft // 2, window, return_complex=True)


def _change(size: Tensor) -> Tensor:
    """Return the weighted mean squares of slopes and Laplacian of a surface [B, F, T] that is flat and zero around it."""
    padded = nn.functional.pad(size, (1, 1, 1, 1))
    over_f = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]  # [B, F, T + 2]
    over_t = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]  # [B, F + 2, T]
    in_time = (over_f[:, :, 1:-1] - over_f[:, :, :-2]) / 4
    in_frequency = (over_t[:, 1:-1] - over_t[:, :-2]) / 4
    box = over_f - padded[:, 1:-1]  # three bins of each frame
    laplacian = size - (box[:, :, :-2] + box[:, :, 1:-1] + box[:, :, 2:] - size) / 8
    return 4 * (in_time.square().mean() + in_frequency.square().mean()) + 2 * laplacian.square().mean()


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def spectrum_loss(predicted: Tensor, target: Tensor, share: Share | None = None) -> Tensor:
    """Compare magnitudes of real spectra [B, 2 F, T], real parts before imaginary ones; returns a scalar.

    Squared distance of decimal logarithms, plus the norm of the distance over one more than that of the target (RFWave's
    STFT loss, arXiv 2403.05010, section 3.2).
    """
    p, t = (_magnitude_of(spectrum) for spectrum in (predicted, target))
    norms = torch.stack([torch.linalg.vector_norm(p - t), torch.linalg.vector_norm(t)])
    if share is not None:
        norms = share.sum(norms.square()).sqrt()
    return mean_of(share, nn.functional.mse_loss(p.log10(), t.log10())) + norms[0] / (norms[1] + 1)


def _magnitude_of(spectrum: Tensor) -> Tensor:
    real, imaginary = spectrum.chunk(2, 1)
    return (real.square() + imaginary.square()).clamp(min=1e-14).sqrt()


def discriminator_loss(
    real: list[Scored], fake: list[Scored], share: Share | None = None, form: str = "hinge"
) -> Tensor:
    """Return the mean over discriminators of what each wants to be small.

    Args:
        form: "hinge": real scores above 1, fake ones below -1; "least_squares" (HiFi-GAN's): real ones at 1, fake ones at 0.
    """
    losses = []
    for (r, _), (f, _) in zip(real, fake, strict=True):
        r, f = r.float(), f.float()
        if form == "hinge":
            losses.append(torch.relu(1 - r).mean() + torch.relu(1 + f).mean())
        else:
            losses.append((1 - r).square().mean() + f.square().mean())
    return mean_of(share, torch.stack(losses).mean())


def adversarial_loss(fake: list[Scored], share: Share | None = None, form: str = "hinge") -> Tensor:
    """Return what the vocoder minimises, the mean over discriminators: scores of its sound that fall short of 1, or differ."""
    short = [1 - score.float() for score, _ in fake]
    return mean_of(
        share, torch.stack([(torch.relu(s) if form == "hinge" else s.square()).mean() for s in short]).mean()
    )


def feature_loss(real: list[Scored], fake: list[Scored], share: Share | None = None) -> Tensor:
    """Return the mean absolute difference of the feature maps, relative to the size of the real ones, so that none dominates."""
    sizes = []
    for (_, real_maps), (_, fake_maps) in zip(real, fake, strict=True):
        for r, f in zip(real_maps, fake_maps, strict=True):
            sizes.append(torch.stack([(r.detach().float() - f.float()).abs().mean(), r.detach().float().abs().mean()]))
    both = mean_of(share, torch.stack(sizes))  # [maps, 2]
    return (both[:, 0] / both[:, 1].clamp(min=1e-5)).mean()
