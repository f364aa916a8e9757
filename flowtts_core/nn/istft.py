"""The inverse STFT, and the head that predicts a spectrum for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowtts_core.nn.stream import Stream


def centred_window(n_fft: int, win_length: int) -> Tensor:
    """Return a Hann window [n_fft]: win_length samples between zeros, as `torch.stft` places a window shorter than its frame."""
    left = (n_fft - win_length) // 2
    return nn.functional.pad(torch.hann_window(win_length), (left, n_fft - win_length - left))


def real_frames(spectrum: Tensor, n_fft: int) -> Tensor:
    """Return the real frames [B, n_fft, T] of the inverse FFT of a complex spectrum [B, F, T].

    The imaginary parts of the first bin and, for an even n_fft, of the last are ignored: a real signal has none there. FFTs
    on a CPU ignore them by themselves. cuFFT does not in batches (waveforms were 4e-3 off), so they are set to zero there.
    """
    if spectrum.is_cuda:
        spectrum = spectrum.clone()
        imaginary = torch.view_as_real(spectrum)[..., 1]
        imaginary[:, 0] = 0
        if n_fft % 2 == 0:
            imaginary[:, -1] = 0
    return torch.fft.irfft(spectrum, n_fft, dim=1)


class InverseSTFT(nn.Module):
    """Complex spectrum [B, F, T] to waveform [B, S].

    Args:
        padding: "center" equals `torch.istft(center=True)`. "same" trims `(n_fft - hop_length) / 2` samples at both ends,
            so that T frames give T * hop_length samples; `torch.istft` refuses such windows.
    """

    def __init__(self, n_fft: int, hop_length: int, win_length: int, padding: str = "same") -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.edges = (
            "constant" if padding == "same" else "reflect"
        )  # what the STFT that it inverts sees beyond the ends
        self.trim = (n_fft - hop_length) // 2 if padding == "same" else n_fft // 2
        self.register_buffer("window", centred_window(n_fft, win_length))
        self.window: Tensor

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """Overlap-add windowed frames and divide by the sum of the squared windows.

        Args:
            mask: [B, 1, T], 1 on valid frames. An item then ends as it would alone, with zeros behind.
        """
        frames = real_frames(spectrum, self.n_fft) * self.window[None, :, None]
        square = self.window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        if mask is not None:
            frames, square = frames * mask, square * mask
        waveform = self._overlap_add(frames) / self._overlap_add(square).clamp(min=1e-11)
        waveform = waveform[:, self.trim : waveform.shape[-1] - self.trim]
        if mask is None:
            return waveform
        lengths = (mask.sum((1, 2)) - 1) * self.hop_length + self.n_fft - 2 * self.trim
        return waveform * (torch.arange(waveform.shape[-1], device=waveform.device) < lengths[:, None])

    def stft(self, waveform: Tensor) -> Tensor:
        """Return the complex spectrum [B, F, T] of a waveform [B, S], which `forward` makes that waveform again."""
        padded = nn.functional.pad(waveform[:, None], (self.trim, self.trim), mode=self.edges)[:, 0]
        return torch.stft(
            padded, self.n_fft, self.hop_length, self.n_fft, self.window, center=False, return_complex=True
        )

    def forward_piece(self, spectrum: Tensor, stream: Stream) -> Tensor:
        """Return the samples that the next frames [B, F, T] of a stream settle; half a window waits for more, or the end."""
        beyond = self.n_fft - self.hop_length
        if self in stream.kept:
            sums, squares, skip = stream.kept[self]
        else:
            sums, squares, skip = (
                spectrum.real.new_zeros(len(spectrum), beyond),
                self.window.new_zeros(1, beyond),
                self.trim,
            )
        count = spectrum.shape[-1] * self.hop_length
        if count:
            frames = real_frames(spectrum, self.n_fft) * self.window[None, :, None]
            square = self.window.square()[None, :, None].expand(1, -1, frames.shape[-1])
            sums = nn.functional.pad(sums, (0, count)) + self._overlap_add(frames)
            squares = nn.functional.pad(squares, (0, count)) + self._overlap_add(square)
        settled = sums.shape[-1] - (self.trim if stream.last else beyond)
        waveform = (sums[:, :settled] / squares[:, :settled].clamp(min=1e-11))[:, skip:]
        stream.kept[self] = sums[:, settled:], squares[:, settled:], max(0, skip - settled)
        return waveform

    def stft_piece(self, waveform: Tensor, stream: Stream) -> Tensor:
        """Return the complex spectrum [B, F, T] of the frames that the next samples [B, S] of a stream complete."""
        kept = stream.kept.get(self)
        seen = nn.functional.pad(waveform, (self.trim, 0)) if kept is None else torch.cat([kept, waveform], -1)
        if stream.last:
            seen = nn.functional.pad(seen, (0, self.trim))
        count = max(0, (seen.shape[-1] - self.n_fft) // self.hop_length + 1)
        stream.kept[self] = seen[:, count * self.hop_length :]
        if not count:
            return torch.zeros(len(seen), self.n_fft // 2 + 1, 0, dtype=torch.complex64, device=seen.device)
        return torch.stft(seen, self.n_fft, self.hop_length, self.n_fft, self.window, center=False, return_complex=True)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[B, n_fft, T] -> [B, (T - 1) * hop_length + n_fft]."""
        size = (frames.shape[-1] - 1) * self.hop_length + self.n_fft
        folded = nn.functional.fold(frames, (1, size), (1, self.n_fft), stride=(1, self.hop_length))
        return folded[:, 0, 0]


class ISTFTHead(nn.Module):
    """Log magnitude and phase of each bin, from its layer `out` [B, T, D] -> [B, T, 2 F], to a waveform [B, S].

    Args:
        max_magnitude: predicted magnitudes are clipped to it (a safeguard of the published head).
    """

    def __init__(
        self,
        dim: int,
        n_fft: int,
        hop_length: int,
        padding: str = "same",
        win_length: int | None = None,
        max_magnitude: float = 100.0,
    ) -> None:
        super().__init__()
        self.max_magnitude = max_magnitude
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = InverseSTFT(n_fft, hop_length, win_length or n_fft, padding)

    def forward(self, predicted: Tensor, mask: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        """Return the waveform of what `out` made, [B, T, 2 F].

        Args:
            mask: [B, 1, T], as `InverseSTFT` takes it.
            prior: [B, F, T], added to the log magnitudes.
        """
        waveform: Tensor = self.istft(self.spectrum(predicted, prior), mask)
        return waveform

    def spectrum(self, predicted: Tensor, prior: Tensor | None = None) -> Tensor:
        """Return the complex spectrum [B, F, T] of what `out` made; `prior` as `forward` takes it."""
        log_magnitude, phase = predicted.float().transpose(1, 2).chunk(2, dim=1)
        if prior is not None:
            log_magnitude = log_magnitude + prior
        return torch.polar(log_magnitude.exp().clamp(max=self.max_magnitude), phase)
