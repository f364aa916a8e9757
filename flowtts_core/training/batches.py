"""Batches in a fixed order: the global batch depends on seed and step alone, whatever process computes which of its items.

So a resumed run sees what an uncut one would, and goes on with the same batches on another number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flowtts_core.acoustic.base import AcousticBatch, AcousticModel, Condition
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.nn.share import Share
from flowtts_core.sampling import Sampling
from flowtts_core.training.augmentation import Augmentation, augmented
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.examples import Examples

JITTER = 0.05  # of lengths when an epoch is sorted by them, so that epochs do not pair the same utterances


@dataclass(frozen=True)
class VocoderBatch:
    mel: Tensor  # [B, M, T]
    waveform: Tensor  # [B, samples_of(T)]
    share: Share | None = None

    def to(self, device: torch.device | str) -> VocoderBatch:
        return VocoderBatch(self.mel.to(device), self.waveform.to(device), self.share)


class Batches(Protocol):
    """`at(step, ranks)` gives this process's share of the global batch of a step: whatever the task takes, with `to(device)`.

    `validation()` gives the batches of what is held out, always the same; none where nothing is.
    """

    def at(self, step: int, ranks: Ranks = ALONE) -> Any: ...

    def validation(self) -> Sequence[Any]: ...


def split(frames: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide items so that the sums of the parts' frames differ little: the longest first, each to the part with the least.

    Returns:
        Places in `frames` for each part; with fewer items than parts, the last ones are empty.
    """
    order = np.argsort(-frames, kind="stable")
    loads, chosen = np.zeros(parts, dtype=np.int64), list[list[int]]([] for _ in range(parts))
    for place in order:
        least = int(np.argmin(loads))
        loads[least] += frames[place]
        chosen[least].append(int(place))
    return [np.sort(np.array(part, dtype=np.int64)) for part in chosen]


def share_of(frames: np.ndarray, ranks: Ranks) -> Share | None:
    """Return this process's share of a batch of items of so many frames; None where it computes the whole."""
    if ranks.size == 1:
        return None
    rows = split(frames, ranks.size)[ranks.rank]
    counted = len(rows) > 0
    return Share(torch.from_numpy(rows if counted else np.zeros(1, np.int64)), len(frames), counted, ranks.total)


class AcousticBatches:
    """Whole utterances of similar length, as many as fit into a budget of padded frames.

    Args:
        frames_per_batch: budget of a global batch, padding included.
        seed: of the shuffling.
        speaker_rows: the number that the model has for each of the corpus's speakers (one where it names none); by default
            they are counted from 0, and a corpus of one speaker asks for none.
    """

    def __init__(
        self, examples: Examples, frames_per_batch: int, seed: int, speaker_rows: Sequence[int] | None = None
    ) -> None:
        self.examples, self.frames_per_batch, self.seed = examples, frames_per_batch, seed
        if speaker_rows is None and len(examples.meta.speakers) > 1:
            speaker_rows = range(len(examples.meta.speakers))
        self.speaker_rows = speaker_rows
        self._epoch, self._plan = -1, self._plan_epoch(0)
        self.per_epoch = len(self._plan)

    def at(self, step: int, ranks: Ranks = ALONE) -> AcousticBatch:
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._plan_epoch(epoch)
        indices = self._plan[index]
        return self._collate(indices, share_of(self.examples.frames[indices], ranks))

    def items(self, indices: Iterable[int]) -> AcousticBatch:
        """Return a batch of chosen examples."""
        return self._collate(np.array(list(indices), dtype=np.int64), None)

    def validation(self) -> list[AcousticBatch]:
        held_out = self.examples.held_out
        if held_out is None:
            return []
        batches = type(self)(held_out, self.frames_per_batch, self.seed, self.speaker_rows)
        return [batches.at(step) for step in range(batches.per_epoch)]

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        """Return an epoch's batches: a jittered sort by length, cut by the budget.

        The cuts are those of epoch 0, so that every epoch has as many batches.
        """
        rng = np.random.default_rng((self.seed, epoch))
        frames = self.examples.frames.astype(np.float64)
        order = np.argsort(frames * rng.uniform(1 - JITTER, 1 + JITTER, len(frames)), kind="stable")[::-1]
        if epoch == 0:
            self._cuts = _budget_cuts(np.sort(frames)[::-1], self.frames_per_batch)
        plan = np.split(order, self._cuts)
        return [plan[i] for i in rng.permutation(len(plan))]

    def _collate(self, indices: np.ndarray, share: Share | None) -> AcousticBatch:
        """Return the batch or its share, padded as the whole batch: so an item meets the same random numbers in either."""
        examples, mine = self.examples, indices if share is None else indices[share.rows.numpy()]
        examples.fetch(mine)
        tokens = torch.zeros(len(mine), int(examples.token_counts[indices].max()), dtype=torch.int64)
        mel = torch.zeros(len(mine), examples.meta.mel.rows, int(examples.frames[indices].max()))
        for row, index in enumerate(mine):
            own, picture = examples.tokens(int(index)), examples.mel(int(index))
            tokens[row, : len(own)] = torch.from_numpy(own)
            mel[row, :, : picture.shape[1]] = torch.from_numpy(picture.astype(np.float32))
        lengths = torch.from_numpy(examples.token_counts[mine].astype(np.int64))
        rows = self.speaker_rows
        speakers = None if rows is None else torch.tensor([rows[number] for number in examples.speaker_ids[mine]])
        mel_lengths = torch.from_numpy(examples.frames[mine].astype(np.int64))
        return AcousticBatch(Condition(tokens, lengths, speakers), mel, mel_lengths, share)


def _budget_cuts(frames: np.ndarray, budget: int) -> list[int]:
    """Return the indices at which a descending list of lengths is cut so that count x longest stays within the budget.

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
    """Random crops of `crop_frames` frames of random clips, mel and waveform cut at the same place.

    Args:
        augmentation: changes the recordings before their mels are computed; pitch stays that of the recording.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        crop_frames: int,
        seed: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.examples, self.batch_size, self.crop_frames, self.seed = examples, batch_size, crop_frames, seed
        self.augmentation = augmentation if augmentation and augmentation.changes else None
        self.usable = np.flatnonzero(examples.frames >= crop_frames)
        if len(self.usable) == 0:
            raise ConfigError(f"no clip has {crop_frames} frames", f"use crop_frames up to {examples.frames.max()}")

    def at(self, step: int, ranks: Ranks = ALONE) -> VocoderBatch:
        clips, starts = self._drawn(step)
        share = share_of(np.full(self.batch_size, self.crop_frames), ranks)
        mine = range(self.batch_size) if share is None else share.rows.tolist()
        self.examples.fetch(clips[list(mine)])
        crops = [self._example(step, row, int(clips[row]), starts[row]) for row in mine]
        mels, waveforms = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        return VocoderBatch(mels, waveforms, share)

    def _drawn(self, step: int) -> tuple[np.ndarray, list[int]]:
        """Return the clips of a step's global batch, and the frame at which each is cut."""
        rng = np.random.default_rng((self.seed, step, 0))
        weights = self.examples.frames[self.usable].astype(np.float64)
        clips = rng.choice(self.usable, self.batch_size, p=weights / weights.sum())
        return clips, [int(rng.integers(0, self.examples.frames[clip] - self.crop_frames + 1)) for clip in clips]

    def validation(self) -> list[VocoderBatch]:
        """Return the middles of the clips that are held out, as far as they are long enough."""
        held_out = self.examples.held_out
        if held_out is None or held_out.frames.max() < self.crop_frames:
            return []
        batches = self._over(held_out)
        clips = np.split(batches.usable, range(self.batch_size, len(batches.usable), self.batch_size))
        return [batches._middles(part) for part in clips]

    def _over(self, examples: Examples) -> VocoderBatches:
        """Return the same batches of other clips."""
        return VocoderBatches(examples, self.batch_size, self.crop_frames, self.seed)

    def _middles(self, clips: np.ndarray) -> VocoderBatch:
        crops = [self._crop(int(clip), self._middle(int(clip))) for clip in clips]
        mels, waveforms = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        return VocoderBatch(mels, waveforms)

    def _middle(self, clip: int) -> int:
        return int(self.examples.frames[clip] - self.crop_frames) // 2

    def _example(self, step: int, row: int, clip: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mel [M, T] and waveform [samples_of(T)] of an item of a step's batch."""
        if self.augmentation is None:
            return self._crop(clip, start)
        rng = np.random.default_rng((self.seed, step, 1, row))
        return self._augmented_crop(clip, start, self.augmentation, rng)

    def _augmented_crop(
        self, clip: int, start: int, how: Augmentation, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change a crop with what the windows of its first and last frames reach, and cut that off again."""
        mel_config, crop = self.examples.meta.mel, self.crop_frames
        reach, hop = -(-mel_config.n_fft // mel_config.hop_length), mel_config.hop_length
        before, after = min(reach, start), min(reach, int(self.examples.frames[clip]) - start - crop)
        frames = before + crop + after
        recording = self.examples.audio(clip, (start - before) * hop, mel_config.samples_of(frames))
        changed = augmented(recording, mel_config.sample_rate, how, rng)
        bands = _bands(mel_config)(torch.from_numpy(changed)[None])[0, :, before : before + crop].numpy()
        pitch = self._mel(clip)[mel_config.n_mels :, start : start + crop].astype(np.float32)
        waveform = changed[before * hop :][: mel_config.samples_of(crop)]
        return np.concatenate([bands, pitch]), waveform

    def _crop(self, clip: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mel [M, T] and waveform [samples_of(T)] from frame `start` on."""
        mel_config, crop = self.examples.meta.mel, self.crop_frames
        mel = self._mel(clip)[:, start : start + crop].astype(np.float32)
        return mel, self.examples.audio(clip, start * mel_config.hop_length, mel_config.samples_of(crop))

    def _mel(self, clip: int) -> np.ndarray:
        return self.examples.mel(clip)


@lru_cache(maxsize=4)
def _bands(mel: MelConfig) -> LogMel:
    """Return what makes the bands of a mel, without its row of pitch."""
    return LogMel(replace(mel, pitch=False))


class AlignedVocoderBatches(VocoderBatches):
    """The same with the mels that an acoustic model makes of the texts, in the time and with the pitch of the recordings.

    Each clip's is made once and kept.

    Args:
        model: on the CPU.
        settings: with which it is sampled.
        speaker_rows: as of `AcousticBatches`.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        crop_frames: int,
        seed: int,
        model: AcousticModel,
        settings: Sampling,
        speaker_rows: Sequence[int] | None = None,
    ) -> None:
        super().__init__(examples, batch_size, crop_frames, seed)
        self._recordings = AcousticBatches(examples, 1, seed, speaker_rows)
        self._model, self._settings, self._made = model, settings, dict[int, np.ndarray]()

    def _over(self, examples: Examples) -> VocoderBatches:
        sizes = (self.batch_size, self.crop_frames, self.seed)
        return AlignedVocoderBatches(examples, *sizes, self._model, self._settings, self._recordings.speaker_rows)

    def _mel(self, clip: int) -> np.ndarray:
        if clip not in self._made:
            recording = self._recordings.items([clip])
            mel = self._model.aligned_features(recording, clip, self._settings)
            if self.examples.meta.mel.pitch:  # the sound is compared with the recording, harmonic by harmonic
                mel = torch.cat([mel[:-1], recording.mel[0, -1:]])
            self._made[clip] = mel.numpy().astype(np.float16)
        return self._made[clip]
