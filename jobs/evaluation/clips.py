"""The clips of the page of an evaluation: the worst, the best and those that differ most, to hear, to see and to read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtts_core.audio.files import encode, resample
from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics.wer import alignment
from jobs.evaluation.compare import differing
from jobs.evaluation.html import Run, directed, of_clip, section, shown, text
from jobs.evaluation.input import read_clip
from jobs.evaluation.plots import key, waveform

if TYPE_CHECKING:
    from flowtts_core.audio.mel import LogMel

SHOWN = 5  # worst and best clips of the first metric
FEWER = 3  # of each other metric, and of those that differ
ABREAST = 4  # runs side by side; of more, the first
LONGEST_S = 30.0
BUDGET = 24_000_000  # bytes of sound and pictures, beyond which clips are shown without
_GIVE_UP = 3
_COLUMNS = 360  # of the picture of a mel
_SHADES = 40  # enough for the eye, and a third of the bytes of 256
_DEPTH = 9.0  # nats below the loudest, which are shown


@dataclass
class Sounds:
    """Reads clips and turns them into what a page can hold, within its budget; tells why where it cannot."""

    budget: int = BUDGET
    clips: int = 0
    spent: int = 0
    _lost: dict[str, tuple[int, str]] = field(default_factory=dict)

    def of(self, run: Run, row: dict[str, Any]) -> str:
        """Player, waveform and mel of a clip, or the reason for which there are none."""
        if self.spent > self.budget:
            return f"<p class=soft>Without its sound: the page holds {self.spent / 1e6:.0f} MB already.</p>"
        root = run.evaluation.generated
        times, reason = self._lost.get(root, (0, ""))
        if times >= _GIVE_UP:  # a store that does not answer would be waited for again and again
            return f"<p class=warn>Not read, as clips before it could not be: {text(reason)}</p>"
        try:
            samples, rate = read_clip(root, row["place"])
        except FlowTTSError as error:
            reason = error.message
        except Exception as error:  # whatever the library of a store raises, the page is made
            reason = f"{type(error).__name__}: {error}"[:300]
        else:
            self._lost.pop(root, None)
            return self._held(run, row, samples, rate)
        self._lost[root] = times + 1, reason
        return f"<p class=warn>No sound: {text(reason)}</p>"

    def _held(self, run: Run, row: dict[str, Any], samples: np.ndarray, rate: int) -> str:
        seconds, name = len(samples) / rate, text(f"{row['id']} of {run.name}")
        said = f"{seconds:.1f} s"
        if seconds > LONGEST_S:
            samples, said = samples[: round(LONGEST_S * rate)], f"{said}; here are its first {LONGEST_S:g}"
        sound, picture = base64.b64encode(encode(samples, rate, ".mp3")).decode(), mel_picture(samples, rate)
        self.clips += 1
        self.spent += len(sound) + len(picture)
        return (
            f'<audio controls preload=none aria-label="{name}" src="data:audio/mpeg;base64,{sound}"></audio>'
            f"<p class='soft small'>{said}</p><div class=pictures>{waveform(samples, run.place)}"
            f'<img alt="log-mel spectrogram of {name}" src="data:image/png;base64,{picture}"></div>'
        )


def mel_picture(samples: np.ndarray, rate: int) -> str:
    """The log-mel of samples [S] as a PNG of few colours, low frequencies below, in base 64."""
    import torch
    from matplotlib import colormaps
    from PIL import Image

    log_mel = _log_mel()
    samples = resample(samples, rate, log_mel.config.sample_rate)
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


def marked(said: str, heard: str) -> str:
    """The words said, with those that the recogniser missed struck out and those it heard instead underlined."""
    missed, put = "<del><span class=sr>missed: </span>{}</del>", "<ins><span class=sr>heard: </span>{}</ins>"
    mark: dict[str, Callable[[str, str], str]] = {
        "equal": lambda a, b: text(a),
        "substitute": lambda a, b: f"{missed.format(text(a))} {put.format(text(b))}",
        "delete": lambda a, b: missed.format(text(a)),
        "insert": lambda a, b: put.format(text(b)),
    }
    return " ".join(mark[kind](a, b) for kind, a, b in alignment(said, heard))


@dataclass(frozen=True)
class _Picks:
    """By metric, the ids of the clips to show in each group; the first metric is what the page opens with."""

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
        """The ids of these groups under any metric, those of the first metric first, each once."""
        return list(dict.fromkeys(id for picks in self.by_metric.values() for g in groups for id in picks.get(g, [])))


def clips_section(runs: Sequence[Run], sounds: Sounds) -> str:
    """The worst and best clips of the run judged, and those that differ most between runs, by a metric to choose."""
    picks = _Picks.of(runs)
    if not picks.by_metric:
        return ""
    first = next(iter(picks.by_metric))
    rows = [{row["id"]: row for row in run.evaluation.rows} for run in runs]
    # of a clip alone the card is "c" and its number, of a clip side by side "d"
    alone = {id: f"c{i}" for i, id in enumerate(picks.every("worst", "best"))}
    apart = {id: f"d{i}" for i, id in enumerate(picks.every("differ"))}
    cards = {apart[id]: _card(apart[id], id, runs[:ABREAST], rows, first, sounds) for id in apart}
    cards |= {alone[id]: _card(alone[id], id, runs[:1], rows, first, sounds) for id in alone}
    shown_ids = {
        name: {g: [(apart if g == "differ" else alone)[id] for id in ids] for g, ids in groups.items()}
        for name, groups in picks.by_metric.items()
    }
    between = "runs" if len(runs) <= ABREAST else f"the first {ABREAST} runs"
    titles = {"differ": f"Differ most between {between}, by", "worst": "Worst by", "best": "Best by"}
    body = _chooser(list(picks.by_metric)) + (
        _LEGEND if any(row["heard"] is not None for row in rows[0].values()) else ""
    )
    for group in [g for g in titles if g in shown_ids[first]]:
        inside = "".join(cards.pop(card) for card in shown_ids[first][group])
        body += (
            f"<section{'' if inside else ' hidden'}><h3>{titles[group]} <span data-metric>{text(first)}</span></h3>"
            f"<div data-group={group}>{inside}</div></section>"
        )
    body += (
        f"<details id=further{'' if cards else ' hidden'}><summary>{len(cards)} further clips, worst, best or most different "
        f"by another figure</summary><h3>By another figure</h3>{''.join(cards.values())}</details>"
    )
    data = json.dumps(shown_ids).replace("<", "\\u003c")
    return section("clips", "Clips", f"{body}<script type=application/json id=picks>{data}</script>")


_LEGEND = (
    "<p class='soft small'>Below each text is what the recogniser made of it: words <del>struck out</del> were said by the "
    "text and not heard, words <ins>underlined</ins> were heard instead or besides.</p>"
)


def _chooser(metrics: Sequence[str]) -> str:
    options = "".join(f"<option>{text(name)}</option>" for name in metrics)
    return (
        "<p class=chooser hidden><label for=by>Show clips by</label> "
        f"<select id=by>{options}</select><span class=sr role=status id=said></span></p>"
    )


def _card(
    card: str, id: str, runs: Sequence[Run], rows: Sequence[dict[str, dict[str, Any]]], chosen: str, sounds: Sounds
) -> str:
    """A clip: its text, and a take of each run that has it."""
    there = [(run, of_run[id]) for run, of_run in zip(runs, rows, strict=False) if id in of_run]
    said = there[0][1]["text"]
    takes = "".join(_take(run, row, chosen, sounds, several=len(runs) > 1) for run, row in there)
    return (
        f"<article class=clip id={card}><h4>{text(id)}</h4>{f'<p>{text(said)}</p>' if said else ''}"
        f"<div class='takes{' alone' if len(runs) == 1 else ''}'>{takes}</div></article>"
    )


def _take(run: Run, row: dict[str, Any], chosen: str, sounds: Sounds, *, several: bool) -> str:
    name = f"<p>{key(run.place)}<b>{text(run.name)}</b></p>" if several else ""
    figures = "".join(
        f'<span data-of="{text(metric)}"{" class=chosen" if metric == chosen else ""}>{text(metric)} {shown(value)}</span>'
        for metric in directed(run.evaluation.scores)
        if (value := of_clip(row, metric)) is not None
    )
    heard = ""
    if row["heard"] is not None:
        words = marked(row["text"] or "", row["heard"])
        heard = f"<p>{words}</p>" if "<del>" in words or "<ins>" in words else "<p class=soft>heard as written</p>"
    if row["status"] != "ok":
        return f"<div class=take>{name}<p class=warn>{text(row['reason'])}</p></div>"
    return f"<div class=take>{name}<p class=figures>{figures}</p>{heard}{sounds.of(run, row)}</div>"
