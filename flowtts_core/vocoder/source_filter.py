"""A source-filter vocoder: a pulse train of the pitch and noise, each shaped by a predicted spectrum, then an inverse STFT.

The source is that of neural source-filter models (Wang et al. 2019, arXiv 1904.12088) with harmonics and noise apart
(1908.10256, section 2); the filter works on spectra at the frame rate, as Vocos does (2306.00814). The harmonics are
given, so that a network has to learn envelopes and phases alone, which takes minutes; docs/measurements.md has how well.
Where the features lack pitch, a small network finds it in the mel (`mel_pitch.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.audio.pitch import pitch_hz
from flowtts_core.errors import ConfigError
from flowtts_core.nn.convnext import PAD
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.istft import InverseSTFT, centred_window
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import Share, mean_of
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.mel_pitch import CONTEXT, MelPitch
from flowtts_core.vocoder.vocos import MelPrior, VocosBackbone

_HIGHEST = 0.92  # of the Nyquist frequency: harmonics above are left out
_NOISE_FRAMES = 512  # after which the noise repeats: 6 s
LARGEST = 7.0  # of the log magnitudes; a safeguard


@dataclass(frozen=True)
class SourceFilterConfig:
    """Sizes of a source-filter vocoder.

    Attributes:
        mel: the features it learns from, with pitch; n_fft, hop_length and padding are also those of its spectra.
        dim, intermediate_dim, num_layers: width, width inside a block, number of ConvNeXt blocks.
        free_bins: lowest bins of the spectrum that a part without source adds to; plosives begin in it.
        finds_pitch: it reads mels without pitch, and finds it itself.
    """

    mel: MelConfig = field(default_factory=lambda: MelConfig(pitch=True))
    dim: int = 256
    intermediate_dim: int = 768
    num_layers: int = 6
    free_bins: int = 256
    finds_pitch: bool = False

    def __post_init__(self) -> None:
        if not self.mel.pitch:
            raise ConfigError(
                "SourceFilterConfig: mel.pitch is false", "prepare and train with --set mel.pitch=true, both of them"
            )
        if min(self.dim, self.intermediate_dim, self.num_layers) < 1:
            raise ConfigError(
                f"SourceFilterConfig: dim {self.dim}, intermediate_dim {self.intermediate_dim},"
                f" num_layers {self.num_layers}",
                "use 1 or more of each",
            )
        if not 1 <= self.free_bins <= self.mel.n_fft // 2 + 1:
            raise ConfigError(f"free_bins = {self.free_bins}", f"use 1 to {self.mel.n_fft // 2 + 1}")


class SpectralFilter(nn.Module):
    """The part that learns: features [B, rows, T] to the spectra that shape the sources.

    Returns [B, T, 3 F + 2 free_bins]: log magnitudes and phases of the harmonics, log magnitudes of the noise, log magnitudes
    and phases of the free part.
    """

    def __init__(self, config: SourceFilterConfig) -> None:
        super().__init__()
        mel, self.bins = config.mel, config.mel.n_fft // 2 + 1
        self.backbone = VocosBackbone(mel.rows, config.dim, config.intermediate_dim, config.num_layers)
        self.prior = MelPrior(replace(mel, pitch=False))
        self.out = nn.Linear(config.dim, 3 * self.bins + 2 * config.free_bins)
        nn.init.trunc_normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            self.out.bias.zero_()
            self.out.bias[2 * self.bins : 3 * self.bins] = -2.0  # noise begins faint
            self.out.bias[3 * self.bins :] = -4.0
        self.n_mels = mel.n_mels

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.out(self.backbone(features, mask)).float()
        prior = self.prior(features[:, : self.n_mels]).transpose(1, 2)
        harmonics, phases, noise, free = hidden.split(
            [self.bins, self.bins, self.bins, hidden.shape[2] - 3 * self.bins], 2
        )
        return torch.cat([harmonics + prior, math.pi * phases.tanh(), noise + prior, free], 2)


class _FilterGraph(nn.Module):
    """The filter of one item under its name in the vocoder."""

    def __init__(self, own: SpectralFilter) -> None:
        super().__init__()
        self.filter = own

    def forward(self, features: Tensor) -> tuple[Tensor]:
        return (self.filter(features),)


class _PitchGraph(nn.Module):
    """What finds pitch in one item, under its name in the vocoder."""

    def __init__(self, own: MelPitch) -> None:
        super().__init__()
        self.pitch = own

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.pitch(mel),)


class SourceFilter(Vocoder):
    """The vocoder; `forward` as `Vocoder` states it."""

    def __init__(self, config: SourceFilterConfig) -> None:
        super().__init__()
        mel = config.mel
        self.config, self.features = config, replace(mel, pitch=not config.finds_pitch)
        # the embedding and each block see PAD frames to either side, and half a window of the inverse STFT lies there
        half = -(-mel.n_fft // (2 * mel.hop_length))
        self.context_frames = PAD * (config.num_layers + 1) + half
        self.filter = SpectralFilter(config)
        self.pitch = MelPitch(mel.n_mels) if config.finds_pitch else None
        if self.pitch is not None:  # whose sources, half a window further, are shaped by half a window of the STFT too
            self.context_frames = max(self.context_frames, CONTEXT + 2 * half)
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.win_length, mel.padding)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, mel.n_fft // 2 + 1, _NOISE_FRAMES, generator=generator) * math.sqrt(0.5)
        self.register_buffer("noise", torch.complex(noise[0], noise[1]), persistent=False)  # [F, N]
        window = centred_window(mel.n_fft, mel.win_length)
        self.register_buffer("window", window / (window.sum() / 2), persistent=False)
        self.noise: Tensor
        self.window: Tensor

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        mask = None
        if lengths is not None and bool((lengths != mel.shape[-1]).any()):
            mask = length_mask(lengths, mel.shape[-1])[:, None].to(mel.dtype)  # [B, 1, T]
        mel = self.with_pitch(mel, mask)
        if "filter" in self.runners and mask is None:
            shaped = torch.cat([self.runners["filter"](own[None])[0] for own in mel]).transpose(1, 2)
        else:
            shaped = self.filter(mel, mask).transpose(1, 2)
        with torch.autocast(mel.device.type, enabled=False):
            pulses = self._pulses(mel[:, -1].float(), mask, start)
            waveform: Tensor = self.istft(self._spectrum(shaped, pulses, start), mask)
        return waveform

    def graphs(self) -> dict[str, Graph]:
        example = {"features": torch.zeros(1, self.config.mel.rows, 64)}
        graphs = {"filter": Graph(_FilterGraph(self.filter), example, ("shaped",), {"features": 2, "shaped": 1})}
        if self.pitch is not None:
            mel = {"mel": torch.zeros(1, self.features.rows, 64)}
            graphs["pitch"] = Graph(_PitchGraph(self.pitch), mel, ("scores",), {"mel": 2, "scores": 1})
        return graphs

    def trained(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if (
            self.pitch is None or mel.shape[1] < self.config.mel.rows
        ):  # nobody knows the pitch of an acoustic model's mel
            return self(mel), {}
        scores = self.pitch(mel[:, : self.features.n_mels])
        return self(mel), {"pitch": mean_of(share, self.pitch.loss(scores, mel[:, -1]))}

    def with_pitch(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        """Return features [B, M + 1, T]: in training with the pitch of the recording, else with that which is found."""
        if self.pitch is None or (self.training and mel.shape[1] == self.config.mel.rows):
            return mel
        bands = mel[:, : self.features.n_mels]
        if "pitch" in self.runners and mask is None:
            scores = torch.cat([self.runners["pitch"](own[None])[0] for own in bands])
        else:
            scores = self.pitch(bands, mask)
        return torch.cat([bands, self.pitch.row_of(scores).to(bands.dtype)], 1)

    def start_at(self, features: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor:
        """Return [phase in cycles, frame, place] in float64: the phase is that of the frame `place`.

        That is the frame itself, or, where pitch is found, the first whose pitch a window that begins at `frame` finds right.
        """
        place, first = frame, 0 if earlier is None else int(earlier[1])
        known = features[:, first:]
        if self.pitch is not None:
            place = min(frame + CONTEXT, features.shape[1] - 1) if frame else 0
            seen = known[:, : place - first + CONTEXT + 1].to(self.noise.device, torch.float32)
            known = self.with_pitch(seen[None], None)[0]
        cycles = _cycles(pitch_hz(known[-1, : place - first + 1].double()), self.features)
        phase = cycles[place - first]
        if earlier is not None:
            phase = phase - cycles[int(earlier[2]) - first] + earlier[0]
        return torch.stack([phase % 1.0, phase.new_tensor(float(frame)), phase.new_tensor(float(place))])

    def _spectrum(self, shaped: Tensor, pulses: Tensor, start: Tensor | None) -> Tensor:
        """Shape the sources, of which `pulses` [B, F, T] is one, and add them up to a spectrum [B, F, T]."""
        bins, free = self.filter.bins, self.config.free_bins
        harmonic, phase, noisy, level, angle = shaped.clamp(max=LARGEST).split([bins, bins, bins, free, free], 1)
        spectrum = torch.polar(harmonic.exp(), phase) * pulses
        spectrum = spectrum + noisy.exp() * self._noise(pulses.shape[2], start)
        rest = torch.polar(level.exp(), angle)
        return torch.cat([spectrum[:, :free] + rest, spectrum[:, free:]], 1)

    def _noise(self, time: int, start: Tensor | None) -> Tensor:
        """Complex noise [B or 1, F, T] of variance 1, of the frames from `start` on."""
        frames = torch.arange(time, device=self.noise.device)[None]
        if start is not None:
            frames = frames + start[:, 1:2].to(self.noise.device).long()
        return self.noise[:, frames % _NOISE_FRAMES].transpose(0, 1)

    def _pulses(self, pitch: Tensor, mask: Tensor | None, start: Tensor | None) -> Tensor:
        """The STFT [B, F, T] of pulses of a pitch row [B, T]; a harmonic of amplitude 1 has the magnitude 1.

        They end where an item ends, by `mask` [B, 1, T]; pitch stands still in its last frame.
        """
        mel, valid = self.features, None if mask is None else mask[:, 0] > 0
        if valid is not None:
            last = pitch.gather(1, valid.sum(1, keepdim=True) - 1)
            pitch = torch.where(valid, pitch, last)
        phase, anchors = None, None
        if start is not None:
            phase, anchors = start[:, 0], (start[:, 2] - start[:, 1]).long().to(pitch.device)
        pulses = pulse_train(pitch_hz(pitch.double()), mel, phase, anchors)
        if valid is not None:
            pulses = pulses * valid.repeat_interleave(mel.hop_length, 1)
        left = self.istft.trim
        padded = nn.functional.pad(pulses, (left, mel.n_fft - mel.hop_length - left))
        return torch.stft(padded, mel.n_fft, mel.hop_length, mel.n_fft, self.window, center=False, return_complex=True)


def pulse_train(hz: Tensor, mel: MelConfig, phase: Tensor | None = None, anchors: Tensor | None = None) -> Tensor:
    """Return pulses [B, T * hop_length] whose harmonics all have amplitude 1, up to near the Nyquist frequency.

    F0 `hz` [B, T] stands at the first sample of each frame and is linear between them; `phase` [B] is that of the frames
    `anchors` [B], by default the first ones, in cycles. The sum of H cosines is sin((H + 1/2) x) / (2 sin(x / 2)) - 1/2.
    """
    hop, rate = mel.hop_length, mel.sample_rate
    hz = hz.double()
    step = torch.arange(hop, device=hz.device, dtype=torch.float64) / rate  # seconds into the frame
    slope = (torch.cat([hz[:, 1:], hz[:, -1:]], 1) - hz) * (rate / hop)  # Hz per second
    begins = _cycles(hz, mel)
    if phase is not None:
        known = begins[:, :1] if anchors is None else begins.gather(1, anchors[:, None])
        begins = begins - known + phase.to(hz)[:, None]
    cycles = (begins[:, :, None] + hz[:, :, None] * step + 0.5 * slope[:, :, None] * step.square()).flatten(1)
    half = math.pi * (cycles % 1.0)  # x / 2, in float64: near its zeros the quotient multiplies rounding errors
    f0 = (hz[:, :, None] + slope[:, :, None] * step).flatten(1)
    count = (_HIGHEST * rate / 2 / f0).floor()
    low = 2 * half.sin()
    near = low.abs() < 1e-7
    pulses = ((2 * count + 1) * half).sin() / torch.where(near, torch.ones_like(low), low)
    return torch.where(near, count + 0.5, pulses).float() - 0.5


def _cycles(hz: Tensor, mel: MelConfig) -> Tensor:
    """Cycles [..., T] before the first sample of each frame, of a pitch [..., T] that is linear between them."""
    between = 0.5 * (hz[..., :-1] + hz[..., 1:]) * (mel.hop_length / mel.sample_rate)
    return nn.functional.pad(between.cumsum(-1), (1, 0))
