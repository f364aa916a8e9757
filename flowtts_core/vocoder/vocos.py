"""Vocos: ConvNeXt blocks at the frame rate predict magnitude and phase, and an inverse STFT makes the waveform.

Source: Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (arXiv 2306.00814), section 3.
State-dict names are the published ones, so the community's weights load. Unlike the published code, padding changes nothing:
every convolution sees zeros beyond an item's end, as it does at the end of a single item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig, mel_filter_bank
from flowtts_core.errors import ConfigError
from flowtts_core.nn.conv import conv_frames
from flowtts_core.nn.packed import Linear
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.istft import InverseSTFT, InverseSTFTStream


@dataclass(frozen=True)
class VocosConfig:
    """Sizes of a Vocos vocoder.

    Attributes:
        mel: the mel it reads; its n_fft, hop_length and padding are also those of the inverse STFT.
        dim, intermediate_dim, num_layers: width, width inside a block, number of ConvNeXt blocks.
        adanorm_num_embeddings: number of conditions of adaptive norms (as for EnCodec bandwidths), None for plain norms;
            of the backbone alone, since a vocoder of mels is given no condition.
        max_magnitude: predicted magnitudes are clipped to it (a safeguard of the published head).
        mel_prior: the head's log magnitudes are added to those that the mel itself shows, so that only what the mel
            lacks has to be learnt (the idea of FreeV, arXiv 2406.08196, by interpolation rather than a pseudo-inverse).
    """

    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 256
    intermediate_dim: int = 768
    num_layers: int = 6
    adanorm_num_embeddings: int | None = None
    max_magnitude: float = 100.0
    mel_prior: bool = False

    def __post_init__(self) -> None:
        if min(self.dim, self.intermediate_dim, self.num_layers) < 1:
            raise ConfigError(
                f"VocosConfig: dim {self.dim}, intermediate_dim {self.intermediate_dim}, num_layers {self.num_layers}",
                "use 1 or more of each",
            )


KERNEL = 7  # of every convolution, as published
PAD = KERNEL // 2


class AdaLayerNorm(nn.Module):
    """LayerNorm whose scale and shift are looked up by a condition's index."""

    def __init__(self, num_embeddings: int, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Embedding(num_embeddings, dim)
        self.shift = nn.Embedding(num_embeddings, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        normed = nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return normed * self.scale(condition) + self.shift(condition)


def _norm(config: VocosConfig) -> nn.Module:
    if config.adanorm_num_embeddings:
        return AdaLayerNorm(config.adanorm_num_embeddings, config.dim, eps=1e-6)
    return nn.LayerNorm(config.dim, eps=1e-6)


def _apply_norm(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    normed: Tensor = norm(x, condition) if isinstance(norm, AdaLayerNorm) else norm(x)
    return normed


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, and a two-layer perceptron, with a scaled residual."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(config.dim, config.dim, KERNEL, padding=PAD, groups=config.dim)
        self.norm = _norm(config)
        self.pwconv1 = Linear(config.dim, config.intermediate_dim, activation="gelu")
        self.pwconv2 = Linear(config.intermediate_dim, config.dim)
        self.gamma = nn.Parameter(torch.full((config.dim,), 1.0 / config.num_layers))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """[B, D, T] -> [B, D, T]; the caller masks the input beyond each item's end."""
        return x + self.branch(conv_frames(self.dwconv, x), condition)

    def branch(self, convolved: Tensor, condition: Tensor | None) -> Tensor:
        """What is added to the residual, from the convolved input [B, D, T]."""
        hidden = _apply_norm(self.norm, convolved.transpose(1, 2), condition)
        hidden = self.pwconv2(self.pwconv1(hidden))
        return (self.gamma * hidden).transpose(1, 2)


class VocosBackbone(nn.Module):
    """Mel [B, M, T] to hidden [B, T, D]."""

    def __init__(self, config: VocosConfig, input_channels: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Conv1d(input_channels or config.mel.n_mels, config.dim, KERNEL, padding=PAD)
        self.norm = _norm(config)
        self.convnext = nn.ModuleList(ConvNeXtBlock(config) for _ in range(config.num_layers))
        self.final_layer_norm = nn.LayerNorm(config.dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, mel: Tensor, mask: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """`mask` [B, 1, T] is 1 on valid frames; None where nothing is padded."""
        x = conv_frames(self.embed, mel if mask is None else mel * mask)
        x = _apply_norm(self.norm, x.transpose(1, 2), condition).transpose(1, 2)
        for block in self.convnext:
            x = block(x if mask is None else x * mask, condition)
        hidden: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return hidden


class ISTFTHead(nn.Module):
    """Hidden [B, T, D] to waveform: log magnitude and phase of each bin, then the inverse STFT."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.max_magnitude = config.max_magnitude
        self.out = Linear(config.dim, config.mel.n_fft + 2)
        self.istft = InverseSTFT(config.mel)

    def spectrum(self, hidden: Tensor, prior: Tensor | None = None) -> Tensor:
        """[B, T, D] -> complex [B, F, T]; `prior` [B, F, T] is added to the log magnitudes."""
        log_magnitude, phase = self.out(hidden).float().transpose(1, 2).chunk(2, dim=1)
        if prior is not None:
            log_magnitude = log_magnitude + prior
        return torch.polar(log_magnitude.exp().clamp(max=self.max_magnitude), phase)

    def forward(self, hidden: Tensor, mask: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        waveform: Tensor = self.istft(self.spectrum(hidden, prior), mask)
        return waveform


class MelPrior(nn.Module):
    """Log magnitudes [B, F, T] that a log-mel [B, M, T] shows: interpolated between the bands' centres, less their area."""

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where a model is built on "meta", only to count its parameters
            weights, area = self._lines(mel)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("area", area[:, None], persistent=False)
        self.weights: Tensor
        self.area: Tensor

    @staticmethod
    def _lines(mel: MelConfig) -> tuple[Tensor, Tensor]:
        """Weights [F, M] of the interpolation, and the log area [F] of the bands under each bin."""
        bank = mel_filter_bank(mel)  # [F, M]
        centres = (bank * torch.arange(len(bank))[:, None]).sum(0) / bank.sum(0).clamp(min=1e-9)
        bins = torch.arange(len(bank), dtype=torch.float32)
        above = torch.searchsorted(centres.contiguous(), bins).clamp(1, mel.n_mels - 1)
        share = ((bins - centres[above - 1]) / (centres[above] - centres[above - 1]).clamp(min=1e-9)).clamp(0, 1)
        weights = torch.zeros_like(bank)
        weights[torch.arange(len(bank)), above] = share
        weights[torch.arange(len(bank)), above - 1] = 1 - share
        heard = bins <= torch.nonzero(bank.sum(1)).max()  # beyond the last band the head is on its own
        weights = weights * heard[:, None] / mel.power
        # a flat spectrum of magnitude 1 gives each band its area
        area = weights @ torch.where(bank.sum(0) > 0, bank.sum(0), 1.0).log()
        return weights, area

    def forward(self, mel: Tensor) -> Tensor:
        with torch.autocast(mel.device.type, enabled=False):  # bfloat16 would round magnitudes by a percent
            magnitudes: Tensor = torch.matmul(self.weights, mel.float()) - self.area
        return magnitudes


class Vocos(Vocoder):
    """The vocoder; `forward` and `stream` as `Vocoder` states them."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        if config.adanorm_num_embeddings:
            raise ConfigError(
                f"VocosConfig.adanorm_num_embeddings = {config.adanorm_num_embeddings}",
                "use null: mels have no bandwidth",
            )
        self.config = config
        self.features = config.mel
        # the embedding and each block see PAD frames to either side, and half a window of the inverse STFT lies there
        self.context_frames = PAD * (config.num_layers + 1) + -(-config.mel.n_fft // (2 * config.mel.hop_length))
        self.backbone = VocosBackbone(config)
        self.head = ISTFTHead(config)
        self.prior = MelPrior(config.mel) if config.mel_prior else None

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None
        if lengths is not None and bool((lengths != mel.shape[-1]).any()):
            mask = (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None])[:, None].to(
                mel.dtype
            )  # [B, 1, T]
        waveform: Tensor = self.head(self.backbone(mel, mask), mask, self._prior(mel))
        return waveform

    def _prior(self, mel: Tensor) -> Tensor | None:
        return None if self.prior is None else self.prior(mel)

    @torch.inference_mode()
    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Each frame is computed once; a chunk comes out `3 * (num_layers + 1)` frames plus a window after it went in."""
        embed = _ConvStream(self.backbone.embed)
        blocks = [block for block in self.backbone.convnext if isinstance(block, ConvNeXtBlock)]
        streams = [_ConvStream(block.dwconv) for block in blocks]
        overlap_add = InverseSTFTStream(self.head.istft)
        waiting: Tensor | None = None  # mel frames whose hidden ones are still to come
        for mel, final in _mark_last(chunks):
            waiting = mel if waiting is None else torch.cat([waiting, mel], dim=-1)
            _, x = embed.push(mel, final)
            x = _apply_norm(self.backbone.norm, x.transpose(1, 2), None).transpose(1, 2)
            for stream, block in zip(streams, blocks, strict=True):
                residual, convolved = stream.push(x, final)
                x = residual + block.branch(convolved, None)
            hidden = self.backbone.final_layer_norm(x.transpose(1, 2))
            done, waiting = waiting[..., : hidden.shape[1]], waiting[..., hidden.shape[1] :]
            samples = overlap_add.push(self.head.spectrum(hidden, self._prior(done)), final)
            if samples.shape[-1]:
                yield samples


class _ConvStream:
    """A padded convolution over frames that come by chunks: its input's last frames are kept, its output lags by PAD frames."""

    def __init__(self, conv: nn.Conv1d) -> None:
        self.conv = conv
        self.buffer: Tensor | None = None

    def push(self, x: Tensor, final: bool) -> tuple[Tensor, Tensor]:
        """Frames [B, C, t] in; (the input frames that are done, their convolution) out, which may be 0 frames long."""
        ends = x.new_zeros(x.shape[0], x.shape[1], PAD)
        parts = [ends if self.buffer is None else self.buffer, x] + ([ends] if final else [])
        frames = torch.cat(parts, dim=-1)
        done = max(0, frames.shape[-1] - 2 * PAD)
        self.buffer = frames[..., done:]
        if not done:
            return x[..., :0], x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        conv = self.conv
        return frames[..., PAD : PAD + done], nn.functional.conv1d(frames, conv.weight, conv.bias, groups=conv.groups)


def _mark_last(chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    previous: Tensor | None = None
    for chunk in chunks:
        if previous is not None:
            yield previous, False
        previous = chunk
    if previous is not None:
        yield previous, True
