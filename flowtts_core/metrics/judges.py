"""The judges of one clip, the metrics each gives, what each needs, and the panel that asks them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flowtts_core.errors import AudioError, ConfigError, DependencyError, FlowTTSError
from flowtts_core.metrics.asr import Recogniser, load_recogniser
from flowtts_core.metrics.embedders import Embedder, clap_score, load_embedder
from flowtts_core.metrics.english import trigram_embedding
from flowtts_core.metrics.listeners import DNSMOS_METRICS, UTMOS_METRICS, Listener, load_listener
from flowtts_core.metrics.scores import Metric
from flowtts_core.metrics.speakers import SpeakerEncoder, load_speaker_encoder

if TYPE_CHECKING:
    from flowtts_core.fakes.detector import FakeDetector
    from flowtts_core.watermark.finding import Finder

Value = tuple[float, float]  # numerator and denominator of a ratio; a mean's denominator is 1
Need = Literal["text", "reference"]

SERIES_HZ = 10  # frames per second that are kept for distances over time
SERIES_S = 10.0  # seconds of them, at most
OVER_TIME = ("synthetic",)  # metrics that have a value of each second too
SI_SDR_RATE = "si_sdr_rate"  # among a verdict's values: no metric, but the rate in Hz that its SI-SDR was computed at


@dataclass(frozen=True)
class Clip:
    """A clip to judge.

    Attributes:
        waveform: [S] in [-1, 1].
        text: what it should say.
        reference: the waveform [S] of the recording that it should equal.
        compute_s: the seconds of computing that made it.
        latency_s: seconds from the request to its first sound.
        language: that is spoken, as Whisper names it; None is the panel's.
        mark: the number that its watermark should say; None where nobody knows.
    """

    waveform: np.ndarray
    sample_rate: int
    text: str | None = None
    reference: np.ndarray | None = None
    reference_rate: int = 0
    compute_s: float | None = None
    latency_s: float | None = None
    language: str | None = None
    mark: int | None = None


@dataclass
class Verdict:
    """What a panel says of a clip.

    Attributes:
        values: numerator and denominator by metric.
        heard: the recogniser's words.
        embeddings: vectors [D] by embedder.
        series: frames over time [T, D] at `SERIES_HZ` by embedder.
        over_time: a metric's values of each second; None where there is nothing to tell.
        text: an embedding [C] of the text.
        reasons: why a judge could not judge it, by judge.
        seconds: computing time by judge.
    """

    values: dict[str, Value] = field(default_factory=dict)
    heard: str | None = None
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    series: dict[str, np.ndarray] = field(default_factory=dict)
    over_time: dict[str, list[float | None]] = field(default_factory=dict)
    text: np.ndarray | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def drop_what_is_not_finite(self) -> list[str]:
        """Remove figures, embeddings and series with NaN or infinity, which would spoil means. Return their names."""
        held: tuple[dict[str, Any], ...] = (self.values, self.embeddings, self.series)
        lost = [(of, name) for of in held for name, found in of.items() if not np.isfinite(found).all()]
        for of, name in lost:
            del of[name]
        return [name for _, name in lost]


@dataclass(frozen=True)
class PanelConfig:
    """The judges to ask, and the model of each as `KIND` or `KIND:PATH_OR_NAME`.

    Attributes:
        judges: names of `JUDGES`.
        asr: the speech recogniser; see `flowtts_core.metrics.asr`.
        speaker: the speaker encoder; see `flowtts_core.metrics.speakers`.
        mos: the predictor of opinion scores; see `flowtts_core.metrics.listeners`.
        embedders: audio embedders beside the log-mel; see `flowtts_core.metrics.embedders`.
        target: a recording of the speaker whom all clips should sound like; None compares with each clip's reference.
        device: "cpu" or "cuda".
        language: that is spoken, as Whisper names it.
        si_sdr_rate: in Hz, to which both clips are resampled for SI-SDR; None is the judged clip's own.

    Raises:
        ConfigError: for a judge that does not exist, or a rate that no sound has.
    """

    judges: tuple[str, ...] = ("words", "opinions", "naturalness", "speaker", "shape", "speed")
    asr: str = "pocketsphinx"
    speaker: str = "resemblyzer"
    mos: str = "dnsmos"
    embedders: tuple[str, ...] = ()
    target: str | None = None
    device: str = "cpu"
    language: str = "en"
    si_sdr_rate: int | None = None

    def __post_init__(self) -> None:
        if self.si_sdr_rate is not None and not 1000 <= self.si_sdr_rate <= 384_000:
            raise ConfigError(f"si_sdr_rate = {self.si_sdr_rate}", "give a sample rate in Hz, as 16000, or none")
        if unknown := sorted(set(self.judges) - JUDGES.keys()):
            raise ConfigError(f"no judge {unknown[0]!r}", f"use some of: {', '.join(JUDGES)}")


class Panel:
    """The judges with their models. A model is loaded at its first use."""

    def __init__(self, config: PanelConfig, mark_key: bytes = b"") -> None:
        self.config, self._mark_key = config, mark_key

    def judge(self, clip: Clip, without: tuple[str, ...] = ()) -> Verdict:
        """Ask each judge that has what it needs. One that cannot judge this clip leaves its reason, and the others go on.

        Args:
            without: judges to leave out for this clip.

        Raises:
            DependencyError, ConfigError: when a judge's package or model is missing, which no other clip would change.
        """
        verdict = Verdict()
        for name in self.config.judges:
            judge = JUDGES[name]
            if name in without or any(getattr(clip, need) is None for need in judge.needs):
                continue
            began = time.perf_counter()
            try:
                judge.judge(self, clip, verdict)
            except (DependencyError, ConfigError):
                raise
            except FlowTTSError as error:
                verdict.reasons[name] = error.message
            except MemoryError:  # not the clip's fault
                raise
            except Exception as error:  # whatever a library raises for this clip, the other judges are asked
                verdict.reasons[name] = f"{type(error).__name__}: {error}"[:500]
            if lost := verdict.drop_what_is_not_finite():
                verdict.reasons.setdefault(name, f"gives no finite number ({', '.join(lost)})")
            verdict.seconds[name] = time.perf_counter() - began
        return verdict

    @cached_property
    def recogniser(self) -> Recogniser:
        return load_recogniser(self.config.asr, self.config.device)

    @cached_property
    def speaker_encoder(self) -> SpeakerEncoder:
        return load_speaker_encoder(self.config.speaker, self.config.device)

    @cached_property
    def listener(self) -> Listener:
        return load_listener(self.config.mos, self.config.device)

    @cached_property
    def mark_finder(self) -> Finder:
        from flowtts_core.watermark.card import bundled_mark
        from flowtts_core.watermark.finding import Finder

        return Finder(bundled_mark(), self._mark_key)

    @property
    def has_mark_key(self) -> bool:
        return bool(self._mark_key)

    @cached_property
    def fake_detector(self) -> FakeDetector:
        from flowtts_core.fakes.detector import FakeDetector

        return FakeDetector.open()

    @cached_property
    def embedders(self) -> Mapping[str, Embedder]:
        found = [load_embedder(spec, self.config.device) for spec in ("mel", *self.config.embedders)]
        names = [embedder.name for embedder in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ConfigError(
                f"two embedders of the kind {twice}: their distances would have one name", "give one of each kind"
            )
        return {embedder.name: embedder for embedder in found}

    @cached_property
    def target(self) -> np.ndarray | None:
        """The embedding [D] of the target speaker, None without a target."""
        if self.config.target is None:
            return None
        from flowtts_core.audio.files import read_audio

        try:
            return self.speaker_encoder.embed(*read_audio(self.config.target))
        except (AudioError, OSError) as error:
            raise ConfigError(f"the target speaker's clip {self.config.target}: {error}", "give another") from error


@dataclass(frozen=True)
class Judge:
    """A judge of clips.

    Attributes:
        judge: writes into the verdict; raises FlowTTSError for a clip that it cannot judge.
        metrics: what it measures; a judge that only embeds has none.
        needs: attributes that a clip must have for the judge to be asked.
    """

    judge: Callable[[Panel, Clip, Verdict], None]
    metrics: tuple[Metric, ...]
    needs: tuple[Need, ...] = ()


def _words(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import wer
    from flowtts_core.metrics.languages import WITHOUT_SPACES, normalizer_of

    language = clip.language or panel.config.language
    normalizer = normalizer_of(language)
    verdict.heard = panel.recogniser.transcribe(clip.waveform, clip.sample_rate, language)
    text = clip.text or ""
    if language not in WITHOUT_SPACES:
        verdict.values["wer"] = wer.errors_of(text, verdict.heard, normalizer=normalizer)
    verdict.values["cer"] = wer.errors_of(text, verdict.heard, characters=True, normalizer=normalizer)


def _opinions(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    ratings = panel.listener.rate(clip.waveform, clip.sample_rate)
    verdict.values |= {name: (value, 1.0) for name, value in ratings.items()}


def _naturalness(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics.naturalness import naturalness

    verdict.values["naturalness"] = (naturalness(clip.waveform, clip.sample_rate), 1.0)


def _speaker(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics.similarity import cosine

    verdict.embeddings["speaker"] = ours = panel.speaker_encoder.embed(clip.waveform, clip.sample_rate)
    theirs = panel.target
    if theirs is None and clip.reference is not None:
        theirs = panel.speaker_encoder.embed(clip.reference, clip.reference_rate)
    if theirs is not None:
        verdict.values["secs"] = (cosine(ours, theirs), 1.0)


def _warp(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    found = paired.warped(clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    verdict.values |= {"mcd": (found.mcd, 1.0), "voicing_error": (found.voicing_error, 1.0)}
    if found.f0_rmse is not None:
        verdict.values["f0_rmse"] = (found.f0_rmse, 1.0)


def _copy(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    sounds = (clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    found = paired.time_for_time(*sounds, si_sdr_rate=panel.config.si_sdr_rate)
    verdict.values |= {
        "mel_l1": (found.mel_l1, 1.0),
        "stft": (found.stft, 1.0),
        "si_sdr": (found.si_sdr, 1.0),
        SI_SDR_RATE: (float(found.si_sdr_rate), 1.0),
    }
    if found.stoi is None:
        raise AudioError("there is too little sound in the reference's clip for STOI", "give 0.4 s of speech or more")
    verdict.values["stoi"] = (found.stoi, 1.0)


def _pesq(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import paired

    assert clip.reference is not None
    figure = paired.pesq(clip.waveform, clip.sample_rate, clip.reference, clip.reference_rate)
    verdict.values["pesq"] = (figure, 1.0)


def _shape(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    from flowtts_core.metrics import shape

    found = shape.shape_of(clip.waveform, clip.sample_rate)
    verdict.values |= {
        "seconds": (found.seconds, 1.0),
        "silence": (found.silent_s, found.seconds),
        "clipped": (found.clipped, float(len(clip.waveform))),
    }
    text = (clip.text or "").strip()
    if text:
        verdict.text = trigram_embedding(text)
    if text and found.sounding:
        verdict.values["pace"] = (float(len(text)), found.seconds - found.silent_s)
    for name, embedder in panel.embedders.items():
        verdict.embeddings[name] = embedder.embed(clip.waveform, clip.sample_rate)
        said = embedder.embed_text(clip.text) if clip.text else None
        if said is not None:
            verdict.text = said
            verdict.values["clap_score"] = (clap_score(verdict.embeddings[name], said), 1.0)
    if text and not found.sounding:
        raise AudioError("the clip has no 10 ms of sound, so its text has no pace", "was it spoken at all?")


def _series(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    for name, embedder in panel.embedders.items():
        frames, rate = embedder.frames(clip.waveform, clip.sample_rate)
        step = max(1, round(rate / SERIES_HZ))
        whole = frames[: len(frames) // step * step].reshape(-1, step, frames.shape[1]).mean(axis=1)
        verdict.series[name] = whole[: round(SERIES_S * SERIES_HZ)]


def _watermark(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    found = panel.mark_finder.told(clip.waveform, clip.sample_rate)
    seconds = len(clip.waveform) / clip.sample_rate
    verdict.values |= {
        "mark_found": (float(found["marked"]), 1.0),
        "mark_time": (found["share"] * seconds, seconds),
    }
    if found["marked"]:
        verdict.values["mark_read"] = (float(found["number"] is not None), 1.0)
        if panel.has_mark_key:
            verdict.values["mark_own"] = (float(found["own_key"]), 1.0)
    if clip.mark is not None:
        verdict.values["mark_right"] = (float(found["number"] == clip.mark), 1.0)


def _synthetic(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    found = panel.fake_detector.heard(clip.waveform, clip.sample_rate)
    verdict.values["synthetic"] = (found.whole, 1.0)
    verdict.over_time["synthetic"] = [float(value) if np.isfinite(value) else None for value in found.seconds]


def _speed(panel: Panel, clip: Clip, verdict: Verdict) -> None:
    if clip.compute_s is not None:
        verdict.values["rtf"] = (clip.compute_s, len(clip.waveform) / clip.sample_rate)
    if clip.latency_s is not None:
        verdict.values |= {metric.name: (clip.latency_s, 1.0) for metric in _LATENCIES}


_LATENCIES = tuple(
    Metric(f"latency_p{q}", "s", False, f"time to the first sound, of {q} in 100 at most so long", "quantile", q / 100)
    for q in (50, 95, 99)
)
JUDGES: dict[str, Judge] = {
    "words": Judge(
        _words,
        (
            Metric("wer", "errors per word", False, "what a recogniser heard against the text, words", "ratio"),
            Metric("cer", "errors per character", False, "the same, character by character", "ratio"),
        ),
        ("text",),
    ),
    "opinions": Judge(_opinions, (*DNSMOS_METRICS, *UTMOS_METRICS)),
    "naturalness": Judge(
        _naturalness, (Metric("naturalness", "1 to 5", True, "DistillMOS, how natural the speech sounds"),)
    ),
    "speaker": Judge(
        _speaker,
        (Metric("secs", "cosine", True, "speaker similarity to the reference clip of the same id, or to one target"),),
    ),
    "shape": Judge(
        _shape,
        (
            Metric("seconds", "s", None, "length of a clip"),
            Metric("silence", "share of time", None, "10 ms frames 40 dB or more below the clip's loudest", "ratio"),
            Metric("clipped", "share of samples", False, "samples at full scale, in runs of 3 or more", "ratio"),
            Metric("pace", "characters per s", None, "characters of text per second that is not silent", "ratio"),
            Metric("clap_score", "cosine", True, "how well a CLAP model finds that sound and text agree"),
        ),
    ),
    "speed": Judge(
        _speed,
        (
            Metric("rtf", "s per s", False, "computing time for a second of audio, as its maker noted it", "ratio"),
            *_LATENCIES,
        ),
    ),
    "watermark": Judge(
        _watermark,
        (
            Metric(
                "mark_found", "share of clips", None, "clips in which a watermark is found, public or of the key given"
            ),
            Metric(
                "mark_time",
                "share of time",
                None,
                "time in which the mark is found: the rest is not known to be unmarked",
                "ratio",
            ),
            Metric("mark_read", "share of marked clips", None, "marked clips whose number can be read"),
            Metric("mark_own", "share of marked clips", None, "marked clips whose mark is that of the key given"),
            Metric("mark_right", "share of clips", True, "of clips whose number is known, those that say it"),
        ),
    ),
    "synthetic": Judge(
        _synthetic,
        (
            Metric(
                "synthetic",
                "probability",
                None,
                "that the clip is synthetic, if half of all were: a hint, on engines that the net never heard wrong in a third",
            ),
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
            Metric("mel_l1", "nats", False, "log-mel distance to the reference clip, time for time, at 16 kHz"),
            Metric(
                "stft", "", False, "spectral convergence and log-magnitude distance at three resolutions, at 16 kHz"
            ),
            Metric("si_sdr", "dB", True, "scale-invariant signal-to-distortion ratio"),
            Metric("stoi", "0 to 1", True, "short-time objective intelligibility (pystoi)"),
        ),
        ("reference",),
    ),
    "pesq": Judge(
        _pesq, (Metric("pesq", "1 to 4.6", True, "wide-band PESQ against the reference clip"),), ("reference",)
    ),
    "series": Judge(
        _series, (Metric("fad_clip", "", False, "FAD of a clip's own frames to all frames of the reference"),)
    ),
}
METRICS: dict[str, Metric] = {metric.name: metric for judge in JUDGES.values() for metric in judge.metrics}


def judges_of(metrics: set[str]) -> tuple[str, ...]:
    """Return the judges that give these metrics."""
    return tuple(name for name, judge in JUDGES.items() if metrics & {metric.name for metric in judge.metrics})
