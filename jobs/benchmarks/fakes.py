"""How well a small net tells synthetic from human speech, of engines and readers that it never heard; and the net itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.machine import Watch, describe
from flowtts_core.audio.files import read_audio
from flowtts_core.errors import ConfigError
from flowtts_core.fakes.channels import changed, marked
from flowtts_core.fakes.detector import SHORTEST_S, Line, Textures, odds_of, textures_of
from flowtts_core.fakes.files import save_fakes
from flowtts_core.fakes.net import FakeNet, FakeNetConfig
from flowtts_core.fakes.spectra import RATE
from flowtts_core.metrics import bootstrap
from flowtts_core.metrics.similarity import equal_error_rate
from flowtts_core.training.fakes import FakeTraining, Source, draw_textures, train_fakes
from jobs.benchmarks.fakes_plan import Plan, clips_of, files_of, read_plan

LONGEST_S = 6.0  # of a clip
NUMBER = 1234  # that marked clips bear
PLAIN, MARKED, CHANGED = "plain", "marked", "changed"
_ROUNDS = 1000
_AT_ONCE = 8  # clips of the test that are changed together

Say = Callable[[str], None]


@dataclass(frozen=True)
class Clip:
    """A clip of the test.

    Attributes:
        group: the engine, or the people's name for a human.
        reader: of a human.
        heard: what a net is asked of it, by what was done to it.
    """

    group: str
    synthetic: bool
    reader: str
    heard: dict[str, Textures]


@dataclass(frozen=True)
class Scored:
    """What a net said of a clip: of the whole by what was done to it, and of each second as it was."""

    group: str
    synthetic: bool
    reader: str
    whole: dict[str, float]
    seconds: np.ndarray  # [N]
    fold: int
    heard: bool  # whether the net heard the engine


def fakes(
    path: Path, say: Say, *, steps: int, output: Path | None = None, model: FakeNetConfig | None = None
) -> dict[str, Any]:
    """Train nets, each without some families of engines, and return how well they tell those from people whom they never heard.

    Args:
        path: of the plan.
        steps: of the training of each net.
        output: folder of a net that is trained on all engines, calibrated by the scores of those that were left out.
    """
    plan, root, model, training = read_plan(path), path.parent, model or FakeNetConfig(), FakeTraining(steps)
    torch.set_num_threads(1)
    with Watch() as watch:
        began = time.perf_counter()
        sources, tests = _heard(plan, root), _tests(plan, root)
        textures = draw_textures(sources, 0, _teller(say))
        say(f"{len(textures.texture)} seconds of {len(sources)} sources, {len(tests)} clips for the test")
        scored: list[Scored] = []
        for number, fold in enumerate(plan.folds):
            scored += _scored(train_fakes(textures, training, model, plan.without(fold)), tests, number, plan, fold)
            say(f"left out and measured: {', '.join(fold)}")
        figures = summed_up(scored, plan)
        figures["sources"] = _counts(sources, tests)
        figures["training"] = {"steps": steps, "textures": len(textures.texture)}
        if output is not None:
            _save(output, train_fakes(textures, training, model), plan, figures, steps)
        figures["seconds"] = time.perf_counter() - began
    return {"machine": describe(), "busy": watch.busy.to_json(), **figures}


def _teller(say: Say) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done % 512 == 0:
            say(f"windows: {done} of {total}")

    return tell


def _heard(plan: Plan, root: Path) -> list[Source]:
    people = [
        Source(
            one.name,
            False,
            [sound for path in files_of(root, one.clips, one.most) for sound in _read(path)],
            one.windows,
        )
        for one in plan.humans
    ]
    engines = [
        Source(one.name, True, [sound for path in clips_of(root, one)[0] for sound in _read(path)], one.windows)
        for one in plan.engines
    ]
    return people + engines


def _read(path: Path) -> list[np.ndarray]:
    """Return the beginning of a recording, [S] at 16 kHz; nothing where it is too short to be judged."""
    sound = read_audio(path, RATE)[0][: round(LONGEST_S * RATE)]
    return [sound] if len(sound) >= SHORTEST_S * RATE else []


def _tests(plan: Plan, root: Path) -> list[Clip]:
    """Return the clips of the test as they are, marked, and after the same random changes for both kinds."""
    named = [(one.name, False, path) for one in plan.readers for path in files_of(root, one.clips, one.most)]
    named += [(one.name, True, path) for one in plan.engines for path in clips_of(root, one)[1]]
    rng = np.random.default_rng(1)
    rng.shuffle(named)  # type: ignore[arg-type]  # numpy shuffles any mutable sequence
    clips = []
    for begin in range(0, len(named), _AT_ONCE):
        part = [(*one, sound) for one in named[begin : begin + _AT_ONCE] for sound in _read(one[2])]
        for (group, synthetic, path, sound), after in zip(part, changed([one[3] for one in part], rng), strict=True):
            sounds = {PLAIN: sound, MARKED: marked(sound, NUMBER), CHANGED: after}
            heard = {what: textures_of(own, RATE) for what, own in sounds.items()}
            clips.append(Clip(group, synthetic, path.parent.name, heard))
    return clips


def _scored(net: FakeNet, tests: Sequence[Clip], number: int, plan: Plan, fold: Sequence[str]) -> list[Scored]:
    """Return the scores of people, of the engines of a fold, and, as they are, of the engines that the net heard."""
    unheard = [engine.name for engine in plan.engines if engine.family in fold]
    absent = set(plan.without(fold)) - set(unheard)

    def ask(texture: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(texture)).numpy())

    scored = []
    for clip in tests:
        if clip.group in absent:
            continue
        heard = clip.synthetic and clip.group not in unheard
        found = {what: odds_of(ask, own) for what, own in clip.heard.items() if what == PLAIN or not heard}
        whole = {what: odds.whole for what, odds in found.items()}
        seconds = found[PLAIN].seconds[np.isfinite(found[PLAIN].seconds)]
        scored.append(Scored(clip.group, clip.synthetic, clip.reader, whole, seconds, number, heard))
    return scored


def summed_up(scored: Sequence[Scored], plan: Plan) -> dict[str, Any]:
    """Return equal error rates by engine, what marks change, and the calibration with its figures."""
    engines: dict[str, dict[str, Any]] = {}
    for number, fold in enumerate(plan.folds):
        humans = [one for one in scored if one.fold == number and not one.synthetic]
        for engine in (one for one in plan.engines if one.family in fold):
            own = [one for one in scored if one.group == engine.name and not one.heard]
            heard = [one for one in scored if one.group == engine.name and one.heard]
            engines[engine.name] = {
                "family": engine.family,
                "left_out_with": plan.without(fold),
                "clips": len(own),
                **{what: _rate(own, humans, what) for what in (PLAIN, MARKED, CHANGED)},
                "seconds": _rate_of_seconds(own, humans),
                "heard": _mean_rate(heard, scored),
            }
    rates: dict[str, list[float]] = {
        what: [row[what]["value"] for row in engines.values()] for what in (PLAIN, MARKED, CHANGED)
    }
    means = {what: bootstrap.mean(own).to_json() for what, own in rates.items()}
    people = [one for one in scored if not one.synthetic]
    return {
        "engines": engines,
        "mean": means,
        "readers": {
            name: {
                "readers": len({one.reader for one in people if one.group == name}),
                "clips": sum(one.group == name and one.fold == 0 for one in people),
            }
            for name in dict.fromkeys(one.group for one in people)
        },
        "mark": {
            kind: bootstrap.mean_difference(
                [one.whole[MARKED] for one in own], [one.whole[PLAIN] for one in own]
            ).to_json()
            for kind, own in (("human", people), ("synthetic", [o for o in scored if o.synthetic and not o.heard]))
        },
        "spread": float(np.std([one.whole[PLAIN] for one in scored if not one.heard])),
        "calibration": _calibrated(scored),
    }


def _rate(synthetic: Sequence[Scored], human: Sequence[Scored], what: str) -> dict[str, float]:
    """Return the equal error rate and its 95 % interval, which resamples an engine's clips, and readers with all of theirs."""
    ours = np.array([one.whole[what] for one in synthetic])
    readers = _by_reader(human, what)
    rate, _ = equal_error_rate(ours, np.concatenate(readers))
    rng, rates = np.random.default_rng(bootstrap.SEED), []
    for _ in range(_ROUNDS):
        drawn = [readers[n] for n in rng.integers(0, len(readers), len(readers))]
        rates.append(equal_error_rate(ours[rng.integers(0, len(ours), len(ours))], np.concatenate(drawn))[0])
    low, high = np.percentile(rates, [2.5, 97.5])
    return {"value": rate, "low": float(low), "high": float(high), "n": len(ours)}


def _by_reader(human: Sequence[Scored], what: str) -> list[np.ndarray]:
    names = sorted({one.reader for one in human})
    return [np.array([one.whole[what] for one in human if one.reader == name]) for name in names]


def _rate_of_seconds(synthetic: Sequence[Scored], human: Sequence[Scored]) -> float:
    return equal_error_rate(*(np.concatenate([one.seconds for one in side]) for side in (synthetic, human)))[0]


def _mean_rate(heard: Sequence[Scored], scored: Sequence[Scored]) -> float | None:
    """Return the mean over the folds whose nets heard an engine of its equal error rate."""
    rates = []
    for fold in sorted({one.fold for one in heard}):
        human = [one.whole[PLAIN] for one in scored if one.fold == fold and not one.synthetic]
        rates.append(equal_error_rate([one.whole[PLAIN] for one in heard if one.fold == fold], human)[0])
    return float(np.mean(rates)) if rates else None


def _calibrated(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return lines from scores to probabilities, and how well those hold that were fitted without the fold they are used on."""
    own = [one for one in scored if not one.heard]
    kinds = np.array([one.synthetic for one in own for _ in (PLAIN, CHANGED)])
    folds = np.array([one.fold for one in own for _ in (PLAIN, CHANGED)])
    scores = np.array([one.whole[what] for one in own for what in (PLAIN, CHANGED)])
    told = np.empty(len(scores))
    for fold in np.unique(folds):
        others = folds != fold if len(np.unique(folds)) > 1 else folds == fold
        told[~others if len(np.unique(folds)) > 1 else others] = fitted(scores[others], kinds[others]).probability(
            scores[folds == fold]
        )
    weight = _weights(kinds)
    bits = -np.log2(np.clip(np.where(kinds, told, 1 - told), 1e-9, 1))
    seconds = np.concatenate([one.seconds for one in own])
    of_seconds = np.concatenate([np.full(len(one.seconds), one.synthetic) for one in own])
    whole, each = fitted(scores, kinds), fitted(seconds, of_seconds)
    edges = np.array([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0 + 1e-9])
    table = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (told >= low) & (told < high)
        share = float((weight * kinds)[inside].sum() / weight[inside].sum()) if inside.any() else None
        table.append({"from": float(low), "to": float(min(high, 1)), "clips": int(inside.sum()), "synthetic": share})
    return {
        "whole": [whole.slope, whole.offset],
        "seconds": [each.slope, each.offset],
        "bits": float((bits * weight).sum() / weight.sum()),
        "table": table,
    }


def fitted(scores: np.ndarray, synthetic: np.ndarray) -> Line:
    """Return the line of the least cross entropy, where both kinds weigh alike (Platt 1999, by Newton's method).

    Raises:
        ConfigError: where one kind is missing.
    """
    if synthetic.all() or not synthetic.any():
        raise ConfigError("scores of one kind alone", "a calibration needs human and synthetic speech")
    weight, scale = _weights(synthetic), max(float(np.abs(scores).max()), 1e-9)
    x = np.stack([scores / scale, np.ones(len(scores))], 1)
    line = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ line))
        slope = x.T @ (weight * (p - synthetic)) + 1e-6 * line
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        line = line - np.clip(np.linalg.solve(bend, slope), -5, 5)
    return Line(float(line[0] / scale), float(line[1]))


def _weights(synthetic: np.ndarray) -> np.ndarray:
    share = synthetic.mean()
    return np.where(synthetic, 0.5 / share, 0.5 / (1 - share)) / len(synthetic)


def _counts(sources: Sequence[Source], tests: Sequence[Clip]) -> dict[str, Any]:
    heard = {
        source.name: {"clips": len(source.clips), "windows": source.windows, "synthetic": source.synthetic}
        for source in sources
    }
    tested = {
        name: {"tests": sum(clip.group == name for clip in tests)} for name in dict.fromkeys(c.group for c in tests)
    }
    return {name: {**heard.get(name, {}), **tested.get(name, {})} for name in (*heard, *tested)}


def _save(folder: Path, net: FakeNet, plan: Plan, figures: dict[str, Any], steps: int) -> None:
    whole, seconds = (Line(*figures["calibration"][name]) for name in ("whole", "seconds"))
    save_fakes(
        folder,
        net,
        whole,
        seconds,
        licence=plan.licence,
        source=plan.source,
        steps=steps,
        heard=[engine.name for engine in plan.engines],
        equal_error_rate={
            "unheard engines, mean": round(figures["mean"][PLAIN]["value"], 4),
            "after the same random changes": round(figures["mean"][CHANGED]["value"], 4),
        },
    )


def page(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    readers = ", ".join(
        f"{name} (readers: {row['readers']}, clips: {row['clips']})" for name, row in figures["readers"].items()
    )
    lines = [
        f"Against people whom no net heard: {readers}.",
        "",
        "| engine left out | family | clips | equal error rate | marked | after the same changes | each second | when heard |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["engines"].items():
        rates = " | ".join(_percent(row[what]) for what in (PLAIN, MARKED, CHANGED))
        heard = "" if row["heard"] is None else f"{row['heard']:.1%}"
        lines.append(f"| {name} | {row['family']} | {row['clips']} | {rates} | {row['seconds']:.1%} | {heard} |")
    means = " | ".join(_percent(figures["mean"][what]) for what in (PLAIN, MARKED, CHANGED))
    lines += [f"| mean of engines | | | {means} | | |", ""]
    for kind, row in figures["mark"].items():
        lines.append(
            f"A mark changes the score of {kind} clips by {row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f};"
            f" all scores' standard deviation is {figures['spread']:.2f})."
        )
    found = figures["calibration"]
    lines += ["", f"Cross entropy of the probabilities: {found['bits']:.3f} bits (1 is a guess).", ""]
    lines += ["| probability | clips | of which synthetic |", "|---|---|---|"]
    for row in found["table"]:
        share = "" if row["synthetic"] is None else f"{row['synthetic']:.0%}"
        lines.append(f"| {row['from']:.0%} to {row['to']:.0%} | {row['clips']} | {share} |")
    return "\n".join(lines)


def _percent(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1%} ({interval['low']:.1%} to {interval['high']:.1%})"
