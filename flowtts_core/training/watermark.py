"""Trains the net that finds marks, on clips whose bands were raised and lowered at random, and that were attacked."""

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
from flowtts_core.watermark.pattern import BINS, bands
from flowtts_core.watermark.spectral import SpectralMark, analysed, with_gains

_CODECS = (("mp3", 128_000), ("mp3", 64_000), ("mp3", 32_000), ("aac", 64_000), ("opus", 32_000), ("opus", 16_000))
_QUIET = 0.02  # of the clip's level: frames below hold nothing that a gain could change
_ATTACKS = {
    "none": 1.5,
    "coded": 4.0,
    "resampled": 1.0,
    "noisy": 1.0,
    "band": 0.5,
    "echo": 0.5,
    "gain": 0.5,
    "speed": 1.0,
}
_KINDS = tuple(_ATTACKS)
_WEIGHTS = np.array(list(_ATTACKS.values())) / sum(_ATTACKS.values())


@dataclass(frozen=True)
class WatermarkTaskConfig:
    """How the net is trained.

    Attributes:
        first_depth, last_depth: how many times as deep as a mark the gains are at the first step, and from half of the steps on.
            Of a deep one a cell tells more, so that the net learns faster.
    """

    first_depth: float = 3.0
    last_depth: float = 1.0

    def __post_init__(self) -> None:
        if not (self.first_depth >= self.last_depth > 0):
            raise ConfigError(
                f"WatermarkTaskConfig: first_depth {self.first_depth}, last_depth {self.last_depth}",
                "use depths above 0, the first not below the last",
            )


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
        yield "mark", self._losses(self.mark, batch.waveform, self.depth(step), generator, batch.share)

    def depth(self, step: int) -> float:
        """Return how many times as deep as a mark the gains of a step are."""
        first, last = self.config.first_depth, self.config.last_depth
        return float(last * (first / last) ** max(0.0, 1 - 2 * step / self.steps))

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, SpectralMark)
        return self._losses(module, batch.waveform, self.config.last_depth, generator)["loss"]

    def _losses(
        self,
        mark: SpectralMark,
        waveform: Tensor,
        times: float,
        generator: torch.Generator,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            gains = _random_gains(len(waveform), analysed(waveform, self.sample_rate).shape[1], rng).to(waveform)
            marked = with_gains(waveform, self.sample_rate, gains, mark.config.depth.times(times))
            sent, wanted = self._sent(marked, gains, rng)
            level = analysed(sent, self.sample_rate).abs().square().mean(2).sqrt()
            loud = level > _QUIET * level.square().mean(1, keepdim=True).sqrt()
        odds = mark.estimates(sent, self.sample_rate).float()
        weight = (wanted != 0) * loud[..., None]
        loss = (F.softplus(-odds * wanted) * weight).sum() / weight.sum().clamp(min=1)
        right = ((odds * wanted > 0) * weight).sum() / weight.sum().clamp(min=1)
        return {"loss": mean_of(share, loss), "right": mean_of(share, right)}

    def _sent(self, waveform: Tensor, gains: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Attack clips [B, S], and return with them the gains [B, T, BINS] as they then lie; 0 where nobody knows."""
        kinds = [str(kind) for kind in rng.choice(_KINDS, len(waveform), p=_WEIGHTS)]
        sounds = [own.cpu().numpy() for own in waveform]
        coded = [row for row, kind in enumerate(kinds) if kind == "coded"]
        if coded:  # in one file, since to begin one takes longest
            codec, bit_rate = _CODECS[int(rng.integers(len(_CODECS)))]
            joined = attacks.coded(np.concatenate([sounds[row] for row in coded]), self.sample_rate, codec, bit_rate)
            for row, sound in zip(coded, np.split(joined, len(coded)), strict=True):
                sounds[row] = sound
        wanted = gains.clone()
        for row, kind in enumerate(kinds):
            if kind == "speed":
                factor = float(rng.uniform(0.92, 1.08))
                played = attacks.at_speed(sounds[row], factor)[: waveform.shape[1]]
                sounds[row] = np.pad(played, (0, waveform.shape[1] - len(played)))
                wanted[row] = _faster(gains[row], factor)
            elif kind not in ("none", "coded"):
                sounds[row] = _attacked(kind, sounds[row], self.sample_rate, rng)
        return torch.from_numpy(np.stack(sounds).astype(np.float32)).to(waveform), wanted

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        waveform = self.probe.waveform.cpu()
        frames = analysed(waveform, self.sample_rate).shape[1]
        gains = _random_gains(len(waveform), frames, np.random.default_rng(0))
        marked = with_gains(waveform, self.sample_rate, gains, self.mark.config.depth)
        log.audio(step, "marked", marked.flatten(), self.sample_rate)
        log.audio(step, "difference", (marked - waveform).flatten(), self.sample_rate)


def _random_gains(count: int, frames: int, rng: np.random.Generator) -> Tensor:
    """Return 1 or -1 for each bin of a band [B, T, BINS], drawn for each band and frame; 0 outside bands."""
    of = bands()
    drawn = rng.choice(np.array([-1.0, 1.0], np.float32), (count, frames, of.max() + 1))
    return torch.from_numpy(np.where(of >= 0, drawn[..., of], 0).astype(np.float32))


def _faster(gains: Tensor, factor: float) -> Tensor:
    """Return gains [T, BINS] as they lie after a sound was played faster; 0 where they come from beyond."""
    time = (torch.arange(len(gains)) * factor).round().long()
    bins = (torch.arange(1, BINS + 1) / factor).round().long() - 1
    inside = (time < len(gains))[:, None] & (bins < BINS)
    moved = gains[time.clamp(max=len(gains) - 1)][:, bins.clamp(0, BINS - 1)]
    return torch.where(inside.to(gains.device), moved, 0.0)


def _attacked(kind: str, sound: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "resampled":
        return attacks.at_rate(sound, rate, int(rng.choice((8000, 11_025, 16_000))))
    if kind == "noisy":
        return attacks.noisy(sound, rng.uniform(15, 40), rng)
    if kind == "band":
        return attacks.band_limited(sound, rate, rng.uniform(0, 500), rng.uniform(3000, rate / 2))
    if kind == "echo":
        return attacks.echoed(sound, rate, rng.uniform(0.02, 0.3), rng.uniform(0.1, 0.5))
    return np.asarray(sound * 10 ** (rng.uniform(-20, 6) / 20), dtype=np.float32).clip(-1, 1)
