"""Word times for voices that do not tell them: the words of a known English text are searched for in its sound.

The text encoder of the bundled flow voice predicts the log-mel of each token, and the search that trained it (monotonic
alignment, Glow-TTS, arXiv:2005.11129) finds each token's frames. Other speakers differ from that voice mostly by a constant
in each mel band, which is taken out. Silences may lie between any two words, at no cost: the encoder expects them at
punctuation alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

import numpy as np
import torch

from flowtts_core.acoustic.alignment import gaussian_log_likelihood, monotonic_alignment, path_durations
from flowtts_core.acoustic.base import Condition
from flowtts_core.acoustic.matcha.model import MatchaTTS
from flowtts_core.audio.files import resample
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.engines.base import WordTime, word_times
from flowtts_core.errors import FlowTTSError
from flowtts_core.text.frontends.base import EncodedText, Word
from flowtts_core.voice.card import FLOW_VOICE
from flowtts_core.voice.parts import FlowVoice, load_parts

log = logging.getLogger(__name__)

# Silence: frames so far below the loud ones, for so long. Closures of plosives are shorter.
_SILENCE_DB, _SILENCE_S = -35.0, 0.1
_WORD_IN_SILENCE = -300.0  # score of such a frame; one of speech that does not fit its token has some -100
_SPREAD = 20.0  # log-likelihood by which another token fits a frame better, where the own one has a fit of 1/e


@dataclass(frozen=True)
class TokenFrames:
    """How a sound is shared out over the tokens of its text.

    Attributes:
        frames: [L] of each token.
        fit: [L] from 0 to 1, the mean over a token's frames; 1 where no other token of the text fits them better, 0 where it
            has none.
        silent: [T] whether a frame lies in a silence.
        frame_s: seconds of a frame.
    """

    frames: torch.Tensor
    fit: torch.Tensor
    silent: np.ndarray
    frame_s: float


class WordAligner:
    """Finds the words of an English text in its sound; safe to use from several threads.

    Args:
        voice: of a Matcha-TTS acoustic model, of which the first speaker is taken, and an English front end.
    """

    def __init__(self, voice: FlowVoice) -> None:
        assert isinstance(voice.acoustic, MatchaTTS)
        self.model, self.frontend = voice.acoustic, voice.frontend
        self._reading = threading.Lock()  # front ends fill caches as they read

    def words(
        self, text: str, words: Sequence[Word], waveform: np.ndarray, sample_rate: int
    ) -> tuple[WordTime, ...] | None:
        """Return when the words are spoken.

        Args:
            text: of an utterance.
            words: of that text, as the front end of the voice that spoke it cut them.
            waveform: [S].

        Returns:
            None where they cannot be found: in silence, in a text that cannot be read, in a sound too short for it.
        """
        if not waveform.any():
            return None
        try:
            with self._reading:
                encoded = self.frontend.encode(text)
        except FlowTTSError:
            return None
        found = self.align(encoded, waveform, sample_rate)
        if found is None:
            return None
        heard = word_times(encoded, found.frames.tolist(), found.frame_s)
        return matched(words, heard, len(waveform) / sample_rate)

    def align(self, encoded: EncodedText, waveform: np.ndarray, sample_rate: int) -> TokenFrames | None:
        """Return the frames of each token in a waveform [S]; None where it has fewer frames than tokens."""
        samples = resample(waveform, sample_rate, self.model.features.sample_rate)
        spec = _frames_for(len(encoded.tokens), len(samples), self.model.features)
        if spec.frames_of(len(samples)) < len(encoded.tokens):
            return None
        return self._align(encoded, samples, spec)

    @torch.inference_mode()
    def _align(self, encoded: EncodedText, waveform: np.ndarray, spec: MelConfig) -> TokenFrames:
        """As `align`, with the encoder's mel, perhaps of another hop, at whose rate the waveform is."""
        model, bands = self.model, spec.n_mels
        log_mel = LogMel(replace(spec, pitch=False))(
            torch.from_numpy(np.ascontiguousarray(waveform, np.float32))[None]
        )[0].T  # [T, M]
        silent = torch.from_numpy(silences(log_mel.numpy(), _SILENCE_S / spec.seconds_of(1)))
        tokens = torch.tensor([encoded.tokens])
        lengths = torch.tensor([tokens.shape[1]])
        speaker = torch.tensor([0]) if model.n_speakers > 1 else None
        said = model.encode_item(Condition(tokens, lengths, speaker))
        mean = said.mean[..., :bands]  # a row of pitch tells more of the speaker than of the words
        in_word = torch.zeros(tokens.shape[1], dtype=torch.bool)
        for word in encoded.words:
            in_word[word.token_start : word.token_end] = True
        weights = said.log_durations[0].exp() * in_word
        expected = (mean[0] * (weights / weights.sum())[:, None]).sum(0)  # [M], the mean of the words' frames
        frames = (log_mel - model.mel_mean) / model.mel_std
        frames = frames - frames[~silent].mean(0) + expected
        scores = gaussian_log_likelihood(frames[None], mean)
        scores[:, silent] = _WORD_IN_SILENCE * in_word.float()
        path = monotonic_alignment(scores, lengths, torch.tensor([len(frames)]))
        counts = path_durations(path, tokens.shape[1])[0]
        behind = scores[0].gather(1, path[0][:, None])[:, 0] - scores[0].amax(1)  # [T], 0 where no token fits better
        fit = torch.zeros(tokens.shape[1]).index_add_(0, path[0], (behind / _SPREAD).exp()) / counts.clamp(min=1)
        return TokenFrames(counts, fit, silent.numpy(), spec.seconds_of(1))


def _frames_for(tokens: int, samples: int, spec: MelConfig) -> MelConfig:
    """The mel with a hop short enough for fast speech, which needs a frame for each token: a half or a fourth of it."""
    hop = spec.hop_length
    while samples // hop < tokens and hop > spec.hop_length // 4:
        hop //= 2
    return replace(spec, hop_length=hop)


def silences(log_mel: np.ndarray, shortest: float) -> np.ndarray:
    """Return which frames [T] of a log-mel [T, M] (natural logarithm of amplitudes) lie in a silence.

    Args:
        shortest: frames of the shortest silence.
    """
    level = 10 * np.log10(np.exp(2 * log_mel.astype(np.float64)).mean(1))
    quiet = level < np.percentile(level, 95) + _SILENCE_DB
    runs = [(is_quiet, len(list(run))) for is_quiet, run in groupby(quiet)]
    return np.repeat([is_quiet and length >= shortest for is_quiet, length in runs], [length for _, length in runs])


def matched(words: Sequence[Word], heard: Sequence[WordTime], seconds: float) -> tuple[WordTime, ...]:
    """Return the times of words that one front end cut, from those that another cut of the same text.

    A word takes the time of its characters: part of a longer word, or all of several shorter ones. A word of which
    nothing was heard takes what lies between its neighbours.

    Args:
        heard: words and their times, in the order in which they are spoken.
        seconds: of the sound; no word ends later.
    """
    same = {(word.start, word.end): (word.start_s, word.end_s) for word in heard}
    found: list[WordTime] = []
    earliest = 0.0
    for word in words:
        start_s, end_s = same.get((word.start, word.end)) or _time_between(word, heard, seconds)
        start_s = min(max(start_s, earliest), seconds)
        end_s = min(max(end_s, start_s), seconds)
        found.append(WordTime(word.text, word.start, word.end, start_s, end_s))
        earliest = end_s
    return tuple(found)


def _time_between(word: Word, heard: Sequence[WordTime], seconds: float) -> tuple[float, float]:
    """The time of a word's characters, of which parts of other words were heard, or none."""
    inside = [own for own in heard if own.start < word.end and word.start < own.end]
    if inside:
        return _time_at(inside[0], word.start), _time_at(inside[-1], word.end)
    log.info("nothing was heard of %r: it is placed between its neighbours", word.text)
    before = [own.end_s for own in heard if own.end <= word.start]
    after = [own.start_s for own in heard if own.start >= word.end]
    return before[-1] if before else 0.0, after[0] if after else seconds


def _time_at(word: WordTime, place: int) -> float:
    """Return the second at which the character at `place` is spoken; outside the word, the word's start or end."""
    share = (place - word.start) / (word.end - word.start)
    return word.start_s + min(max(share, 0.0), 1.0) * (word.end_s - word.start_s)


@cache
def _bundled() -> WordAligner:
    return WordAligner(load_parts(FLOW_VOICE))


def open_aligner(threads: int | None = None) -> WordAligner:
    """Return this process's aligner, made at first use; torch takes `threads` in this process, by default one.

    The tensors are small: a second thread gains nothing, and on a busy machine waits for its turn.
    """
    torch.set_num_threads(threads or 1)
    return _bundled()
