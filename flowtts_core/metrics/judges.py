"""The judges of one clip by name, the figures each gives, and what each needs to hear or read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flowtts_core.errors import ConfigError, DependencyError, FlowTTSError
from flowtts_core.metrics.scores import Metric

Value = tuple[float, float]  # numerator and denominator of a ratio; a mean's denominator is 1
Need = Literal["text", "reference"]


@dataclass(frozen=True)
class Clip:
    """What is judged: the waveform [S] in [-1, 1], the text it should say, and the reference's waveform where there is one."""

    waveform: np.ndarray
    sample_rate: int
    text: str | None = None
    reference: np.ndarray | None = None
    reference_rate: int = 0


@dataclass
class Verdict:
    """Figures of one clip by metric, what was heard, embeddings [D], and why a judge could not judge it."""

    values: dict[str, Value] = field(default_factory=dict)
    heard: str | None = None
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Gives some figures of a clip.

    Attributes:
        judge: writes into the verdict; raises FlowTTSError for a clip that it cannot judge.
        metrics: the figures it gives, which may be none where it only embeds.
        needs: what a clip must have; without it the judge is not asked.
    """

    judge: Callable[[Clip, Verdict], None]
    metrics: tuple[Metric, ...]
    needs: tuple[Need, ...] = ()


def _words(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import wer

    verdict.heard = wer.transcribe(clip.waveform, clip.sample_rate)
    text = clip.text or ""
    verdict.values["wer"] = wer.errors_of(text, verdict.heard)
    verdict.values["cer"] = wer.errors_of(text, verdict.heard, characters=True)


def _opinions(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import mos

    scores = mos.dnsmos(clip.waveform, clip.sample_rate)
    verdict.values |= {
        "mos_overall": (scores.overall, 1.0),
        "mos_p808": (scores.p808, 1.0),
        "mos_signal": (scores.signal, 1.0),
        "mos_background": (scores.background, 1.0),
    }


def _speaker(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import similarity

    verdict.embeddings["speaker"] = ours = similarity.embed(clip.waveform, clip.sample_rate)
    if clip.reference is not None:
        verdict.values["secs"] = (similarity.cosine(ours, similarity.embed(clip.reference, clip.reference_rate)), 1.0)


def _warp(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    found = paired.warped(clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    verdict.values |= {"mcd": (found.mcd, 1.0), "voicing_error": (found.voicing_error, 1.0)}
    if found.f0_rmse is not None:
        verdict.values["f0_rmse"] = (found.f0_rmse, 1.0)


def _copy(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    found = paired.time_for_time(clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    verdict.values |= {
        "mel_l1": (found.mel_l1, 1.0),
        "stft": (found.stft, 1.0),
        "si_sdr": (found.si_sdr, 1.0),
        "stoi": (found.stoi, 1.0),
    }


def _pesq(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    figure = paired.pesq(clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    verdict.values["pesq"] = (figure, 1.0)


def _shape(clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import shape

    found = shape.shape_of(clip.waveform, clip.sample_rate)
    verdict.values |= {
        "seconds": (found.seconds, 1.0),
        "silence": (found.silent_s, found.seconds),
        "clipped": (found.clipped, float(len(clip.waveform))),
    }
    if clip.text and clip.text.strip():
        verdict.values["pace"] = (float(len(clip.text.strip())), max(found.seconds - found.silent_s, 1e-3))
    verdict.embeddings["mel"] = shape.mel_statistics(clip.waveform, clip.sample_rate)


JUDGES: dict[str, Judge] = {
    "words": Judge(
        _words,
        (
            Metric("wer", "errors per word", False, "word errors of pocketsphinx against the text", "ratio"),
            Metric("cer", "errors per character", False, "character errors of what pocketsphinx heard", "ratio"),
        ),
        ("text",),
    ),
    "opinions": Judge(
        _opinions,
        (
            Metric("mos_overall", "1 to 5", True, "DNSMOS P.835, overall quality"),
            Metric("mos_p808", "1 to 5", True, "DNSMOS P.808, overall quality"),
            Metric("mos_signal", "1 to 5", True, "DNSMOS P.835, how undistorted the speech is"),
            Metric("mos_background", "1 to 5", True, "DNSMOS P.835, how quiet the background is"),
        ),
    ),
    "speaker": Judge(
        _speaker,
        (Metric("secs", "cosine", True, "speaker similarity (Resemblyzer) to the reference clip of the same id"),),
    ),
    "shape": Judge(
        _shape,
        (
            Metric("seconds", "s", None, "length of a clip"),
            Metric("silence", "share of time", None, "10 ms frames 40 dB or more below the clip's loudest", "ratio"),
            Metric("clipped", "share of samples", False, "samples at full scale, in runs of 3 or more", "ratio"),
            Metric("pace", "characters per s", None, "characters of text per second that is not silent", "ratio"),
        ),
    ),
    "warp": Judge(
        _warp,
        (
            Metric("mcd", "dB", False, "mel-cepstral distortion to the reference clip, along a time warp"),
            Metric("f0_rmse", "cents", False, "pitch error where both clips are voiced, along the warp"),
            Metric("voicing_error", "share of frames", False, "frames voiced in one clip only, along the warp"),
        ),
        ("reference",),
    ),
    "copy": Judge(
        _copy,
        (
            Metric("mel_l1", "nats", False, "log-mel distance to the reference clip, time for time"),
            Metric("stft", "", False, "spectral convergence and log-magnitude distance at three resolutions"),
            Metric("si_sdr", "dB", True, "scale-invariant signal-to-distortion ratio"),
            Metric("stoi", "0 to 1", True, "short-time objective intelligibility (pystoi)"),
        ),
        ("reference",),
    ),
    "pesq": Judge(
        _pesq, (Metric("pesq", "1 to 4.6", True, "wide-band PESQ against the reference clip"),), ("reference",)
    ),
}
DEFAULT_JUDGES = ("words", "opinions", "speaker", "shape")  # what can be asked of any speech
METRICS: dict[str, Metric] = {metric.name: metric for judge in JUDGES.values() for metric in judge.metrics}


def judge_clip(clip: Clip, judges: tuple[str, ...]) -> Verdict:
    """Ask each judge that has what it needs; one that cannot judge this clip leaves its reason and stops no other.

    Raises:
        ConfigError: for a judge that does not exist.
        DependencyError: when a judge's package is missing (that is no fault of the clip).
    """
    verdict = Verdict()
    for name in judges:
        if name not in JUDGES:
            raise ConfigError(f"no judge {name!r}", f"use some of: {', '.join(JUDGES)}")
        judge = JUDGES[name]
        if any(getattr(clip, need) is None for need in judge.needs):
            continue
        began = time.perf_counter()
        try:
            judge.judge(clip, verdict)
        except DependencyError:
            raise
        except FlowTTSError as error:
            verdict.reasons[name] = error.message
        verdict.seconds[name] = time.perf_counter() - began
    return verdict
