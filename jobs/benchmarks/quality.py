"""Measure a voice against its teacher on the same texts: words understood, clean sound, same speaker, by solver steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowtts_core.audio.files import read_audio, resample
from flowtts_core.audio.mel import LogMel
from flowtts_core.engines.base import Speech
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.errors import AudioError, DependencyError
from flowtts_core.metrics import bootstrap, mos, similarity, wer
from flowtts_core.metrics.naturalness import naturalness
from flowtts_core.metrics.parallel import parallel_starmap
from flowtts_core.request import SynthesisRequest
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig, Vocoder
from flowtts_core.voice import open_voice, split_speaker
from jobs.benchmarks.speed import say_one

DEFAULT_TEACHER = "flite:rms"
STEPS = (0, 1, 2, 4, 10)  # 0 is the prior mean alone, without flow
AT_ONCE = 32
OPINIONS = ("naturalness", "overall", "p808")  # from 1 to 5
Texts = Sequence[tuple[str, str]]
Clip = tuple[np.ndarray, int]


@dataclass(frozen=True)
class Judged:
    """What the judges say of a clip. The speaker embedding `voice` [256] is None where no voice was found."""

    heard: str
    naturalness: float
    overall: float
    p808: float
    voice: np.ndarray | None


NOTHING = Judged("", 1.0, 1.0, 1.0, None)  # what a text that could not be said counts as: the worst


@dataclass(frozen=True)
class System:
    """A row of the table: the judgements of each text, in the order of the texts."""

    name: str
    judged: list[Judged]
    failed: int
    audio_s: float
    made_in_s: float | None


def quality(
    voice: str | None,
    texts: Texts,
    n: int,
    ablation_n: int,
    teacher: str | Path | None,
    workers: int | None,
    speaker: str | None = None,
) -> dict[str, Any]:
    """Judge the teacher, the voice with its own settings, and over fewer texts an ablation that tells where quality is lost.

    The ablation is the voice with each of `STEPS`, and the teacher's mels through the voice's vocoder (the bound for any
    acoustic model) and through Griffin-Lim (a vocoder without training).

    Args:
        teacher: VOICE[@SPEAKER], or the folder of its recordings ID.wav; None is `DEFAULT_TEACHER`, where it is installed.
        speaker: of the voice; by default its first.

    Returns:
        `systems` and `ablation` (rows with intervals), and `difference` of the voice from the teacher, in pairs.
    """
    chosen = list(texts)[-n:]
    synthesizer = FlowSynthesizer.load(voice)
    read = _teacher(chosen, teacher)
    judged = None if read is None else _judge_all(read[0], read[1], workers)
    ours = _voice("voice", synthesizer, chosen, None, workers, speaker)
    systems = [ours] if judged is None else [judged, ours]
    few = chosen[:ablation_n]
    ablation = [_voice(f"{steps} steps", synthesizer, few, steps, workers, speaker) for steps in STEPS] if few else []
    if few and read is not None:
        ours_vocoder = synthesizer.voice.vocoder
        for name, vocoder in (
            ("teacher's mels, this vocoder", ours_vocoder),
            ("teacher's mels, Griffin-Lim", GriffinLim(GriffinLimConfig(ours_vocoder.features))),
        ):
            ablation.append(_judge_all(name, _resynthesized(vocoder, read[1][:ablation_n]), workers))
    of_teacher = judged.judged if judged else None
    return {
        "n": len(chosen),
        "voice": voice or "bundled",
        "fingerprint": synthesizer.fingerprint,
        "systems": [_row(system, chosen, of_teacher) for system in systems],
        "ablation": [_row(system, few, of_teacher) for system in ablation],
        "difference": None if judged is None else _difference(ours, judged, chosen),
    }


def require_judge() -> None:
    """Raise DependencyError where the judge of naturalness is not installed."""
    from flowtts_core.metrics import naturalness as judge_of_naturalness

    judge_of_naturalness.load()


def naturalness_by_steps(voices: Mapping[str, str], texts: Sequence[str], steps: Sequence[int]) -> list[dict[str, Any]]:
    """Judge flow voices, the first speaker of each, on the same texts with so many steps of the solver each."""
    rows = []
    for name, voice in voices.items():
        synthesizer = FlowSynthesizer.load(voice)
        for count in steps:
            print(f"judging {name}, {count} steps: {len(texts)} clips", file=sys.stderr, flush=True)
            clips = _clips(synthesizer, [("", text) for text in texts], count)
            judged = [1.0 if clip is None else naturalness(*clip) for clip in clips]
            found = bootstrap.mean(judged).to_json()
            rows.append({"voice": name, "steps": count, "n": len(judged), "naturalness": found})
    return rows


def judge(waveform: np.ndarray, sample_rate: int) -> Judged:
    """Ask every judge about a clip [S]."""
    scores = mos.dnsmos(waveform, sample_rate)
    try:
        voice = similarity.embed(waveform, sample_rate)
    except AudioError:
        voice = None
    heard = wer.transcribe(waveform, sample_rate)
    return Judged(heard, naturalness(waveform, sample_rate), scores.overall, scores.p808, voice)


def _teacher(texts: Texts, teacher: str | Path | None) -> tuple[str, list[Clip]] | None:
    """Return the teacher's name and its readings; None where none was asked for and the default one is not installed."""
    if isinstance(teacher, Path):
        return f"teacher ({teacher})", [read_audio(teacher / f"{key}.wav") for key, _ in texts]
    name, speaker = split_speaker(teacher or DEFAULT_TEACHER)
    try:
        voice = open_voice(name)
    except DependencyError as error:
        if teacher is not None:
            raise
        print(f"no teacher: {error.message} ({error.remedy}), and no --teacher given", file=sys.stderr)
        return None
    read = [say_one(voice, text, speaker=speaker) for _, text in texts]
    return f"teacher ({teacher or DEFAULT_TEACHER})", [(speech.waveform, speech.sample_rate) for speech in read]


@torch.inference_mode()
def _resynthesized(vocoder: Vocoder, clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips turned into mels and back into sound by the vocoder."""
    mel = vocoder.features
    log_mel = LogMel(mel)
    waveforms = [torch.from_numpy(resample(waveform, rate, mel.sample_rate))[None].float() for waveform, rate in clips]
    return [(vocoder(log_mel(waveform))[0].numpy().clip(-1.0, 1.0), mel.sample_rate) for waveform in waveforms]


def _voice(
    name: str,
    synthesizer: FlowSynthesizer,
    texts: Texts,
    steps: int | None,
    workers: int | None,
    speaker: str | None = None,
) -> System:
    """Speak the texts with seeds 0, 1, 2, ... and judge them."""
    started = time.perf_counter()
    clips = list(_clips(synthesizer, texts, steps, speaker))
    return _judge_all(name, clips, workers, time.perf_counter() - started)


def _clips(
    synthesizer: FlowSynthesizer, texts: Texts, steps: int | None, speaker: str | None = None
) -> Iterator[Clip | None]:
    requests = [
        SynthesisRequest(text=text, seed=number, steps=steps, speaker=speaker) for number, (_, text) in enumerate(texts)
    ]
    for first in range(0, len(requests), AT_ONCE):
        for result in synthesizer.synthesize(requests[first : first + AT_ONCE]):
            yield (result.waveform, result.sample_rate) if isinstance(result, Speech) else None


def _judge_all(name: str, clips: Sequence[Clip | None], workers: int | None, made_in_s: float | None = None) -> System:
    print(f"judging {name}: {len(clips)} clips", file=sys.stderr, flush=True)
    scored = iter(parallel_starmap(judge, [clip for clip in clips if clip is not None], workers))
    judged = [NOTHING if clip is None else next(scored) for clip in clips]
    audio = sum(len(clip[0]) / clip[1] for clip in clips if clip is not None)
    return System(name, judged, sum(clip is None for clip in clips), audio, made_in_s)


def _errors(system: System, texts: Texts) -> wer.WordErrors:
    return wer.word_errors([text for _, text in texts], [one.heard for one in system.judged])


def _row(system: System, texts: Texts, teacher: Sequence[Judged] | None) -> dict[str, Any]:
    alike = None
    if teacher is not None:
        pairs = zip(system.judged, teacher, strict=False)  # the ablation takes the first texts only
        alike = bootstrap.mean([_alike(ours.voice, theirs.voice) for ours, theirs in pairs]).to_json()
    return {
        "system": system.name,
        "n": len(texts),
        "failed": system.failed,
        "wer": _errors(system, texts).rate().to_json(),
        **{name: bootstrap.mean([getattr(one, name) for one in system.judged]).to_json() for name in OPINIONS},
        "similarity": alike,
        "rtf": None if system.made_in_s is None else system.made_in_s / max(system.audio_s, 1e-9),
    }


def _alike(ours: np.ndarray | None, theirs: np.ndarray | None) -> float:
    return 0.0 if ours is None or theirs is None else similarity.cosine(ours, theirs)


def _difference(ours: System, teacher: System, texts: Texts) -> dict[str, Any]:
    pairs = list(zip(ours.judged, teacher.judged, strict=True))
    return {
        "wer": _errors(ours, texts).difference(_errors(teacher, texts)).to_json(),
        **{
            name: bootstrap.mean([getattr(a, name) - getattr(b, name) for a, b in pairs]).to_json() for name in OPINIONS
        },
    }
