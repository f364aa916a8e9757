"""Do the judges measure what they say: real speech damaged in known ways, what each figure must do then, and what it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.files import read_audio
from flowtts_core.errors import AudioError, ConfigError, DependencyError
from flowtts_core.metrics import bootstrap
from flowtts_core.metrics import degradations as damage
from flowtts_core.metrics.bootstrap import Interval
from flowtts_core.metrics.parallel import parallel_starmap

CLEAN = "clean"
FEWEST = 6  # clips: sets are halved, and a distance needs two a side with one left out
_FAR = 60.0  # dB of SI-SDR, above which there is only rounding


@dataclass(frozen=True)
class Degradation:
    """What is done to a clip [S] at its sample rate, and to the text that it is held against."""

    about: str
    sound: Callable[[np.ndarray, int], np.ndarray] = lambda x, rate: x
    text: Callable[[str], str] = lambda text: text


DEGRADATIONS: dict[str, Degradation] = {
    "noise_20": Degradation("white noise, 20 dB below the speech", lambda x, rate: damage.white_noise(x, 20)),
    "noise_10": Degradation("white noise, 10 dB below the speech", lambda x, rate: damage.white_noise(x, 10)),
    "noise_0": Degradation("white noise as strong as the speech", lambda x, rate: damage.white_noise(x, 0)),
    "band_8k": Degradation(
        "as recorded at 8 kHz: nothing above 4 kHz", lambda x, rate: damage.band_limit(x, rate, 4000)
    ),
    "slower": Degradation("0.8 times the pace, pitch kept (WSOLA)", lambda x, rate: damage.stretch(x, rate, 0.8)),
    "faster": Degradation("1.25 times the pace, pitch kept (WSOLA)", lambda x, rate: damage.stretch(x, rate, 1.25)),
    "tape_slower": Degradation(
        "played at 0.8 times the speed: 3.9 semitones lower", lambda x, rate: damage.play_at(x, 0.8)
    ),
    "tape_faster": Degradation(
        "played at 1.25 times the speed: 3.9 semitones higher", lambda x, rate: damage.play_at(x, 1.25)
    ),
    "pitch_up": Degradation(
        "3 semitones higher, formants too, same length", lambda x, rate: damage.shift_pitch(x, rate, 3)
    ),
    "pitch_down": Degradation(
        "3 semitones lower, formants too, same length", lambda x, rate: damage.shift_pitch(x, rate, -3)
    ),
    "truncated": Degradation("the last third cut off", lambda x, rate: damage.truncate(x)),
    "swapped_words": Degradation("each two words of the text exchanged, the sound as it was", text=damage.swap_words),
    "clipping": Degradation("12 dB too loud, cut off at full scale", lambda x, rate: damage.clipping(x, 12)),
}

# Each figure of a clip with the least difference that matters to a reader of it: "up" and "down" lie beyond it, "same" within.
MARGINS: dict[str, float] = {
    "wer": 0.02, "cer": 0.01,
    "mos_overall": 0.1, "mos_p808": 0.1, "mos_background": 0.1,
    "secs": 0.02, "f0_rmse": 50.0, "voicing_error": 0.02, "mcd": 0.5,
    "mel_l1": 0.05, "stft": 0.1, "si_sdr": 1.0, "stoi": 0.02, "pesq": 0.1,
    "seconds": 0.05, "pace": 0.25, "clipped": 0.0001,
    "kad_mel": 0.02, "fad_mel": 2.0, "kad_speaker": 0.02, "fad_speaker": 0.02,
}  # fmt: skip
SETS = ("kad_mel", "fad_mel", "kad_speaker", "fad_speaker")  # figures of the whole set rather than of a clip

_COPY_WORSE = {"up": "mel_l1 stft", "down": "si_sdr stoi pesq"}
_COPY_SAME = "mel_l1 stft si_sdr stoi pesq"
_SOUND = "mos_overall mos_p808 mos_background secs f0_rmse voicing_error mcd seconds pace clipped " + " ".join(SETS)


def _directions(up: str = "", down: str = "", same: str = "") -> dict[str, str]:
    names = {"up": up, "down": down, "same": same}
    return {metric: direction for direction, metrics in names.items() for metric in metrics.split()}


_NOISE = _directions(
    up="wer cer mcd voicing_error kad_mel fad_mel kad_speaker fad_speaker " + _COPY_WORSE["up"],
    down="mos_overall mos_p808 mos_background secs " + _COPY_WORSE["down"],
    same="seconds pace clipped",
)
_OTHER_VOICE = "wer cer f0_rmse mcd kad_speaker fad_speaker kad_mel " + _COPY_WORSE["up"]

# Reasoned before it was measured: what each figure says of itself, applied to the damage. A figure that is not named may do
# either: it says nothing about such damage, or reason does not tell.
EXPECTED: dict[str, dict[str, str]] = {
    "noise_20": _NOISE | {"f0_rmse": "same"},  # pitch trackers stand light noise
    "noise_10": _NOISE,
    "noise_0": _NOISE,
    "band_8k": _directions(
        up="wer cer mcd mel_l1 stft kad_mel fad_mel kad_speaker fad_speaker",
        down="mos_overall mos_p808 secs si_sdr pesq",
        # STOI listens below 4.3 kHz; nothing was added to the background, and pitch lies far below
        same="mos_background f0_rmse voicing_error stoi seconds pace clipped",
    ),
    "slower": _directions(
        up="seconds " + _COPY_WORSE["up"],  # time for time everything is elsewhere
        down="pace " + _COPY_WORSE["down"],
        same="mos_overall mos_background f0_rmse voicing_error clipped kad_mel fad_mel kad_speaker fad_speaker",
    ),
    "faster": _directions(
        up="wer cer pace " + _COPY_WORSE["up"],
        down="seconds " + _COPY_WORSE["down"],
        same="mos_overall mos_background f0_rmse voicing_error clipped kad_mel fad_mel kad_speaker fad_speaker",
    ),
    "tape_slower": _directions(
        up="seconds " + _OTHER_VOICE, down="pace secs " + _COPY_WORSE["down"], same="mos_background clipped"
    ),
    "tape_faster": _directions(
        up="pace " + _OTHER_VOICE, down="seconds secs " + _COPY_WORSE["down"], same="mos_background clipped"
    ),
    "pitch_up": _directions(
        up=_OTHER_VOICE, down="secs " + _COPY_WORSE["down"], same="mos_background seconds pace clipped"
    ),
    "pitch_down": _directions(
        up=_OTHER_VOICE, down="secs " + _COPY_WORSE["down"], same="mos_background seconds pace clipped"
    ),
    "truncated": _directions(
        up="wer cer mcd pace",  # the same text in less time
        down="seconds",
        # what is there is untouched, and time for time is over the shorter clip: these must not see it
        same="mos_overall mos_p808 mos_background clipped kad_mel fad_mel kad_speaker fad_speaker " + _COPY_SAME,
    ),
    "swapped_words": _directions(up="wer cer", same=f"{_SOUND} {_COPY_SAME}"),
    "clipping": _directions(
        up="wer cer clipped mcd kad_mel fad_mel kad_speaker fad_speaker " + _COPY_WORSE["up"],
        down="mos_overall mos_p808 secs " + _COPY_WORSE["down"],
        same="f0_rmse voicing_error seconds pace",
    ),
}


@dataclass(frozen=True)
class Measured:
    """Of one clip: figures as numerator and denominator (of a mean 1), and embeddings [128] and [256]."""

    figures: dict[str, tuple[float, float]]
    mel: np.ndarray
    speaker: np.ndarray


def measure(path: str, text: str, names: tuple[str, ...], keep: str = "") -> dict[str, Measured]:
    """What every judge says of the recording as it is and of each named degradation of it, held against the recording.

    With `keep`, a file's name without suffix, it is written there, and read from there the next time.
    """
    kept = Path(f"{keep}.json")
    if keep and kept.exists():
        return of_json(kept.read_text(encoding="utf-8"))
    recording, rate = read_audio(path)
    made = {CLEAN: Degradation("the recording")} | {name: DEGRADATIONS[name] for name in names}
    undamaged = listen(recording, recording, rate)
    found = {}
    for name, one in made.items():
        waveform = one.sound(recording, rate)
        heard = undamaged if waveform is recording else listen(waveform, recording, rate)
        found[name] = heard.against(one.text(text))
    if keep:
        part = kept.with_suffix(".part")
        part.write_text(to_json(found), encoding="utf-8")
        part.replace(kept)
    return found


@dataclass(frozen=True)
class Heard:
    """What the judges of sound say of a waveform, the words heard, and its seconds that are not silent."""

    sound: Measured
    words: str
    voiced_s: float

    def against(self, text: str) -> Measured:
        """With the figures that need the text."""
        from flowtts_core.metrics.wer import errors_of

        of_text = {
            "wer": errors_of(text, self.words),
            "cer": errors_of(text, self.words, characters=True),
            "pace": (len(text.strip()) / max(self.voiced_s, 1e-3), 1.0),
        }
        return Measured(self.sound.figures | of_text, self.sound.mel, self.sound.speaker)


def listen(waveform: np.ndarray, reference: np.ndarray, rate: int) -> Heard:
    """All judges of a waveform [S], both at one rate; PESQ and pitch are left out where they cannot be measured."""
    from flowtts_core.metrics import mos, paired, shape, similarity, wer

    opinion = mos.dnsmos(waveform, rate)
    speaker = similarity.embed(waveform, rate)
    warped = paired.warped(waveform, rate, reference, rate)
    copied = paired.time_for_time(waveform, rate, reference, rate)
    found = shape.shape_of(waveform, rate)
    means = {
        "mos_overall": opinion.overall, "mos_p808": opinion.p808, "mos_background": opinion.background,
        "secs": similarity.cosine(speaker, similarity.embed(reference, rate)),
        "mcd": warped.mcd, "f0_rmse": warped.f0_rmse, "voicing_error": warped.voicing_error,
        "mel_l1": copied.mel_l1, "stft": copied.stft, "si_sdr": min(copied.si_sdr, _FAR), "stoi": copied.stoi,
        "pesq": _pesq(waveform, reference, rate),
        "seconds": found.seconds, "clipped": found.clipped / len(waveform),
    }  # fmt: skip
    figures = {name: (float(value), 1.0) for name, value in means.items() if value is not None}
    sound = Measured(figures, shape.mel_statistics(waveform, rate), speaker)
    return Heard(sound, wer.transcribe(waveform, rate), found.seconds - found.silent_s)


def to_json(measured: dict[str, Measured]) -> str:
    """What `of_json` reads."""
    lists = {
        name: {"figures": one.figures, "mel": one.mel.tolist(), "speaker": one.speaker.tolist()}
        for name, one in measured.items()
    }
    return json.dumps(lists)


def of_json(text: str) -> dict[str, Measured]:
    """What was measured of a clip, by what was done to it."""
    return {
        name: Measured(
            {m: (a, b) for m, (a, b) in one["figures"].items()}, np.array(one["mel"]), np.array(one["speaker"])
        )
        for name, one in json.loads(text).items()
    }


def _pesq(waveform: np.ndarray, reference: np.ndarray, rate: int) -> float | None:
    from flowtts_core.metrics import paired

    try:
        return paired.pesq(waveform, rate, reference, rate)
    except (AudioError, DependencyError):
        return None


def difference(measured: list[dict[str, Measured]], name: str, metric: str) -> Interval | None:
    """The figure of the damaged clips less that of the same clips undamaged, with its interval; None where it is not there."""
    if metric in SETS:
        return set_difference(measured, name, metric) if len(measured) >= FEWEST else None
    pairs = [(clip[name].figures.get(metric), clip[CLEAN].figures.get(metric)) for clip in measured]
    found = [(a[0], b[0], b[1]) for a, b in pairs if a and b]
    if not found:
        return None
    ours, theirs, of = zip(*found, strict=True)
    if metric in ("wer", "cer"):
        return bootstrap.ratio_difference(ours, theirs, of)
    return bootstrap.mean_difference(ours, theirs)


def set_difference(measured: list[dict[str, Measured]], name: str, metric: str) -> Interval:
    """How much further from undamaged speech of other texts the damaged clips lie than they did undamaged.

    Every second clip against the others, undamaged, then with parts exchanged, and the mean of both: no clip is held against
    itself. The interval is the jackknife's over the clips, since a bootstrap would draw clips twice, at distance 0.
    """
    import torch

    from flowtts_core.metrics.fad import fad
    from flowtts_core.metrics.kad import kad

    distance = kad if metric.startswith("kad") else fad
    kind = metric.removeprefix("kad_").removeprefix("fad_")
    clean, damaged = (
        torch.from_numpy(np.stack([getattr(clip[which], kind) for clip in measured]).astype(np.float64))
        for which in (CLEAN, name)
    )

    def of(rows: np.ndarray) -> float:
        halves = [rows[rows % 2 == half] for half in (0, 1)]
        further = [
            distance(damaged[ours], clean[theirs]) - distance(clean[ours], clean[theirs])
            for ours, theirs in (halves, halves[::-1])
        ]
        return sum(further) / 2

    return jackknife(len(measured), of)


def jackknife(n: int, statistic: Callable[[np.ndarray], float]) -> Interval:
    """A statistic of row numbers with its 95 % interval, by leaving out one row at a time (Efron and Tibshirani, chapter 11)."""
    from scipy.stats import t

    rows = np.arange(n)
    without = np.array([statistic(np.delete(rows, i)) for i in rows])
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    value, reach = float(statistic(rows)), float(t.ppf(0.975, n - 1) * error)
    return Interval(value, value - reach, value + reach, n)


def direction(found: Interval, margin: float) -> str:
    """ "up", "down" or "same" where the whole interval lies above, below or within the margin, else "open"."""
    if found.low > margin:
        return "up"
    if found.high < -margin:
        return "down"
    return "same" if -margin <= found.low and found.high <= margin else "open"


def run(
    speech: Path,
    speakers: Path,
    folder: Path,
    n: int,
    *,
    workers: int | None = None,
    keep: Path | None = None,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure, write the page, and return every figure.

    Raises:
        ConfigError: for too few clips or speakers.
    """
    from jobs.benchmark_judges_page import write
    from jobs.calibration import calibrate
    from jobs.clips import read_clips
    from jobs.machine import Watch, describe, installed

    clips = [clip for clip in read_clips(speech) if not clip.problem][:n]
    if len(clips) < FEWEST:
        raise ConfigError(f"{speech}: {len(clips)} clips", f"give {FEWEST} or more")
    with Watch() as watch:
        progress(f"telling {speakers.name} apart")
        calibration = calibrate(speakers, workers)
        progress(f"{len(clips)} clips, {1 + len(DEGRADATIONS)} times each")
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        todo = [(clip.path, clip.text, tuple(DEGRADATIONS), str(keep / clip.id) if keep else "") for clip in clips]
        measured = parallel_starmap(measure, todo, workers)
    rows = []
    for name in DEGRADATIONS:
        for metric, margin in MARGINS.items():
            found = difference(measured, name, metric)
            if found:
                expected = EXPECTED[name].get(metric)
                row = {"degradation": name, "metric": metric, **asdict(found)}
                rows.append(row | {"found": direction(found, margin), "expected": expected})
    packages = ("pocketsphinx", "speechmos", "Resemblyzer", "librosa", "pystoi", "pesq", "av", "torch")
    figures = {
        "benchmark": "judges",
        "machine": describe(),
        "versions": {name: installed(name) for name in packages},
        "busy": watch.busy.to_json(),
        "clips": [clip.id for clip in clips],
        "rows": rows,
        "calibration": calibration.to_json(),
    }
    write(folder, figures)
    return figures
