"""Sounds made anew by a factorised codec: with the timbre of another speaker, or as another one speaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from torch import Tensor

from flowtts_core.audio.files import resample
from flowtts_core.audio.loudness import amplify, gain_to, loudness_of
from flowtts_core.audio.pitch import SCALE, pitch_rows
from flowtts_core.audio.reference import Reference
from flowtts_core.audio.spec import AudioSpec
from flowtts_core.codec.base import Encoded
from flowtts_core.codec.factorised import F0_SCALE, SPEAKER, FactorisedCodec, without_detail
from flowtts_core.codec.long import decode_long, encode_long
from flowtts_core.codec.warp import warp
from flowtts_core.errors import AudioError, ConfigError

SHORTEST_S = 0.3  # of what is converted
LONGEST_WARPED_S = 60.0  # of a sound whose prosody is another's, word by word
# Mean distance on the way, by that to the other sound played backwards, up to which both say the same: with a codec of 300
# steps 0.43 to 0.54 for a sentence of three of Kokoro's speakers, 0.78 to 0.89 for five pairs of other sentences.
_SAME_WORDS = 0.65
_TRIED = 3.0  # sounds of which one is so many times as long as the other do not say the same
_SILENT = 10 ** (-60 / 20)
_FURTHEST_DB = 12.0  # that loudness is moved
_HELD = 0.5  # how much it costs to leave a code for one of another sound: its distance, by that of two random ones
_FRAME_S, _SMOOTH = 0.01, 4.0  # of the envelope that syllables are counted in
_LEAST_DB, _APART, _ACTIVE_DB = 3.0, 8, 25.0
_WIDEST, _FASTEST = 3.0, 2.0  # ratios of pitch ranges, and of rates, that are followed
_TOGETHER = 4096  # frames whose codes are chosen at once


@dataclass(frozen=True)
class Manner:
    """How somebody speaks.

    Attributes:
        level, spread: of the natural logarithm of F0: its median, and its standard deviation.
        rate: syllables a second, as peaks of loudness tell.
    """

    level: float
    spread: float
    rate: float


@dataclass(frozen=True)
class Converted:
    """A sound [S] made anew, and what of the prosody was another's: "", "words" (frame by frame) or "manner"."""

    waveform: np.ndarray
    sample_rate: int
    prosody: str


class Converter:
    """Converts sounds.

    Args:
        voice: whose timbre they get; None leaves each its own.
        prosody: as who they are spoken; None leaves each its own.
        same_words: whether `prosody` says the same as what is converted; None: found out for each.

    Raises:
        ConfigError: where nothing is to be changed.
    """

    def __init__(
        self,
        codec: FactorisedCodec,
        voice: Reference | None = None,
        prosody: Reference | None = None,
        same_words: bool | None = None,
    ) -> None:
        if voice is None and prosody is None:
            raise ConfigError("nothing is to be converted", "name a voice, a prosody, or both")
        self.codec, self.same_words = codec, same_words
        self._voice, self._prosody = (None if own is None else self._heard(own) for own in (voice, prosody))
        self._voice_manner = None if voice is None or prosody is None else manner_of(*_sound(voice))
        self._manner = None if prosody is None else manner_of(*_sound(prosody))

    def _heard(self, reference: Reference) -> Encoded:
        return self._encoded(*_sound(reference))

    def _encoded(self, waveform: np.ndarray, sample_rate: int) -> Encoded:
        sound = resample(waveform, sample_rate, self.codec.sample_rate)
        return encode_long(self.codec, torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None])

    @torch.inference_mode()
    def convert(self, waveform: np.ndarray, sample_rate: int) -> Converted:
        """Return a sound [S] made anew, at the codec's rate and about as loud as it was.

        Raises:
            AudioError: for silence, and for what is too short.
        """
        if len(waveform) < SHORTEST_S * sample_rate:
            seconds = len(waveform) / sample_rate
            raise AudioError(f"{seconds:.2f} s of sound, and at least {SHORTEST_S:g} s are needed", "give a longer one")
        if np.ptp(waveform) < _SILENT:
            raise AudioError("silent", "give a recording of speech")
        encoded = without_detail(self.codec, self._encoded(waveform, sample_rate))
        how, speaker = "", encoded.side[SPEAKER] if self._voice is None else self._voice.side[SPEAKER]
        codes = encoded.codes
        if self._prosody is not None:
            codes, how = self._spoken(codes, waveform, sample_rate)
        made = decode_long(self.codec, Encoded(codes, None, {SPEAKER: speaker}))[0].numpy()
        rate = self.codec.sample_rate
        if how != "manner":  # which has another pace
            made = made[: math.ceil(len(waveform) * rate / sample_rate)]
        gain = gain_to(loudness_of(waveform, sample_rate), loudness_of(made, rate), _FURTHEST_DB)
        return Converted(amplify(made, gain, rate, ceiling_dbfs=0.0), rate, how)

    def _spoken(self, codes: Tensor, waveform: np.ndarray, sample_rate: int) -> tuple[Tensor, str]:
        """Return codes with the prosody of another sound, and how it was taken over."""
        assert self._prosody is not None and self._manner is not None
        same, way = self._way(codes, len(waveform) / sample_rate)
        count = self.codec.config.prosody
        if same:
            return torch.cat([self._prosody.codes[:, :count, torch.from_numpy(way)], codes[:, count:]], 1), "words"
        own = manner_of(waveform, sample_rate)
        level = own.level if self._voice_manner is None else self._voice_manner.level
        like = replace(self._manner, level=self._manner.level - level)  # above the timbre's own
        moved = moved_prosody(self.codec, codes, own, like)
        return _at_pace(moved, self._manner.rate / max(own.rate, 1e-3)), "manner"

    def _way(self, codes: Tensor, seconds: float) -> tuple[bool, np.ndarray]:
        """Return whether both sounds say the same, and which frame of the prosody's goes with each of the codes."""
        assert self._prosody is not None
        nothing, there = np.zeros(0, np.int64), self._prosody.codes
        longer = max(codes.shape[-1], there.shape[-1]) / min(codes.shape[-1], there.shape[-1])
        if self.same_words is False or (self.same_words is None and (seconds > LONGEST_WARPED_S or longer > _TRIED)):
            return False, nothing
        if seconds > LONGEST_WARPED_S:
            raise AudioError(
                f"{seconds:.0f} s are too long to follow another recording word by word",
                f"cut it to {LONGEST_WARPED_S:g} s, or let it take the other's manner",
            )
        distances = content_distances(self.codec, codes, there)
        way, mean = warp(distances)
        return self.same_words is True or mean <= _SAME_WORDS * warp(distances[:, ::-1])[1], way


@torch.inference_mode()
def content_distances(codec: FactorisedCodec, codes: Tensor, others: Tensor) -> np.ndarray:
    """Return the distances [T, U] of the content of one sound's codes [1, Q, T] from another's: 1 minus the cosine."""
    both = [codec.attributes(own)["content"][0].T for own in (codes, others)]
    here, there = (torch.nn.functional.normalize(own, dim=1) for own in both)
    return np.asarray((1 - here @ there.T).numpy(), np.float64)


@torch.inference_mode()
def moved_prosody(codec: FactorisedCodec, codes: Tensor, own: Manner, like: Manner) -> Tensor:
    """Return codes [1, Q, T] whose F0 is as high and as wide as another's.

    Each code of prosody gives way to that of the book which is nearest to the wanted F0, to the own energy and to itself.

    Args:
        own: of the sound.
        like: of the other; its `level` is counted from that of the timbre.
    """
    contour = codec.contour(codes)[0]  # [T, 2]
    f0 = contour[:, 0]
    wider = float(np.clip(like.spread / max(own.spread, 1e-3), 1 / _WIDEST, _WIDEST))
    wanted = torch.stack([(f0 - f0.median()) * wider + f0.median() + like.level * F0_SCALE, contour[:, 1]], 1)
    size, count = codec.sizes[0], codec.config.prosody
    book = torch.zeros(1, count, size, dtype=torch.int64)
    book[0, 0] = torch.arange(size)
    vectors = codec.attributes(book)["prosody"][0].T  # [K, D], with the first code of further books
    read = codec.contour(book)[0]
    rest = contour - read[codes[0, 0]]  # what further books add
    apart = torch.cdist(vectors, vectors).square().mean().clamp(min=1e-9)
    chosen = []
    for frames in torch.arange(codes.shape[-1]).split(_TOGETHER):
        missed = torch.cdist(read, wanted[frames] - rest[frames]).square()  # [K, t]
        left = torch.cdist(vectors, vectors[codes[0, 0, frames]]).square() / apart
        chosen.append((missed + _HELD * left).argmin(0))
    moved = codes.clone()
    moved[0, 0] = torch.cat(chosen)
    return moved


def manner_of(waveform: np.ndarray, sample_rate: int) -> Manner:
    """Return how a sound [S] is spoken; the level of an F0 that is not found is that of the middle of voices."""
    spec = AudioSpec(sample_rate, round(_FRAME_S * sample_rate))
    row = pitch_rows(torch.from_numpy(waveform)[None], spec, spec.frames_of(len(waveform)))[0, 0].numpy() / SCALE
    return Manner(float(np.median(row)), float(row.std()), syllables_per_second(waveform, sample_rate))


def syllables_per_second(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the number of peaks of loudness a second, silence left out; 0 where there are none."""
    frame = round(_FRAME_S * sample_rate)
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    levels = 10 * np.log10(gaussian_filter1d(np.square(frames).mean(1), _SMOOTH) + 1e-10)
    loud = levels > levels.max() - _ACTIVE_DB
    peaks, _ = find_peaks(levels, height=levels.max() - _ACTIVE_DB, prominence=_LEAST_DB, distance=_APART)
    return float(len(peaks) / max(loud.sum() * _FRAME_S, _FRAME_S))


def _at_pace(codes: Tensor, faster: float) -> Tensor:
    """Return codes [1, Q, T] of another pace; of one that is not known, or nearly the same, as they are."""
    if faster <= 0 or abs(math.log(faster)) < 0.05:
        return codes
    count = max(1, round(codes.shape[-1] / min(max(faster, 1 / _FASTEST), _FASTEST)))
    return codes[..., (torch.arange(count) * codes.shape[-1]) // count]


def _sound(reference: Reference) -> tuple[np.ndarray, int]:
    return reference.waveform, reference.sample_rate
