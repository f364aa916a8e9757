"""Trains a watermark: its generator and detector together, on clips that are marked in part and attacked on their way.

Of AudioSeal (arXiv 2401.17264) it has marks in parts of clips, messages, and attacks. Those that cannot be differentiated are
done for real, and their gradient is passed straight through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.share import Share, mean_of
from flowtts_core.training.batches import VocoderBatch
from flowtts_core.training.log import TrainingLog
from flowtts_core.watermark import attacks
from flowtts_core.watermark.marker import hop_of
from flowtts_core.watermark.spectral import SpectralMark

_CODECS = (("mp3", 128_000), ("mp3", 64_000), ("mp3", 32_000), ("aac", 64_000), ("opus", 32_000), ("opus", 16_000))
_QUIET = 0.02  # of the clip's level: frames below hold nothing that a gain could change
_SHARPNESS = 4.0  # of the mean score of a clip, when a bit is read from it


@dataclass(frozen=True)
class WatermarkTaskConfig:
    """How a watermark is trained.

    Attributes:
        loud_decibels: the largest gain at the first step; it falls to the mark's own within `settle` of the steps, so that
            the detector has something to find before the mark becomes quiet.
        error_db: how far the mark must lie below the sound; what is louder is a loss, weighted by `quality_weight`.
        attacked: share of clips that are attacked; none in the first `calm` of the steps, all of it after twice as many.
    """

    loud_decibels: float = 6.0
    settle: float = 0.5
    error_db: float = 26.5
    quality_weight: float = 1.0
    attacked: float = 0.8
    calm: float = 0.08

    def __post_init__(self) -> None:
        if not (self.loud_decibels > 0 and 0 <= self.settle <= 1 and 0 <= self.attacked <= 1):
            raise ConfigError(
                f"WatermarkTaskConfig: loud_decibels {self.loud_decibels}, settle {self.settle}, attacked {self.attacked}",
                "use a gain above 0, and shares from 0 to 1",
            )


@dataclass(frozen=True)
class _Sent:
    """Clips on their way: sound, and which samples of it are marked."""

    waveform: Tensor  # [B, S]
    marked: Tensor  # [B, S] 0 or 1


class WatermarkTask:
    """Trains a `SpectralMark` on crops of speech."""

    ema_module = "mark"

    def __init__(
        self, mark: SpectralMark, sample_rate: int, steps: int, probe: VocoderBatch, config: WatermarkTaskConfig
    ) -> None:
        self.mark, self.sample_rate, self.steps, self.probe, self.config = mark, sample_rate, steps, probe, config
        self.modules: dict[str, nn.Module] = {"mark": mark}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"mark": list(self.mark.parameters())}

    def updates(
        self, batch: VocoderBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        share = self.config.attacked * min(1.0, max(0.0, step / max(1.0, self.config.calm * self.steps) - 1))
        yield "mark", self._losses(self.mark, batch.waveform, self.decibels(step), share, generator, batch.share)

    def decibels(self, step: int) -> float:
        """Return the largest gain at a step."""
        last, passed = self.mark.config.decibels, step / max(1.0, self.config.settle * self.steps)
        first = max(last, self.config.loud_decibels)
        return float(last * (first / last) ** (1 - min(1.0, passed)))

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, SpectralMark)
        return self._losses(module, batch.waveform, module.config.decibels, self.config.attacked, generator)["loss"]

    def _losses(
        self,
        mark: SpectralMark,
        waveform: Tensor,
        decibels: float,
        attacked: float,
        generator: torch.Generator,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        message = torch.from_numpy(rng.integers(0, 2, (len(waveform), mark.config.bits))).to(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            marked = mark.marked(waveform, self.sample_rate, message, decibels)
        spans = torch.from_numpy(np.stack([_span(waveform.shape[1], rng) for _ in waveform])).to(waveform)
        sent = self._sent(_Sent(waveform + spans * (marked - waveform), spans), attacked, rng)
        scores = mark.scores(sent.waveform, self.sample_rate).float()
        hop = hop_of(self.sample_rate)
        there = sent.marked[:, ::hop]  # in the middle of each frame
        scores = scores[:, : there.shape[1]]
        loud = _loud(sent.waveform, hop)[:, : there.shape[1]]
        presence = _weighted(F.binary_cross_entropy_with_logits(scores[..., 0], there, reduction="none"), loud)
        heard = loud * there
        wanted = message[:, None].expand(-1, scores.shape[1], -1)
        each = F.binary_cross_entropy_with_logits(scores[..., 1:], wanted, reduction="none").mean(2)
        whole = (scores[..., 1:] * heard[..., None]).sum(1) / heard.sum(1, keepdim=True).clamp(min=1)
        read = F.binary_cross_entropy_with_logits(whole * _SHARPNESS, message, reduction="none").mean(1)
        told = (heard.sum(1) >= 30).float()  # a third of a second at least
        quality = self._quality(waveform, marked, decibels)
        losses = {
            "presence": presence,
            "frame_bits": _weighted(each, heard),
            "clip_bits": _weighted(read, told),
            "quality": quality,
        }
        losses = {name: mean_of(share, value) for name, value in losses.items()}
        weights = {"presence": 0.3, "frame_bits": 2.0, "clip_bits": 1.0, "quality": self.config.quality_weight}
        return {**losses, "loss": torch.stack([weights[name] * value for name, value in losses.items()]).sum()}

    def _quality(self, waveform: Tensor, marked: Tensor, decibels: float) -> Tensor:
        """How much too loud the mark is, in tens of decibels; at larger gains more is allowed."""
        error = (marked - waveform).square().sum(1) / waveform.square().sum(1).clamp(min=1e-6)
        allowed = 10 ** (-self.config.error_db / 10) * (decibels / self.mark.config.decibels) ** 2
        return F.relu((error / allowed + 1e-6).log10()).mean()

    def _sent(self, clips: _Sent, attacked: float, rng: np.random.Generator) -> _Sent:
        """Attack clips, and cut them where frames do not begin."""
        chosen = [str(name) for name in rng.choice(_KINDS, len(clips.waveform), p=_WEIGHTS)]
        free = rng.random(len(chosen)) >= attacked
        kinds = ["none" if skip else kind for kind, skip in zip(chosen, free, strict=True)]
        waveform, marked = clips.waveform, clips.marked
        coded = [row for row, kind in enumerate(kinds) if kind == "coded"]
        if coded:
            codec, bit_rate = _CODECS[int(rng.integers(len(_CODECS)))]
            sound = waveform[coded].detach().cpu().numpy()
            back = attacks.coded(sound.reshape(-1), self.sample_rate, codec, bit_rate).reshape(sound.shape)
            waveform = waveform.index_add(0, torch.tensor(coded), torch.from_numpy(back - sound).to(waveform))
        rows, places = [], []
        for row, kind in enumerate(kinds):
            own, where = _changed(kind, waveform[row], marked[row], self.sample_rate, rng)
            rows.append(own)
            places.append(where)
        begin = int(rng.integers(0, hop_of(self.sample_rate)))
        return _Sent(torch.stack(rows)[:, begin:], torch.stack(places)[:, begin:])

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, SpectralMark)
        waveform = self.probe.waveform.cpu()
        message = torch.tensor([[bit % 2 for bit in range(module.config.bits)]]).expand(len(waveform), -1)
        marked = module.cpu().marked(waveform, self.sample_rate, message)
        log.audio(step, "marked", marked.flatten(), self.sample_rate)
        log.audio(step, "difference", (marked - waveform).flatten(), self.sample_rate)


def _span(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Which samples are marked: all, none, or a piece."""
    kind, span = rng.random(), np.zeros(samples, dtype=np.float32)
    if kind < 0.4:
        span[:] = 1
    elif kind < 0.8:
        begin, end = np.sort(rng.integers(0, samples + 1, 2))
        span[begin:end] = 1
    return span


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _loud(waveform: Tensor, hop: int) -> Tensor:
    """1 for frames that are not silent, [B, T]."""
    frames = F.pad(waveform.detach(), (hop, 2 * hop)).unfold(1, 2 * hop, hop).square().mean(2).sqrt()
    return (frames > _QUIET * waveform.detach().square().mean(1, keepdim=True).sqrt()).float()


_CHOICES = {
    "none": 1.0,
    "coded": 5.0,
    "resampled": 1.5,
    "noisy": 1.5,
    "band": 1.0,
    "speed": 1.5,
    "pitch": 0.7,
    "echo": 0.7,
    "gain": 0.7,
}
_KINDS = tuple(_CHOICES)
_WEIGHTS = np.array(list(_CHOICES.values())) / sum(_CHOICES.values())


def _changed(
    kind: str, waveform: Tensor, marked: Tensor, sample_rate: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Attack one clip [S] and what is marked of it [S]; both keep their length."""
    if kind == "speed":
        return _faster(waveform, marked, float(rng.uniform(0.9, 1.1)))
    if kind in ("none", "coded"):
        return waveform, marked
    sound = waveform.detach().cpu().numpy()
    made = _attacked(kind, sound, sample_rate, rng)
    if kind == "pitch":  # moves in time too: a gradient would be of other samples
        return torch.from_numpy(made).to(waveform), marked
    return waveform + torch.from_numpy(made - sound).to(waveform), marked


def _attacked(kind: str, sound: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "resampled":
        return attacks.at_rate(sound, rate, int(rng.choice((8000, 11_025, 16_000))))
    if kind == "noisy":
        return attacks.noisy(sound, rng.uniform(15, 40), rng)
    if kind == "band":
        return attacks.band_limited(sound, rate, rng.uniform(0, 500), rng.uniform(3000, rate / 2))
    if kind == "pitch":
        return attacks.at_pitch(sound, rate, rng.uniform(-1.5, 1.5))
    if kind == "echo":
        return attacks.echoed(sound, rate, rng.uniform(0.02, 0.3), rng.uniform(0.1, 0.5))
    return np.asarray(sound * 10 ** (rng.uniform(-20, 6) / 20), dtype=np.float32).clip(-1, 1)


def _faster(waveform: Tensor, marked: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Play faster, as `attacks.at_speed`, with a gradient; what is then missing at the end is silence."""
    places = torch.arange(len(waveform), device=waveform.device) * factor
    inside = places < len(waveform) - 1
    low = places.clamp(max=len(waveform) - 2).long()
    part = (places - low).clamp(0, 1)
    sound = waveform[low] * (1 - part) + waveform[low + 1] * part
    return torch.where(inside, sound, 0.0), torch.where(inside, marked[low], 0.0)
