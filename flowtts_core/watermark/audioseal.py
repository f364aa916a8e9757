"""AudioSeal, the published watermark of speech at 16 kHz (San Roman et al. 2024, arXiv 2401.17264), by its own names.

Its weights are imported; training is that of our own, smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from flowtts_core.codec.encodec import SEANetConfig
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.nn.conv import Upsampling
from flowtts_core.nn.seanet import run_layers
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.voice.checkpoint import check_fit, read_checkpoint

_SEANET = SEANetConfig(causal=False, pad_mode="constant", true_skip=True)


@dataclass(frozen=True)
class AudioSealConfig:
    """Sizes of generator and detector.

    Attributes:
        bits: of the message.
        output_dim: features of a sample in the detector.
    """

    sample_rate: int = 16_000
    bits: int = 16
    seanet: SEANetConfig = field(default_factory=lambda: _SEANET)
    output_dim: int = 32

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.bits, self.output_dim) < 1:
            raise ConfigError(
                f"AudioSealConfig: sample_rate {self.sample_rate}, bits {self.bits}, output_dim {self.output_dim}",
                "use values of 1 or more",
            )


class _Message(nn.Module):
    """Holds a vector for each bit when it is 0, and one for when it is 1, under their published name."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.msg_processor = nn.Embedding(2 * bits, width)

    def forward(self, message: Tensor) -> Tensor:
        """[B, bits] of 0 and 1 -> [B, D]."""
        rows = 2 * torch.arange(message.shape[1], device=message.device) + message.long()
        return self.msg_processor(rows).sum(1)


class AudioSealGenerator(nn.Module):
    """Waveforms [B, S] and messages [B, bits] to watermarks [B, S], which are added to the sound."""

    def __init__(self, config: AudioSealConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = config.seanet.encoder(), config.seanet.decoder()
        self.msg_processor = _Message(config.bits, config.seanet.dimension)

    def forward(self, waveform: Tensor, message: Tensor) -> Tensor:
        hidden = self.encoder(waveform[:, None]) + self.msg_processor(message)[..., None]
        return self.decoder(hidden)[:, 0, : waveform.shape[1]]


class _Upsampled(nn.Module):
    """An encoder whose frames are brought back to samples by one transposed convolution."""

    def __init__(self, config: AudioSealConfig) -> None:
        super().__init__()
        seanet, hop = config.seanet, config.seanet.hop_length
        self.model = config.seanet.encoder().model
        self.reverse_convolution = Upsampling(seanet.dimension, config.output_dim, hop, hop)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = run_layers(self.model, waveform[:, None])
        return self.reverse_convolution(frames)[..., : waveform.shape[1]]


class AudioSealDetector(nn.Module):
    """Waveforms [B, S] to scores [B, 2 + bits, S]: unmarked, marked, and each bit."""

    def __init__(self, config: AudioSealConfig) -> None:
        super().__init__()
        self.detector = nn.Sequential(_Upsampled(config), nn.Conv1d(config.output_dim, 2 + config.bits, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.detector(waveform)

    def probabilities(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability [B, S] that each sample is marked, and that each bit [B, bits] of the message is 1.

        Scores of bits are averaged over time before they become probabilities, as published.
        """
        scores = self(waveform)
        return scores[:, :2].softmax(1)[:, 1], scores[:, 2:].mean(2).sigmoid()


class AudioSeal(nn.Module):
    """Generator and detector."""

    def __init__(self, config: AudioSealConfig) -> None:
        super().__init__()
        self.config = config
        self.generator, self.detector_model = AudioSealGenerator(config), AudioSealDetector(config)

    def marked(self, waveform: Tensor, message: Tensor, strength: float = 1.0) -> Tensor:
        """Return waveforms [B, S] of the model's rate with messages [B, bits] of 0 and 1 in them."""
        return waveform + strength * self.generator(waveform, message)


def import_audioseal(generator: Path, detector: Path) -> AudioSeal:
    """Read the two published files (`generator_base.pth`, `detector_base.pth`), or one that holds both under prefixes.

    Raises:
        VoiceError: for a file that cannot be read safely, or holds something else.
    """
    tensors = {
        **_under(generator, "generator", ("encoder.", "decoder.", "msg_processor.")),
        **_under(detector, "detector_model", ("detector.",)),
    }
    who = f"{generator}, {detector}"
    try:
        config = _config_of(tensors)
    except KeyError as error:
        raise VoiceError(
            f"{who}: no AudioSeal ({error.args[0]} is missing)",
            "give generator_base.pth and detector_base.pth of facebookresearch/audioseal",
        ) from error
    model = AudioSeal(config)
    check_fit(model.state_dict(), tensors, who)
    model.load_state_dict(tensors)
    return model.eval()


def _under(file: Path, prefix: str, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors of one of the two, with the prefix, whether the file has it or not."""
    tensors = fold_weight_norm({name: tensor.float() for name, tensor in read_checkpoint(file).tensors.items()})
    whole = f"{prefix}."
    if any(name.startswith(whole) for name in tensors):
        return {name: tensor for name, tensor in tensors.items() if name.startswith(whole)}
    return {f"{whole}{name}": tensor for name, tensor in tensors.items() if name.startswith(names)}


def _config_of(tensors: dict[str, Tensor]) -> AudioSealConfig:
    encoder = "generator.encoder.model."
    width = tensors[f"{encoder}0.conv.conv.weight"].shape[0]
    downs = {int(name[len(encoder) :].split(".")[0]): t for name, t in tensors.items() if _is_down(name, encoder)}
    last = max(downs)
    ratios = [downs[place].shape[2] // 2 for place in sorted(downs) if place not in (0, last)]
    blocks = [t for name, t in tensors.items() if name.startswith(encoder) and ".block.1.conv.conv.weight" in name]
    block = max(blocks, key=lambda weight: weight.shape[1])  # where rounding of its width does not show
    lstm = {name.rsplit("_l", 1)[1] for name in tensors if name.startswith(encoder) and "lstm.weight_ih_l" in name}
    seanet = SEANetConfig(
        dimension=downs[last].shape[0],
        n_filters=width,
        ratios=tuple(reversed(ratios)),
        n_residual_layers=1,
        kernel_size=downs[0].shape[2],
        last_kernel_size=downs[last].shape[2],
        residual_kernel_size=block.shape[2],
        compress=max(1, block.shape[1] // block.shape[0]),
        lstm=len(lstm),
        causal=False,
        pad_mode="constant",
        true_skip=True,
    )
    head = tensors["detector_model.detector.1.weight"]
    return AudioSealConfig(bits=head.shape[0] - 2, seanet=seanet, output_dim=head.shape[1])


def _is_down(name: str, prefix: str) -> bool:
    """Whether this is the weight of a convolution of its own, not of a residual block."""
    parts = name.removeprefix(prefix).split(".") if name.startswith(prefix) else []
    return parts[1:] == ["conv", "conv", "weight"]
