"""A watermark on recordings that it was not trained on: how quiet it is, what it survives, where it is found, what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.machine import Watch, describe
from flowtts_core.audio.files import read_audio, resample
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import bootstrap
from flowtts_core.metrics.paired import pesq, si_sdr
from flowtts_core.watermark.attacks import ATTACKS, Attack
from flowtts_core.watermark.marker import Marker
from flowtts_core.watermark.message import LARGEST, decoded, encoded
from jobs.bar import bar
from jobs.benchmarks.vocoders import Recording, find_recordings

FALSE_POSITIVES = 0.003  # at the threshold, by its upper limit
_CONFIDENCE = 0.95
_SPEED_S, _TURNS = 10.0, 9

Say = Callable[[str], None]


def watermark(
    folder: Path,
    clips: Sequence[Path],
    unmarked: Sequence[Path],
    say: Say,
    *,
    n: int,
    seconds: float,
    threshold: float | None = None,
    through: Sequence[str] = (),
) -> dict[str, Any]:
    """Return figures of the watermark of a folder.

    Args:
        clips: folders of recordings that are marked, attacked, and looked at.
        unmarked: folders of sound without marks, beside those, by which the threshold is set.
        through: vocoders and codecs, each of which makes the sound anew, as one more attack.
        threshold: of scores; by default the lowest at which unmarked pieces are taken for marked in at most FALSE_POSITIVES.
    """
    marker = Marker.open(folder)
    attacks: dict[str, Attack] = {**ATTACKS, **{f"through {Path(place).name}": _remade_by(place) for place in through}}
    pieces = [(one, *_piece(one, seconds)) for one in find_recordings(clips, n)]
    with Watch() as watch:
        clean = _unmarked_scores(marker, [*clips, *unmarked], seconds, say)
        level = marker.threshold = _threshold(clean) if threshold is None else threshold
        rng = np.random.default_rng(0)
        rows: dict[str, list[tuple[float, bool, bool]]] = {name: [] for name in attacks}
        false: dict[str, list[float]] = {name: [] for name in attacks}
        quality: list[tuple[float, float]] = []
        overlaps: list[float] = []
        with bar(quiet=False) as shown:
            task = shown.add_task("clips", total=len(pieces))
            for _, sound, rate in pieces:
                number = int(rng.integers(0, LARGEST + 1))
                message = np.array(encoded(number))
                marked = marker.marked(sound, rate, message)
                quality.append((pesq(marked, rate, sound, rate), si_sdr(marked, sound)))
                for name, attack in attacks.items():
                    found = marker.detected(attack(marked, rate, rng), rate)
                    read = tuple(int(bit > 0) for bit in found.bits)
                    rows[name].append((found.score, read == tuple(message.tolist()), decoded(read).number == number))
                    false[name].append(marker.detected(attack(sound, rate, rng), rate).score)
                overlaps.append(_overlap(marker, sound, marked, rate))
                shown.advance(task)
    low, high = _upper(sum(score > level for score in clean), len(clean))
    return {
        "machine": describe(),
        "busy": watch.busy.to_json(),
        "mark": {"folder": folder.name, "bits": marker.bits, "decibels": [marker.depth.loud, marker.depth.quiet]},
        "seconds": seconds,
        "threshold": level,
        "unmarked": {"pieces": len(clean), "false_positives": low, "at_most": high},
        "quality": {
            "pesq": bootstrap.mean([own for own, _ in quality]).to_json(),
            "si_sdr": bootstrap.mean([own for _, own in quality]).to_json(),
        },
        "attacks": {name: _row(made, false[name], level) for name, made in rows.items()},
        "localisation": bootstrap.mean(overlaps).to_json(),
        "rtf": _cost(marker),
    }


def _piece(one: Recording, seconds: float) -> tuple[np.ndarray, int]:
    """Return the middle of a recording, [S], and its rate."""
    sound, rate = read_audio(one.path)
    wanted = round(seconds * rate)
    begin = max(0, (len(sound) - wanted) // 2)
    return sound[begin : begin + wanted], rate


def _pieces(folder: Path, seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """Yield all whole pieces of all recordings of a folder."""
    for one in find_recordings([folder], 10**9):
        try:
            sound, rate = read_audio(one.path)
        except AudioError:
            continue
        size = round(seconds * rate)
        for begin in range(0, len(sound) - size + 1, size):
            yield sound[begin : begin + size], rate


def _remade_by(place: str) -> Attack:
    """Return what makes sound anew from the mel that a vocoder reads, or from the codes of a codec."""
    import torch

    from flowtts_core.audio.mel import LogMel, MelConfig
    from flowtts_core.codec.files import CARD, load_codec
    from flowtts_core.vocoder.windows import sound_in_windows
    from flowtts_core.voice.parts import find_vocoder

    if (Path(place) / CARD).is_file():
        codec = load_codec(Path(place)).codec

        def own_sound(sound: torch.Tensor) -> torch.Tensor:
            coded = codec.encode(sound.expand(1, codec.channels, -1))
            return codec.decode(coded).reshape(codec.channels, -1).mean(0)

        own_rate = codec.sample_rate
    else:
        vocoder = find_vocoder(place, MelConfig()).vocoder.eval()
        log_mel, own_rate = LogMel(vocoder.features), vocoder.features.sample_rate

        def own_sound(sound: torch.Tensor) -> torch.Tensor:
            return torch.cat(list(sound_in_windows(vocoder, log_mel(sound[None])[0])))

    def attack(sound: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        with torch.inference_mode():
            made = own_sound(torch.from_numpy(resample(sound.astype(np.float32), rate, own_rate)))
        return resample(made.numpy(), own_rate, rate)

    return attack


def _unmarked_scores(marker: Marker, folders: Sequence[Path], seconds: float, say: Say) -> list[float]:
    scores: list[float] = []
    for folder in folders:
        before = len(scores)
        scores += [marker.detected(sound, rate).score for sound, rate in _pieces(folder, seconds)]
        say(
            f"unmarked {folder.name}: {len(scores) - before} pieces, highest score {max(scores[before:], default=0):.2f}"
        )
    if len(scores) < 100:
        raise ConfigError(f"{len(scores)} pieces without a mark", "give more recordings: --unmarked FOLDER")
    return scores


def _threshold(scores: Sequence[float]) -> float:
    """Return the lowest score above which the share of unmarked pieces is at most FALSE_POSITIVES by its upper limit."""
    falling = sorted(scores, reverse=True)
    above = 0
    while above < len(falling) and _upper(above + 1, len(falling))[1] <= FALSE_POSITIVES:
        above += 1
    return float(falling[above])


def _upper(count: int, total: int) -> tuple[float, float]:
    """Return a share and its upper limit (Clopper and Pearson 1934, one-sided)."""
    from scipy.stats import beta

    limit = 1.0 if count == total else float(beta.ppf(_CONFIDENCE, count + 1, total - count))
    return count / total, limit


def _row(made: Sequence[tuple[float, bool, bool]], unmarked: Sequence[float], level: float) -> dict[str, Any]:
    return {
        "found": bootstrap.mean([float(score > level) for score, _, _ in made]).to_json(),
        "message": bootstrap.mean([float(right) for _, right, _ in made]).to_json(),
        "number": bootstrap.mean([float(right) for _, _, right in made]).to_json(),
        "false": bootstrap.mean([float(score > level) for score in unmarked]).to_json(),
        "score": statistics.median(score for score, _, _ in made),
    }


def _overlap(marker: Marker, sound: np.ndarray, marked: np.ndarray, rate: int) -> float:
    """Return how well a marked span is found inside sound without a mark: intersection over union, by frames."""
    hop = round(rate / 100)
    whole = np.concatenate([sound[::-1], marked, sound[::-1]])
    found = marker.detected(whole, rate).marked
    begin, end = len(sound) // hop, 2 * len(sound) // hop
    there = np.zeros(len(found), dtype=bool)
    there[begin:end] = True
    either = (found | there).sum()
    return float((found & there).sum() / either) if either else 0.0


def _cost(marker: Marker) -> dict[str, float]:
    """Return seconds of one thread for a second of sound: to mark it whole, in pieces of 20 ms, and to look for a mark."""
    rate = 24_000
    sound = np.random.default_rng(0).standard_normal(round(_SPEED_S * rate)).astype(np.float32) * 0.1
    message, piece = np.ones(marker.bits, dtype=np.int64), rate // 50

    def streamed() -> None:
        stream = marker.stream(rate, message)
        for begin in range(0, len(sound), piece):
            stream.feed(sound[begin : begin + piece])
        stream.finish()

    ways: dict[str, Callable[[], Any]] = {
        "mark": lambda: marker.marked(sound, rate, message),
        "mark_in_pieces": streamed,
        "detect": lambda: marker.detected(sound, rate),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_TURNS):  # in turns, since the machine's speed drifts
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - began) / _SPEED_S)
    return {name: statistics.median(values) for name, values in taken.items()}


def page(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    machine, unmarked = figures["machine"], figures["unmarked"]
    quality = figures["quality"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}; clips of {figures['seconds']:g} s; threshold "
        f"{figures['threshold']:.2f}: of {unmarked['pieces']:,} pieces without a mark {unmarked['false_positives']:.2%} are "
        f"above it (at most {unmarked['at_most']:.2%}).",
        "",
        f"PESQ {_shown(quality['pesq'])}, SI-SDR {_shown(quality['si_sdr'])} dB against the unmarked sound; a marked span is "
        f"found with an overlap (IoU) of {_shown(figures['localisation'])}. Of one thread: "
        + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures["rtf"].items())
        + " s a second of sound.",
        "",
        "| attack | found | message right | number right after mending | false | score |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["attacks"].items():
        shown = [_percent(row[key]) for key in ("found", "message", "number", "false")]
        lines.append(f"| {name} | {' | '.join(shown)} | {row['score']:.2f} |")
    return "\n".join(lines)


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


def _percent(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1%} ({interval['low']:.0%} to {interval['high']:.0%})"
