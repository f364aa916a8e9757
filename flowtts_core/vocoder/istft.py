"""The inverse STFT of a Vocos head, whole or by chunks: overlap-add of windowed frames over the windows' own envelope."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig


def centred_window(mel: MelConfig) -> Tensor:
    """Hann window [n_fft]: win_length samples between zeros, as `torch.stft` places a window shorter than its frame."""
    left = (mel.n_fft - mel.win_length) // 2
    return nn.functional.pad(torch.hann_window(mel.win_length), (left, mel.n_fft - mel.win_length - left))


def real_frames(spectrum: Tensor, n_fft: int) -> Tensor:
    """Complex [B, F, T] to the real frames [B, n_fft, T] of its inverse FFT, whatever the phases at its first and last bin.

    A real signal has none there (at the last bin, of an even n_fft). FFTs on a CPU pass over them; cuFFT may not, and in batches
    does not (waveforms 4e-3 off).
    """
    if spectrum.is_cuda:
        spectrum = spectrum.clone()
        imaginary = torch.view_as_real(spectrum)[..., 1]
        imaginary[:, 0] = 0
        if n_fft % 2 == 0:
            imaginary[:, -1] = 0
    return torch.fft.irfft(spectrum, n_fft, dim=1)


class InverseSTFT(nn.Module):
    """Complex spectrum [B, F, T] to waveform [B, mel.samples_of(T)].

    "center" equals `torch.istft(center=True)`; "same" trims `(n_fft - hop_length) / 2` samples at both ends, which
    torch.istft cannot do (it refuses windows that do not overlap-add to a constant at the edges).
    """

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.n_fft, self.hop_length = mel.n_fft, mel.hop_length
        self.samples_of = mel.samples_of
        self.trim = (mel.n_fft - mel.hop_length) // 2 if mel.padding == "same" else mel.n_fft // 2
        self.register_buffer("window", centred_window(mel))
        self.window: Tensor

    def frames(self, spectrum: Tensor) -> Tensor:
        """Windowed frames [B, n_fft, T]."""
        return real_frames(spectrum, self.n_fft) * self.window[None, :, None]

    def overlap_add(self, frames: Tensor) -> Tensor:
        """[B, n_fft, T] -> [B, (T - 1) * hop_length + n_fft]."""
        size = (frames.shape[-1] - 1) * self.hop_length + self.n_fft
        folded = nn.functional.fold(frames, (1, size), (1, self.n_fft), stride=(1, self.hop_length))
        return folded[:, 0, 0]

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, 1, T]: an item ends with its own last frame, envelope included, whatever it is padded to."""
        frames = self.frames(spectrum)
        square = self.window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        if mask is not None:
            frames, square = frames * mask, square * mask
        waveform = self.overlap_add(frames) / self.overlap_add(square).clamp(min=1e-11)
        waveform = waveform[:, self.trim : waveform.shape[-1] - self.trim]
        if mask is None:
            return waveform
        lengths = [self.samples_of(int(n)) for n in mask.sum(dim=(1, 2)).tolist()]
        valid = (
            torch.arange(waveform.shape[-1], device=waveform.device)
            < torch.tensor(lengths, device=waveform.device)[:, None]
        )
        return waveform * valid


class InverseSTFTStream:
    """The same by chunks of frames: samples come out as soon as no later frame can change them."""

    def __init__(self, istft: InverseSTFT) -> None:
        self.istft = istft
        self.tail: Tensor | None = None  # [2, n_fft - hop_length] sums of the frames so far: signal, envelope
        self.to_trim = istft.trim

    def push(self, spectrum: Tensor, final: bool) -> Tensor:
        """Complex [1, F, t] in (t may be 0), samples [1, S] out."""
        istft, keep = self.istft, self.istft.n_fft - self.istft.hop_length
        tail = spectrum.real.new_zeros(2, keep) if self.tail is None else self.tail
        if spectrum.shape[-1]:
            frames = istft.frames(spectrum)
            square = istft.window.square()[None, :, None].expand(1, -1, frames.shape[-1])
            added = torch.cat([istft.overlap_add(frames), istft.overlap_add(square)])
            added[:, :keep] += tail
        else:
            added = tail
        done = added.shape[-1] if final else added.shape[-1] - keep
        ready, self.tail = added[:, :done], added[:, done:]
        waveform = ready[:1] / ready[1:].clamp(min=1e-11)
        skip = min(self.to_trim, waveform.shape[-1])
        self.to_trim -= skip
        return waveform[:, skip : waveform.shape[-1] - (istft.trim if final else 0)]
