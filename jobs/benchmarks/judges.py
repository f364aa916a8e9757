"""Test the judges: damage real speech in known ways and measure how each figure changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.files import read_audio
from flowtts_core.errors import AudioError, ConfigError, DependencyError
from flowtts_core.files import write_whole
from flowtts_core.metrics import bootstrap
from flowtts_core.metrics.bootstrap import Interval
from flowtts_core.metrics.parallel import parallel_starmap
from jobs.benchmarks.judges_expected import DEGRADATIONS, EXPECTED, MARGINS, SETS, Degradation

CLEAN = "clean"
FEWEST = 6  # clips: sets are halved, and with one left out each half needs two for a distance
_FAR = 40.0  # dB of SI-SDR; higher values tell of rounding and of the edges of resampling alone


@dataclass(frozen=True)
class Measured:
    """What was measured of a clip: figures as numerator and denominator (1 for a mean), embeddings [128] and [256]."""

    figures: dict[str, tuple[float, float]]
    mel: np.ndarray
    speaker: np.ndarray


def measure(audio: str | bytes, text: str, names: tuple[str, ...], keep: str = "") -> dict[str, Measured]:
    """Judge a recording and each named degradation of it, with the recording as the reference.

    `keep` is a file name without suffix. Results are written there, and read from there the next time.
    """
    kept = Path(f"{keep}.json")
    if keep and kept.exists():
        return of_json(kept.read_text(encoding="utf-8"))
    recording, rate = read_audio(audio)
    made = {CLEAN: Degradation("the recording")} | {name: DEGRADATIONS[name] for name in names}
    undamaged = listen(recording, recording, rate)
    found = {}
    for name, one in made.items():
        waveform = one.sound(recording, rate)
        heard = undamaged if waveform is recording else listen(waveform, recording, rate)
        found[name] = heard.against(one.text(text))
    if keep:
        write_whole(kept, to_json(found).encode())
    return found


@dataclass(frozen=True)
class Heard:
    """What the judges of sound say of a waveform, the words heard, and its seconds that are not silent."""

    sound: Measured
    words: str
    voiced_s: float

    def against(self, text: str) -> Measured:
        """Return the figures with those that need the text."""
        from flowtts_core.metrics.wer import errors_of

        of_text = {
            "wer": errors_of(text, self.words),
            "cer": errors_of(text, self.words, characters=True),
            "pace": (len(text.strip()) / max(self.voiced_s, 1e-3), 1.0),
        }
        return Measured(self.sound.figures | of_text, self.sound.mel, self.sound.speaker)


def listen(waveform: np.ndarray, reference: np.ndarray, rate: int) -> Heard:
    """Ask all judges about a waveform [S] at the reference's rate. PESQ and pitch are left out where they cannot be measured."""
    from flowtts_core.metrics import mos, paired, shape, signal, similarity, wer

    opinion = mos.dnsmos(waveform, rate)
    speaker = similarity.embed(waveform, rate)
    warped = paired.warped(waveform, rate, reference, rate)
    copied = paired.time_for_time(waveform, rate, reference, rate, si_sdr_rate=signal.RATE)
    found = shape.shape_of(waveform, rate)
    means = {
        "mos_overall": opinion.overall, "mos_p808": opinion.p808, "mos_background": opinion.background,
        "secs": similarity.cosine(speaker, similarity.embed(reference, rate)),
        "mcd": warped.mcd, "f0_rmse": warped.f0_rmse, "voicing_error": warped.voicing_error,
        "mel_l1": copied.mel_l1, "stft": copied.stft, "si_sdr": copied.si_sdr, "stoi": copied.stoi,
        "pesq": _pesq(waveform, reference, rate),
        "seconds": found.seconds, "clipped": found.clipped / len(waveform),
    }  # fmt: skip
    figures = {name: (float(value), 1.0) for name, value in means.items() if value is not None}
    sound = Measured(figures, shape.mel_statistics(waveform, rate), speaker)
    return Heard(sound, wer.transcribe(waveform, rate), found.seconds - found.silent_s)


def to_json(measured: dict[str, Measured]) -> str:
    """Return the form that `of_json` reads."""
    lists = {
        name: {"figures": one.figures, "mel": one.mel.tolist(), "speaker": one.speaker.tolist()}
        for name, one in measured.items()
    }
    return json.dumps(lists)


def of_json(text: str) -> dict[str, Measured]:
    """Return what was measured of a clip, by the name of its degradation."""
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
    """Return the damaged clips' figure less the undamaged clips', with its interval; None where it was not measured."""
    if metric in SETS:
        return set_difference(measured, name, metric) if len(measured) >= FEWEST else None
    pairs = [(clip[name].figures.get(metric), clip[CLEAN].figures.get(metric)) for clip in measured]
    found = [(a[0], b[0], b[1]) for a, b in pairs if a and b]
    if not found:
        return None
    ours, theirs, of = zip(*found, strict=True)
    if metric in ("wer", "cer"):
        return bootstrap.ratio_difference(ours, theirs, of)
    top = _FAR if metric == "si_sdr" else np.inf
    return bootstrap.mean_difference(np.minimum(ours, top).tolist(), np.minimum(theirs, top).tolist())


def set_difference(measured: list[dict[str, Measured]], name: str, metric: str) -> Interval:
    """Return by how much damage increases the distance of clips to undamaged clips of other texts.

    The even clips are compared with the undamaged odd ones, then the odd with the undamaged even ones; the result is the mean.
    So no clip is compared with itself. The interval is a jackknife over the clips: a bootstrap would draw a clip twice, at
    distance 0.
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
    """Return a statistic of row numbers with its 95 % interval by the jackknife (Efron and Tibshirani, chapter 11)."""
    from scipy.stats import t

    rows = np.arange(n)
    without = np.array([statistic(np.delete(rows, i)) for i in rows])
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    value, reach = float(statistic(rows)), float(t.ppf(0.975, n - 1) * error)
    return Interval(value, value - reach, value + reach, n)


def direction(found: Interval, margin: float) -> str:
    """Return "up", "down" or "same" where the whole interval lies above, below or within the margin, else "open"."""
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
    from cluster.machine import Watch, describe, installed
    from jobs.benchmarks.calibration import calibrate
    from jobs.benchmarks.judges_page import write
    from jobs.corpus.clips import audio_of, read_clips

    clips = [clip for clip in read_clips(speech) if not clip.problem][:n]
    if len(clips) < FEWEST:
        raise ConfigError(f"{speech}: {len(clips)} clips", f"give {FEWEST} or more")
    with Watch() as watch:
        progress(f"telling {speakers.name} apart")
        calibration = calibrate(speakers, workers)
        progress(f"{len(clips)} clips, {1 + len(DEGRADATIONS)} times each")
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        todo = [
            (audio, clip.text, tuple(DEGRADATIONS), str(keep / clip.id) if keep else "")
            for clip, audio in zip(clips, audio_of(clips), strict=True)
        ]
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
