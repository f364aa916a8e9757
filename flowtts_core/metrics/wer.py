"""Word error rate: edits between the text and the words that a recogniser (pocketsphinx) heard, per word of the text.

pocketsphinx is an old recogniser, so its rate is relative: compare voices on the same texts, best with a human recording or
the teacher among them. Lower is better. An utterance that could not be made counts as all wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flowtts_core.metrics import bootstrap
from flowtts_core.metrics.bootstrap import Interval
from flowtts_core.metrics.english import normalize_english
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.signal import RATE, to_16k

PEAK = 0.7  # the level, and the pauses around speech, that suit the recogniser best
REST_S = 0.2


@dataclass(frozen=True)
class WordErrors:
    """The number of errors and of words of each utterance. `+` joins two sets of utterances."""

    errors: tuple[int, ...]  # [N]
    words: tuple[int, ...]  # [N]

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.errors + other.errors, self.words + other.words)

    def rate(self) -> Interval:
        """Return the corpus rate (all errors by all words) with its bootstrap interval."""
        return bootstrap.ratio(self.errors, self.words)

    def difference(self, other: WordErrors) -> Interval:
        """Return this rate minus the other's on the same texts in the same order, with its paired bootstrap interval."""
        if self.words != other.words:
            raise ValueError("paired rates need the same texts in the same order")
        return bootstrap.ratio_difference(self.errors, other.errors, self.words)


def transcribe(waveform: np.ndarray, sample_rate: int) -> str:
    """Return the words that pocketsphinx's en-us model hears in the waveform [S], independent of earlier calls.

    Raises:
        DependencyError: without pocketsphinx.
        AudioError: for an empty, many-channel or non-finite waveform.
    """
    require("pocketsphinx")
    heard = to_16k(waveform, sample_rate)
    peak = float(np.abs(heard).max())
    if peak == 0:
        return ""
    rest = np.zeros(round(REST_S * RATE), dtype=np.float32)
    pcm = (np.concatenate([rest, heard * (PEAK / peak), rest]) * 32767).astype(np.int16)
    decoder = _decoder()
    decoder.reinit_feat()  # resets the cepstral mean of the utterance before
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return str(hypothesis.hypstr) if hypothesis else ""


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Count the errors of each hypothesis after `normalize_english` on both sides.

    Raises:
        DependencyError: without jiwer.
        ValueError: when the two sides differ in number.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references against {len(hypotheses)} hypotheses")
    counts = [errors_of(said, heard) for said, heard in zip(references, hypotheses, strict=True)]
    return WordErrors(tuple(errors for errors, _ in counts), tuple(words for _, words in counts))


def errors_of(
    said: str,
    heard: str,
    *,
    characters: bool = False,
    normalizer: Callable[[str], str] | None = normalize_english,
) -> tuple[int, int]:
    """Return (errors, words) of one utterance, or its (errors, characters), spaces included.

    Args:
        normalizer: applied to both sides. None compares the texts as they are, as jiwer does: case, accents and punctuation
            count, space at either end does not, and repeated spaces separate words as one does but count as characters.

    Returns:
        The least number of substitutions, deletions and insertions, and the length of the text. For an empty text each word
        heard is an error (jiwer returns that number as the rate); two empty sides give (0, 0).

    Raises:
        DependencyError: without jiwer.
    """
    if normalizer:
        said, heard = normalizer(said), normalizer(heard)
    said, heard = said.strip(), heard.strip()
    if not said or not heard:  # jiwer takes no empty side before version 4
        sizes = [len(side) if characters else len(side.split()) for side in (said, heard)]
        return sum(sizes), sizes[0]
    jiwer = require("jiwer")
    found = jiwer.process_characters(said, heard) if characters else jiwer.process_words(said, heard)
    return found.substitutions + found.deletions + found.insertions, found.hits + found.substitutions + found.deletions


def alignment(
    said: str, heard: str, normalizer: Callable[[str], str] = normalize_english
) -> list[tuple[str, str, str]]:
    """Align the words heard with the words of the text, after `normalizer`: runs of (kind, words said, words heard).

    The kind is "equal", "substitute", "delete" (in the text, not heard) or "insert" (heard, not in the text).
    """
    said, heard = normalizer(said), normalizer(heard)
    if not said or not heard:
        return [("delete", said, "")] if said else [("insert", "", heard)] if heard else []
    found = require("jiwer").process_words(said, heard)
    ours, theirs = said.split(), heard.split()
    return [
        (
            run.type,
            " ".join(ours[run.ref_start_idx : run.ref_end_idx]),
            " ".join(theirs[run.hyp_start_idx : run.hyp_end_idx]),
        )
        for run in found.alignments[0]
    ]


@lru_cache(maxsize=1)
def _decoder() -> Any:
    sphinx = require("pocketsphinx")
    return sphinx.Decoder(sphinx.Config(loglevel="FATAL"))
