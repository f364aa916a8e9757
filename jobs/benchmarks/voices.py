"""Compare voices on the same texts in one run: naturalness, noise, words understood, speed, size, loading, memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.machine import Watch, describe
from flowtts_core.engines.base import Speech, UtteranceSynthesizer
from flowtts_core.errors import ConfigError, FlowTTSError, OutputError
from flowtts_core.metrics import bootstrap, naturalness
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig, Value
from flowtts_core.text.frontends import language_read
from flowtts_core.voice import open_voice, split_speaker
from flowtts_core.voice.card import find_voice, load_card, write_card
from jobs.benchmarks.speed import say_one

Texts = Sequence[tuple[str, str]]  # id, text
TURNS = 5
THREADS = (1, 2)
_JUDGED = {"naturalness": "naturalness", "p808": "mos_p808", "wer": "wer", "cer": "cer"}
_LOAD = """
import json, resource, sys, time
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice import open_voice
began = time.perf_counter()
voice = open_voice(sys.argv[1], threads=1)
loaded = time.perf_counter() - began
voice.synthesize([SynthesisRequest(text=text, **json.loads(sys.argv[3])) for text in json.loads(sys.argv[2])])
try:  # the peak of this program alone; that of getrusage begins with the memory of the program that started it
    kilobytes = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
except OSError:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"load_s": loaded, "memory_mb": int(kilobytes) / 1024}))
"""


def voices(
    names: Sequence[str], texts: Texts, asr: str, say: Callable[[str], None], language: str | None = None
) -> dict[str, Any]:
    """Measure each voice; their turns at speaking alternate, since the machine's other load changes.

    Args:
        names: of voices, or `NAME@SPEAKER`.
        asr: the recogniser for WER and CER; see `flowtts_core.metrics.asr`.
        language: in which the texts are; None is each voice's own.
    """
    if len(texts) < 2:
        raise ConfigError(f"{len(texts)} texts have no spread", "give --n 2 or more")
    with Watch() as watch:
        panel = Panel(PanelConfig(("words", "opinions", "naturalness"), asr=asr))
        recogniser = (
            panel.recogniser.name
        )  # models are loaded first: one that is missing is told before anything is spoken
        naturalness.load()
        rows = {name: _facts(name, language, [text for _, text in texts[:5]]) for name in names}
        say("speaking in turns")
        speeds, spoken = _speeds(names, texts, language)
        for name, row in rows.items():
            say(f"judging {name}")
            row |= {"rtf": speeds[name], **_judged(panel, texts, spoken[name], row["language"])}
    figures = {
        "benchmark": "voices",
        "machine": describe(),
        "texts": len(texts),
        "asr": recogniser,
        "busy": watch.busy.to_json(),
    }
    return {**figures, "voices": list(rows.values())}


def _facts(name: str, language: str | None, texts: list[str]) -> dict[str, Any]:
    """Size, licence, language, and what loading and speaking cost a process of their own."""
    voice, speaker = split_speaker(name)
    folder = find_voice(voice)
    asked = json.dumps({"speaker": speaker, "language": language})
    command = [sys.executable, "-c", _LOAD, str(folder.absolute()), json.dumps(texts), asked]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise FlowTTSError(f"{name} does not speak: {done.stderr.strip()[-300:]}", "try it with flowtts say")
    card = load_card(folder)
    frontend = card.parts.get("frontend")
    read = language_read(frontend, speaker, language) if frontend else ""
    return {
        "voice": name,
        "language": read or language or "en",
        "size_mb": card.size_bytes(folder) / 1e6,
        "licence": card.licence,
    } | json.loads(done.stdout)


def _speeds(
    names: Sequence[str], texts: Texts, language: str | None
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Speech]]]:
    """The RTF of each voice by threads (median of the turns, low, high), and what it said of the texts."""
    opened: dict[tuple[str, int], UtteranceSynthesizer] = {}
    times: dict[tuple[str, int], list[float]] = {}
    spoken: dict[str, list[Speech]] = {}
    for turn in range(TURNS + 1):  # the first warms up
        for name in names:
            voice, speaker = split_speaker(name)
            for threads in THREADS:
                if (name, threads) not in opened:
                    opened[name, threads] = open_voice(voice, threads=threads)
                _torch_threads(threads)
                part = texts[turn % TURNS :: TURNS] or texts
                began = time.perf_counter()
                said = [say_one(opened[name, threads], text, speaker=speaker, language=language) for _, text in part]
                took = time.perf_counter() - began
                if turn:
                    times.setdefault((name, threads), []).append(took / sum(speech.seconds for speech in said))
    for name in names:
        voice, speaker = split_speaker(name)
        spoken[name] = [
            say_one(opened[name, THREADS[-1]], text, speaker=speaker, language=language) for _, text in texts
        ]
    rtf = {
        name: {
            str(threads): {
                "median": statistics.median(times[name, threads]),
                "low": min(times[name, threads]),
                "high": max(times[name, threads]),
            }
            for threads in THREADS
        }
        for name in names
    }
    return rtf, spoken


def _torch_threads(threads: int) -> None:
    """Set the threads of voices on torch, which belong to the whole process."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _judged(panel: Panel, texts: Texts, spoken: Sequence[Speech], language: str) -> dict[str, Any]:
    values: dict[str, list[Value]] = {name: [] for name in _JUDGED}
    for (_, text), speech in zip(texts, spoken, strict=True):
        clip = Clip(speech.waveform, speech.sample_rate, text, language=language.partition("-")[0])
        verdict = panel.judge(clip)
        if verdict.reasons:
            raise FlowTTSError(f"cannot judge {text[:60]!r}: {verdict.reasons}", "leave this text out")
        for name, metric in _JUDGED.items():
            if metric in verdict.values:  # a language without spaces has no WER
                values[name].append(verdict.values[metric])
    intervals: dict[str, Any] = {}
    for name, found in values.items():
        if not found:
            intervals[name] = None
            continue
        tops, bottoms = zip(*found, strict=True)
        intervals[name] = bootstrap.ratio(tops, bottoms).to_json()
    return intervals


def write_cards(figures: dict[str, Any]) -> None:
    """Write each voice's figures into its card; those of VOICE@SPEAKER are not the whole voice's, and are left out.

    Raises:
        OutputError: for a card that cannot be written.
    """
    shared = {"command": "flowtts benchmark voices", "texts": figures["texts"], "asr": figures["asr"]}
    for row in figures["voices"]:
        voice, speaker = split_speaker(row["voice"])
        if speaker is not None:
            print(f"{row['voice']}: not written, the card is that of all its speakers", file=sys.stderr)
        else:
            folder = find_voice(voice)
            card = load_card(folder)
            scores = {
                **card.scores,
                "voices": {**shared, "language": row["language"], **{name: row[name] for name in _JUDGED}},
            }
            try:
                write_card(folder, replace(card, scores=scores))
            except OSError as error:
                raise OutputError(
                    f"{folder}: the card cannot be written ({error.strerror or error})", "copy the voice"
                ) from error


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine = figures["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}; {figures['texts']} texts; WER and CER by {figures['asr']}; "
        f"others kept {figures['busy']['others_cores'] or 0:.2f} cores busy",
        "",
        "| voice | naturalness | P.808 | WER % | CER % | RTF 1 thread | RTF 2 threads | MB | loads in s | memory MB | licence |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["voices"]:
        rates = [
            f"{100 * row[n]['value']:.1f} ({100 * row[n]['low']:.1f} to {100 * row[n]['high']:.1f})" if row[n] else ""
            for n in ("wer", "cer")
        ]
        scores = [
            f"{row[n]['value']:.2f} ({row[n]['low']:.2f} to {row[n]['high']:.2f})" for n in ("naturalness", "p808")
        ]
        rtf = [f"{row['rtf'][str(threads)]['median']:.4f}" for threads in THREADS]
        rest = (
            f"{row['size_mb']:.1f}",
            f"{row['load_s']:.1f}",
            f"{row['memory_mb']:.0f}",
            row["licence"] or "not stated",
        )
        lines.append(f"| {' | '.join((row['voice'], *scores, *rates, *rtf, *rest))} |")
    return "\n".join(lines)
