"""The clips on the page of an evaluation: the worst, the best and those that differ most between runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from flowtts_core.audio.files import encode, resample
from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics.languages import normalizer_of
from flowtts_core.metrics.wer import alignment
from jobs.evaluation.compare import differing
from jobs.evaluation.figures import Run, directed, of_clip
from jobs.evaluation.input import read_clip
from jobs.evaluation.plots import waveform

if TYPE_CHECKING:
    from flowtts_core.audio.mel import LogMel

SHOWN = 5  # worst and best clips of the first metric
FEWER = 3  # clips of each further metric, and of those that differ
ABREAST = 4  # the most runs side by side
LONGEST_S = 30.0
BUDGET = 24_000_000  # bytes of sound and pictures; later clips are shown without
_GIVE_UP = 3
_COLUMNS = 360  # of a mel's picture
_SHADES = 40  # enough for the eye, and a third of the bytes of 256
_DEPTH = 9.0  # nats below the maximum that the picture shows


@dataclass(frozen=True)
class ClipSound:
    """A clip's sound as the page contains it.

    Attributes:
        said: its length, or why there is no sound.
        kind: the class of the paragraph that says so.
        mp3: in base 64; empty where there is no sound.
        mel: the picture of its log-mel, a PNG in base 64.
    """

    said: str
    kind: str = "warn"
    mp3: str = ""
    waveform: Markup = field(default_factory=Markup)
    mel: str = ""


@dataclass
class ClipSounds:
    """Reads clips and encodes them for the page, within a budget of bytes; gives the reason where it cannot."""

    budget: int = BUDGET
    clips: int = 0
    spent: int = 0
    _lost: dict[str, tuple[int, str]] = field(default_factory=dict)

    def of(self, run: Run, row: dict[str, Any]) -> ClipSound:
        """Return a clip's sound, or the reason for which there is none."""
        if self.spent > self.budget:
            return ClipSound(f"Without its sound: the page holds {self.spent / 1e6:.0f} MB already.", "soft")
        root = run.evaluation.generated
        times, reason = self._lost.get(root, (0, ""))
        if times >= _GIVE_UP:  # or each clip would wait for a store that does not answer
            return ClipSound(f"Not read, as clips before it could not be: {reason}")
        try:
            samples, rate = read_clip(root, row["place"])
        except FlowTTSError as error:
            reason = error.message
        except Exception as error:  # whatever a store's library raises, the page is made
            reason = f"{type(error).__name__}: {error}"[:300]
        else:
            self._lost.pop(root, None)
            return self._held(run, samples, rate)
        self._lost[root] = times + 1, reason
        return ClipSound(f"No sound: {reason}")

    def _held(self, run: Run, samples: np.ndarray, rate: int) -> ClipSound:
        said = f"{len(samples) / rate:.1f} s"
        if len(samples) / rate > LONGEST_S:
            samples, said = samples[: round(LONGEST_S * rate)], f"{said}; here are its first {LONGEST_S:g}"
        mp3, mel = base64.b64encode(encode(samples, rate, ".mp3")).decode(), mel_picture(samples, rate)
        self.clips += 1
        self.spent += len(mp3) + len(mel)
        return ClipSound(said, "soft", mp3, waveform(samples, run.place), mel)


def mel_picture(samples: np.ndarray, rate: int) -> str:
    """Return the log-mel of samples [S] as a PNG in base 64, with few colours and low frequencies at the bottom."""
    import torch
    from matplotlib import colormaps
    from PIL import Image

    log_mel = _log_mel()
    samples = resample(samples, rate, log_mel.config.sample_rate)
    samples = np.pad(samples, (0, max(0, log_mel.config.hop_length - len(samples))))  # one frame at least
    mel = log_mel(torch.from_numpy(samples)[None].float())[0].numpy()
    columns = [part.mean(axis=1) for part in np.array_split(mel, min(_COLUMNS, mel.shape[1]), axis=1)]
    depth = np.clip((np.stack(columns, axis=1) - mel.max()) / _DEPTH + 1, 0, 1)
    image = Image.fromarray(np.round(depth[::-1] * (_SHADES - 1)).astype(np.uint8), "P")
    shades = colormaps["magma"](np.linspace(0, 1, _SHADES))[:, :3]
    image.putpalette(np.round(shades * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


@lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    from flowtts_core.audio.mel import LogMel, MelConfig

    return LogMel(MelConfig(f_max=8000.0))


@dataclass(frozen=True)
class _Picks:
    """The ids of the clips in each group, by metric. The page opens with the first metric."""

    by_metric: dict[str, dict[str, list[str]]]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> _Picks:
        scores = runs[0].evaluation.scores
        picks: dict[str, dict[str, list[str]]] = {}
        for name in directed(scores):
            valued = [(row["id"], v) for row in runs[0].evaluation.rows if (v := of_clip(row, name)) is not None]
            up = bool(scores[name].higher_is_better)
            ids = [id for id, v in sorted(valued, key=lambda pair: (pair[1] if up else -pair[1], pair[0]))]
            most = FEWER if picks else SHOWN
            groups = {"worst": ids[:most], "best": ids[most:][-most:][::-1]}
            if len(runs) > 1:
                groups["differ"] = differing(runs[:ABREAST], name, FEWER)
            if ids:
                picks[name] = groups
        return cls(picks)

    def every(self, *groups: str) -> list[str]:
        """Return the ids in these groups under any metric, each once, those of the first metric first."""
        return list(dict.fromkeys(id for picks in self.by_metric.values() for g in groups for id in picks.get(g, [])))


@dataclass(frozen=True)
class ClipTake:
    """A run's clip. `words` are the recogniser's, aligned (see `alignment`); None where nobody listened."""

    run: Run
    problem: str
    figures: list[tuple[str, float]]
    words: list[tuple[str, str, str]] | None
    sound: ClipSound | None


@dataclass(frozen=True)
class ClipCard:
    """A clip on the page: its element's id, its own id and text, and the take of each run that has it."""

    card: str
    id: str
    text: str
    alone: bool
    takes: list[ClipTake]


@dataclass(frozen=True)
class ShownClips:
    """The clips of a page.

    Attributes:
        metrics: those to choose from; the page opens with the first.
        groups: name, title and cards of each group as the page opens.
        further: the cards that another metric shows.
        picks: by metric and group, the ids of the cards to show.
        heard: whether a recogniser listened to any.
    """

    metrics: list[str]
    groups: list[dict[str, Any]]
    further: list[ClipCard]
    picks: dict[str, dict[str, list[str]]]
    heard: bool


def clips_of(runs: Sequence[Run], sounds: ClipSounds) -> ShownClips | None:
    """Return the worst and best clips of the run judged, and those that differ most between runs, by each metric."""
    picked = _Picks.of(runs)
    if not picked.by_metric:
        return None
    first = next(iter(picked.by_metric))
    rows = [{row["id"]: row for row in run.evaluation.rows} for run in runs]
    # of a clip alone the card is "c" and its number, of a clip side by side "d"
    alone = {id: f"c{i}" for i, id in enumerate(picked.every("worst", "best"))}
    apart = {id: f"d{i}" for i, id in enumerate(picked.every("differ"))}
    cards = {apart[id]: _card(apart[id], id, runs[:ABREAST], rows, sounds) for id in apart}
    cards |= {alone[id]: _card(alone[id], id, runs[:1], rows, sounds) for id in alone}
    picks = {
        name: {group: [(apart if group == "differ" else alone)[id] for id in ids] for group, ids in groups.items()}
        for name, groups in picked.by_metric.items()
    }
    between = "runs" if len(runs) <= ABREAST else f"the first {ABREAST} runs"
    titles = {"differ": f"Differ most between {between}, by", "worst": "Worst by", "best": "Best by"}
    groups = [
        {"name": name, "title": title, "cards": [cards.pop(card) for card in picks[first][name]]}
        for name, title in titles.items()
        if name in picks[first]
    ]
    heard = any(row["heard"] is not None for row in rows[0].values())
    return ShownClips(list(picks), groups, list(cards.values()), picks, heard)


def _card(
    card: str, id: str, runs: Sequence[Run], rows: Sequence[dict[str, dict[str, Any]]], sounds: ClipSounds
) -> ClipCard:
    there = [(run, of_run[id]) for run, of_run in zip(runs, rows, strict=False) if id in of_run]
    takes = [_take(run, row, sounds) for run, row in there]
    return ClipCard(card, id, there[0][1]["text"], len(runs) == 1, takes)


def _take(run: Run, row: dict[str, Any], sounds: ClipSounds) -> ClipTake:
    if row["status"] != "ok":
        return ClipTake(run, row["reason"], [], None, None)
    figures = [(name, v) for name in directed(run.evaluation.scores) if (v := of_clip(row, name)) is not None]
    compared = normalizer_of(run.evaluation.panel.language)
    words = None if row["heard"] is None else alignment(row["text"] or "", row["heard"], compared)
    return ClipTake(run, "", figures, words, sounds.of(run, row))
