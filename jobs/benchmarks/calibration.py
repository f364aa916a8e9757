"""Measure how well speaker similarity tells speakers apart: cosines within and between speakers, equal error rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.files import read_audio
from flowtts_core.errors import ConfigError
from flowtts_core.metrics import similarity
from flowtts_core.metrics.bootstrap import ROUNDS, SEED, Interval
from flowtts_core.metrics.parallel import parallel_starmap
from jobs.corpus.clips import AUDIO_SUFFIXES


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of the cosines of pairs, the equal error rate with its interval, and its threshold."""

    speakers: int
    utterances: int
    same: tuple[float, float, int]  # mean, standard deviation, pairs
    different: tuple[float, float, int]
    eer: Interval
    threshold: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def calibrate(folder: Path, workers: int | None = None, utterances: int | None = None) -> Calibration:
    """Compare the recordings of a folder with one folder per speaker; of each the first `utterances`, or all.

    Raises:
        ConfigError: for fewer than two speakers with two recordings.
    """
    files = {
        place.name: [file for file in sorted(place.iterdir()) if file.suffix.lower() in AUDIO_SUFFIXES][:utterances]
        for place in sorted(folder.iterdir() if folder.is_dir() else [])
        if place.is_dir()
    }
    files = {speaker: own for speaker, own in files.items() if len(own) >= 2}
    if len(files) < 2:
        raise ConfigError(f"{folder}: {len(files)} speakers with two recordings", "give a folder for each of 2 or more")
    embedded = iter(parallel_starmap(embed, [(str(file),) for own in files.values() for file in own], workers))
    return of_embeddings([np.stack([next(embedded) for _ in own]) for own in files.values()])


def embed(path: str) -> np.ndarray:
    """Return the speaker embedding [256] of a recording."""
    return similarity.embed(*read_audio(path))


def of_embeddings(voices: list[np.ndarray]) -> Calibration:
    """Compare all pairs of embeddings. Each array holds one speaker's, [N, D], of length 1.

    The bootstrap resamples speakers, not pairs or utterances: pairs of one speaker depend on each other, and the interval
    must tell how the rate would be for other speakers. A speaker who is drawn twice is not compared with himself.
    """
    s = len(voices)
    within = [(own @ own.T)[np.triu_indices(len(own), 1)] for own in voices]
    between = {(a, b): (voices[a] @ voices[b].T).ravel() for a, b in combinations(range(s), 2)}
    same, different = np.concatenate(within), np.concatenate(list(between.values()))
    rate, threshold = similarity.equal_error_rate(same, different)
    rng, rates = np.random.default_rng(SEED), []
    for drawn in rng.integers(0, s, size=(ROUNDS, s)):
        pairs = [between[min(a, b), max(a, b)] for a, b in combinations(drawn, 2) if a != b]
        if pairs:
            rates.append(
                similarity.equal_error_rate(np.concatenate([within[a] for a in drawn]), np.concatenate(pairs))[0]
            )
    low, high = np.percentile(rates, [2.5, 97.5])
    spread = [(float(x.mean()), float(x.std()), len(x)) for x in (same, different)]
    return Calibration(
        s, sum(map(len, voices)), spread[0], spread[1], Interval(rate, float(low), float(high), s), threshold
    )
