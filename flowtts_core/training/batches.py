"""Batches in a fixed order: a function of seed, step and rank alone, so that a resumed run sees what an uncut one would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flowtts_core.acoustic.base import AcousticBatch, Condition
from flowtts_core.errors import ConfigError
from flowtts_core.training.examples import Examples

JITTER = 0.05  # of lengths when an epoch is sorted by them, so that epochs do not pair the same utterances


@dataclass(frozen=True)
class VocoderBatch:
    mel: Tensor  # [B, M, T]
    waveform: Tensor  # [B, samples_of(T)]

    def to(self, device: torch.device | str) -> VocoderBatch:
        return VocoderBatch(self.mel.to(device), self.waveform.to(device))


class Batches(Protocol):
    """`at(step, rank, world_size)` gives the batch of a step; each rank gets another one of about equal frames."""

    def at(self, step: int, rank: int, world_size: int) -> AcousticBatch | VocoderBatch: ...


class AcousticBatches:
    """Whole utterances of similar length, as many as fit into a budget of padded frames.

    Args:
        frames_per_batch: budget of a batch, padding included.
        seed: of the shuffling.
    """

    def __init__(self, examples: Examples, frames_per_batch: int, seed: int) -> None:
        self.examples, self.frames_per_batch, self.seed = examples, frames_per_batch, seed
        self._epoch, self._plan = -1, self._plan_epoch(0)
        self.per_epoch = len(self._plan)

    def at(self, step: int, rank: int, world_size: int) -> AcousticBatch:
        epoch, index = divmod(step * world_size + rank, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._plan_epoch(epoch)
        return self._collate(self._plan[index])

    def items(self, indices: Iterable[int]) -> AcousticBatch:
        """A batch of chosen examples."""
        return self._collate(np.array(list(indices), dtype=np.int64))

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        """Jittered sort by length, cut by the budget; the cuts are those of epoch 0, so every epoch has as many batches."""
        rng = np.random.default_rng((self.seed, epoch))
        frames = self.examples.frames.astype(np.float64)
        order = np.argsort(frames * rng.uniform(1 - JITTER, 1 + JITTER, len(frames)), kind="stable")[::-1]
        if epoch == 0:
            self._cuts = _budget_cuts(np.sort(frames)[::-1], self.frames_per_batch)
        plan = np.split(order, self._cuts)
        return [plan[i] for i in rng.permutation(len(plan))]

    def _collate(self, indices: np.ndarray) -> AcousticBatch:
        tokens = [torch.from_numpy(self.examples.tokens(int(i))) for i in indices]
        mels = [torch.from_numpy(self.examples.mel(int(i)).T.astype(np.float32)) for i in indices]  # [T, M]
        pad = torch.nn.utils.rnn.pad_sequence
        speakers = (
            torch.from_numpy(self.examples.speaker_ids[indices]) if len(self.examples.meta.speakers) > 1 else None
        )
        condition = Condition(pad(tokens, batch_first=True), torch.tensor([len(t) for t in tokens]), speakers)
        mel = pad(mels, batch_first=True).transpose(1, 2).contiguous()
        return AcousticBatch(condition, mel, torch.tensor([len(m) for m in mels]))


def _budget_cuts(frames: np.ndarray, budget: int) -> list[int]:
    """Indices at which a descending list of lengths is cut so that count x longest stays within the budget.

    The jittered length at place k is at most (1 + JITTER) times the k-th longest, so no item from there on is longer than
    (1 + JITTER) / (1 - JITTER) times it, in any epoch. Only an item that exceeds the budget alone exceeds it.
    """
    cuts, start, slack = [], 0, (1 + JITTER) / (1 - JITTER)
    for i in range(1, len(frames)):
        if (i - start + 1) * frames[start] * slack > budget:
            cuts.append(i)
            start = i
    return cuts


class VocoderBatches:
    """Random crops of `crop_frames` frames of random clips, mel and waveform cut at the same place."""

    def __init__(self, examples: Examples, batch_size: int, crop_frames: int, seed: int) -> None:
        self.examples, self.batch_size, self.crop_frames, self.seed = examples, batch_size, crop_frames, seed
        self.usable = np.flatnonzero(examples.frames >= crop_frames)
        if len(self.usable) == 0:
            raise ConfigError(f"no clip has {crop_frames} frames", f"use crop_frames up to {examples.frames.max()}")

    def at(self, step: int, rank: int, world_size: int) -> VocoderBatch:
        rng = np.random.default_rng((self.seed, step, rank))
        mel_config, crop = self.examples.meta.mel, self.crop_frames
        weights = self.examples.frames[self.usable].astype(np.float64)
        mels, waveforms = [], []
        for index in rng.choice(self.usable, self.batch_size, p=weights / weights.sum()):
            start = int(rng.integers(0, self.examples.frames[index] - crop + 1))
            mels.append(self.examples.mel(int(index))[:, start : start + crop].astype(np.float32))
            first = start * mel_config.hop_length
            waveforms.append(self.examples.audio(int(index), first, mel_config.samples_of(crop)))
        return VocoderBatch(torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(waveforms)))
