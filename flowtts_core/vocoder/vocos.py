"""Vocos: ConvNeXt blocks at the frame rate predict magnitude and phase, and an inverse STFT makes the waveform.

Source: Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (arXiv 2306.00814), section 3.
State-dict names are the published ones, so the community's weights load. Unlike the published code, padding changes nothing:
every convolution sees zeros beyond an item's end, as it does at the end of a single item.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig, mel_filter_bank
from flowtts_core.errors import ConfigError
from flowtts_core.nn.conv import conv_frames
from flowtts_core.nn.convnext import KERNEL, PAD, ConvNeXtBlock
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.istft import ISTFTHead
from flowtts_core.nn.masks import length_mask
from flowtts_core.vocoder.base import Vocoder


@dataclass(frozen=True)
class VocosConfig:
    """Sizes of a Vocos vocoder.

    Attributes:
        mel: the mel it reads; its n_fft, hop_length and padding are also those of the inverse STFT.
        dim, intermediate_dim, num_layers: width, width inside a block, number of ConvNeXt blocks.
        max_magnitude: predicted magnitudes are clipped to it (a safeguard of the published head).
        mel_prior: the head's log magnitudes are added to those that the mel itself shows, so that only what the mel
            lacks has to be learnt (the idea of FreeV, arXiv 2406.08196, by interpolation rather than a pseudo-inverse).
    """

    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 256
    intermediate_dim: int = 768
    num_layers: int = 6
    max_magnitude: float = 100.0
    mel_prior: bool = False

    def __post_init__(self) -> None:
        if min(self.dim, self.intermediate_dim, self.num_layers) < 1:
            raise ConfigError(
                f"VocosConfig: dim {self.dim}, intermediate_dim {self.intermediate_dim}, num_layers {self.num_layers}",
                "use 1 or more of each",
            )


class VocosBackbone(nn.Module):
    """[B, input_channels, T] to hidden [B, T, dim]."""

    def __init__(self, input_channels: int, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(input_channels, dim, KERNEL, padding=PAD)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList(ConvNeXtBlock(dim, intermediate_dim, 1.0 / num_layers) for _ in range(num_layers))
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return hidden [B, T, dim]; `mask` [B, 1, T] is 1 on valid frames; None where nothing is padded."""
        x = conv_frames(self.embed, x if mask is None else x * mask)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x if mask is None else x * mask)
        hidden: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return hidden


class MelPrior(nn.Module):
    """Log-mel [B, M, T] to log magnitudes [B, F, T]: interpolated between the centres of the bands, less the bands' area."""

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
        """Return weights [F, M] of the interpolation, and the log area [F] of the bands under each bin."""
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
    """The vocoder; `forward` as `Vocoder` states it."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        mel = config.mel
        self.config, self.features = config, mel
        # the embedding and each block see PAD frames to either side, and half a window of the inverse STFT lies there
        self.context_frames = PAD * (config.num_layers + 1) + -(-mel.n_fft // (2 * mel.hop_length))
        self.backbone = VocosBackbone(mel.n_mels, config.dim, config.intermediate_dim, config.num_layers)
        self.head = ISTFTHead(config.dim, mel.n_fft, mel.hop_length, mel.padding, mel.win_length, config.max_magnitude)
        self.prior = MelPrior(mel) if config.mel_prior else None

    def graphs(self) -> dict[str, Graph]:
        example = {"mel": torch.zeros(1, self.features.n_mels, 64)}
        return {"spectrum": Graph(_SpectrumGraph(self), example, ("spectrum",), {"mel": 2, "spectrum": 1})}

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        mask = None
        if lengths is not None and bool((lengths != mel.shape[-1]).any()):
            mask = length_mask(lengths, mel.shape[-1])[:, None].to(mel.dtype)  # [B, 1, T]
        if "spectrum" in self.runners and mask is None:
            predicted = torch.cat([self.runners["spectrum"](own[None])[0] for own in mel])
        else:
            predicted = self.head.out(self.backbone(mel, mask))
        waveform: Tensor = self.head(predicted, mask, None if self.prior is None else self.prior(mel))
        return waveform


class _SpectrumGraph(nn.Module):
    """What a Vocos predicts of one item, under the names of its modules."""

    def __init__(self, vocos: Vocos) -> None:
        super().__init__()
        self.backbone, self.head = vocos.backbone, nn.ModuleDict({"out": vocos.head.out})

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.head["out"](self.backbone(mel)),)
