"""Voices taught by other voices: from texts alone to a measured voice, in stages that a cut run does not repeat."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import fingerprint, to_dict
from flowtts_core.engines.int8 import quantize
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.text.frontends import language_read
from flowtts_core.training.features import whole_frontend
from flowtts_core.voice import load_card, split_speaker
from flowtts_core.voice.card import CARD, VoiceCard
from jobs.bar import bar
from jobs.corpus.teach import TextLimits, require_speaker, teaching_plan
from jobs.synthesis.settings import Speaking
from jobs.training.recipes import recipe
from jobs.training.run import TrainingRun, open_run, read_progress, trained_module, write_result

SAMPLES = 12  # texts that show how large activations become
TSV_HEADER = "id\ttext\n"
NATURAL_MEL = MelConfig(24_000, 300, n_fft=1200, win_length=1200, n_mels=100, f_max=12_000.0, pitch=True)


@dataclass(frozen=True)
class TaughtRecipe:
    """The whole way to a voice.

    Attributes:
        name: of the recipe, on the command line.
        teachers: who read the texts: VOICE[@SPEAKER] each. Several make a voice with as many speakers.
        others_read: so many of the texts are read by each teacher but the first, which reads all.
        held_out: texts kept out of training to measure on (at most a tenth of all).
        min_chars, max_chars: texts outside are not read.
        mel, frontend: features that the models are trained on, by the fields in which they differ from the defaults.
        acoustic, vocoder: names of the recipes of both models, trained at the same time.
        distillation: name of the recipe by which the voice learns to take `steps` steps; none where it is empty.
        tuning: name of the recipe by which the vocoder is tuned to the acoustic model; none where it is empty.
        steps: that the voice takes.
        int8: whether its graphs compute products in int8.
        judged: held-out texts that are judged for each speaker; 0 leaves the voice unmeasured.
    """

    name: str = "natural"
    teachers: tuple[str, ...] = ("heart",)
    others_read: int = 1500
    held_out: int = 200
    min_chars: int = 4
    max_chars: int = 250
    limit: int | None = None
    seed: int = 0
    mel: MelConfig = field(default_factory=MelConfig)
    frontend: dict[str, Any] = field(default_factory=lambda: {"name": "phonemes"})
    acoustic: str = "natural_acoustic"
    vocoder: str = "natural_vocoder"
    distillation: str = ""
    tuning: str = ""
    steps: int = 4
    int8: bool = False
    judged: int = 200
    ablation_judged: int = 30


def natural() -> TaughtRecipe:
    """Return the recipe of voices that sound human: 24 kHz, the phonemes of Kokoro's family, one step of the flow.

    Some 15 hours on two cores, most of them the acoustic model's.
    """
    return TaughtRecipe(mel=NATURAL_MEL, frontend=_misaki(), tuning="tuning", steps=1, int8=True)


def natural_debug() -> TaughtRecipe:
    """Return the stages of `natural`, and a distillation, in minutes: few texts, tiny models, nothing judged."""
    return replace(
        natural(),
        name="natural_debug",
        held_out=4,
        limit=24,
        others_read=12,
        judged=0,
        acoustic="matcha_debug",
        vocoder="source_filter_debug",
        distillation="distillation_debug",
        tuning="tuning_debug",
    )


def bundled() -> TaughtRecipe:
    """Return a recipe of two hours: taught by flite, 22.05 kHz, gruut's phonemes, on two cores."""
    return TaughtRecipe("bundled", ("flite:rms",), acoustic="bundled_acoustic", vocoder="bundled_vocoder")


def bundled_debug() -> TaughtRecipe:
    """Return the stages of `bundled` in minutes."""
    tiny = replace(bundled(), name="bundled_debug", acoustic="matcha_debug", vocoder="vocos_debug")
    return replace(tiny, held_out=4, limit=24, judged=0)


def _misaki() -> dict[str, Any]:
    from flowtts_core.engines.kokoro import read_vocab

    return {"name": "phonemes", "phonemizer": "misaki", "alphabet": "misaki", "table": read_vocab(None)}


RECIPES = {"natural": natural, "natural_debug": natural_debug, "bundled": bundled, "bundled_debug": bundled_debug}


@dataclass(frozen=True)
class Made:
    """What a run of the recipe did; seconds of each stage (0 where an earlier run had done it)."""

    voice: str
    clips: int
    seconds: dict[str, float]
    scores: dict[str, Any]


def make_taught(texts: Path, output: Path, config: TaughtRecipe, workers: int | None = None) -> Made:
    """Make a voice of texts: the teachers' readings, examples, acoustic model and vocoder, voice, scores in its card.

    Everything between lies in `OUTPUT-training/`; the same command goes on where a cut run stopped.

    Raises:
        VoiceError: for a teacher that does not open.
        ConfigError: when the working folder was made from other texts or settings.
        FlowTTSError: when a stage fails; names its log.
    """
    work = output.absolute().with_name(f"{output.absolute().name}-training")
    speakers = speakers_of(config.teachers)
    for teacher in config.teachers:
        _require_english(teacher)
    train_texts, held_out = split_texts(read_texts(texts, config), config)
    with Storage(str(work)).lock():
        return _make(work, output, config, speakers, train_texts, held_out, workers)


def _make(
    work: Path,
    output: Path,
    config: TaughtRecipe,
    speakers: dict[str, str],
    train_texts: list[tuple[str, str]],
    held_out: list[tuple[str, str]],
    workers: int | None,
) -> Made:
    storage, seconds = Storage(str(work)), dict[str, float]()
    made_by = {key: value for key, value in to_dict(config).items() if key not in ("judged", "ablation_judged")}
    _require_same(storage, {"recipe": made_by, "texts": fingerprint([train_texts, held_out])})
    pairs = "".join(f"{key}\t{text}\n" for key, text in held_out)
    storage.write("held_out.tsv", f"{TSV_HEADER}{pairs}".encode())
    clips = 0
    with _timed(seconds, "corpus"):
        for number, (name, teacher) in enumerate(speakers.items()):
            own = train_texts[: config.others_read] if number else train_texts
            clips += read_aloud(own, work / "corpus" / name, teacher, workers)
        _join(work, list(speakers))
    with _timed(seconds, "prepare"):
        _prepare(work, config, workers)
    with _timed(seconds, "train"):
        _train(work, config, ["acoustic", "vocoder"])
    for stage in [part for part in ("distilled", "tuned") if _recipe_of(part, config)]:
        with _timed(seconds, stage):
            if not (_before(work, stage) / CARD).exists():  # the card is written last
                _pack(work, _before(work, stage), config, stage, clips)
            _train(work, config, [stage])
    with _timed(seconds, "pack"):
        _pack(work, output, config, "", clips)
        if config.int8:
            quantize(output, [text for _, text in train_texts[:SAMPLES]])
    with _timed(seconds, "measure"):
        scores = measure(output, work / "held_out.tsv", config, workers) if config.judged else {}
    return Made(str(output), clips, {k: round(v, 1) for k, v in seconds.items()}, scores)


def speakers_of(teachers: Sequence[str]) -> dict[str, str]:
    """Return the names of the speakers, in the order of the model's, and the teacher of each.

    A speaker has the name that the teacher has: that of its speaker or voice, without the letters that Kokoro puts before it.

    Raises:
        ConfigError: where two would have one name.
    """
    found: dict[str, str] = {}
    for teacher in teachers:
        voice, speaker = split_speaker(teacher)
        name = re.sub(r"^[a-z]{2}_|[^A-Za-z0-9_-]", "", speaker or Path((voice or "").rpartition(":")[2]).name)
        if not name or name in found:
            raise ConfigError(f"teachers {', '.join(teachers)}: speakers need names of their own", "leave one out")
        found[name] = teacher
    return dict(sorted(found.items()))


def _join(work: Path, speakers: Sequence[str]) -> None:
    """List the clips of all teachers in one corpus, `clips.jsonl`."""
    with (work / "clips.jsonl").open("w", encoding="utf-8") as file:
        for name in speakers:
            for line in (work / "corpus" / name / "metadata.csv").read_text(encoding="utf-8").splitlines():
                key, text = line.split("|")[:2]
                row = {"id": f"{name}-{key}", "audio": f"corpus/{name}/audio/{key}.flac", "text": text, "speaker": name}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def teacher_card(teacher: str) -> VoiceCard:
    """Return the card of the voice of `VOICE[@SPEAKER]`."""
    return load_card(split_speaker(teacher)[0])


def _speaking(teacher: str) -> Speaking:
    speaker = split_speaker(teacher)[1]
    return Speaking({"speaker": speaker} if speaker else {}, whole=True)


def _require_english(teacher: str) -> None:
    """Raise FlowTTSError for a teacher that does not open, lacks the speaker, or reads another language than the recipe does."""
    voice, speaker = split_speaker(teacher)
    require_speaker(voice, speaker)
    language = language_read(load_card(voice).parts.get("frontend", {}), speaker, None)
    if not language.startswith("en"):
        raise ConfigError(f"--teacher {teacher} reads {language or 'no language'}", "the recipe's models read English")


def read_texts(path: Path, config: TaughtRecipe) -> list[tuple[str, str]]:
    """Return (id, text) of a book's or text's sentences, or of a table's rows; those left out are told on standard error.

    English texts are written out in words, so that teacher and pupil read numbers and abbreviations alike.
    """
    from jobs.synthesis.input import ReadingOptions, read_plan

    first = config.teachers[0]
    speaking, limits = _speaking(first), TextLimits(config.min_chars, config.max_chars)
    plan = read_plan([str(path)], ReadingOptions(sentences=True), speaking)
    units = teaching_plan(plan, *split_speaker(first), speaking, limits).units
    for reason, count in Counter(unit.error for unit in units if unit.error).items():
        print(f"{path.name}: {count} texts left out: {reason}", file=sys.stderr)
    return [(unit.id, unit.text) for unit in units if not unit.error]


def read_aloud(texts: Sequence[tuple[str, str]], output: Path, teacher: str, workers: int | None) -> int:
    """Let the teacher read (id, text) pairs into a corpus; a cut run goes on. Returns the number of clips.

    Raises:
        TextError: when the teacher could read none of the texts.
    """
    from flowtts_core.text.document import TextRow
    from jobs.synthesis.job import Options
    from jobs.synthesis.pipeline import Running
    from jobs.synthesis.plan import plan_corpus
    from jobs.synthesize import speak_plan

    voice, speaking = split_speaker(teacher)[0], _speaking(teacher)
    plan = plan_corpus([TextRow(key, text) for key, text in texts], speaking, "texts")
    options = Options(running=Running(most=workers), progress=True)
    summary = speak_plan(plan, str(output), voice, speaking, options)
    if not summary.ok:
        raise TextError(f"{teacher} could read none of {len(texts)} texts", "; ".join(summary.reasons))
    return summary.ok


def split_texts(
    texts: Sequence[tuple[str, str]], config: TaughtRecipe
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (training, held out) texts, shuffled by the recipe's seed; the held-out ones are the last."""
    usable = list(texts)
    random.Random(config.seed).shuffle(usable)
    usable = usable[: config.limit]
    held_out = min(config.held_out, len(usable) // 10)
    if held_out < 2:
        raise TextError(
            f"{len(usable)} texts of {config.min_chars} to {config.max_chars} characters", "give at least 20"
        )
    return usable[:-held_out], usable[-held_out:]


def _prepare(work: Path, config: TaughtRecipe, workers: int | None) -> None:
    from flowtts_core.training.prepare import AS_RECORDED, ClipLimits, PrepareConfig
    from jobs.prepare import prepare

    if not (work / "data" / "dataset.json").exists():
        # what teachers read of chosen texts is clean, at their own level, and in English
        how = PrepareConfig(
            config.mel,
            whole_frontend(config.frontend),
            limits=ClipLimits(language="any"),
            resample=True,
            cleaning=AS_RECORDED,
        )
        prepare(work / "clips.jsonl", work / "data", how, workers=workers, licence=_licence(config))


def _licence(config: TaughtRecipe) -> str:
    """The licences of the teachers, each once."""
    return ", ".join(dict.fromkeys(teacher_card(teacher).licence or "not stated" for teacher in config.teachers))


def _train(work: Path, config: TaughtRecipe, parts: Sequence[str]) -> None:
    """Train some of "acoustic", "vocoder", "distilled", "tuned" at the same time, in one process with one thread each.

    Where this process is killed, they train on to their end. A next start of the recipe is refused meanwhile, by the locks
    of their folders.
    """
    runs = {name: _open(work, name, config) for name in parts}
    children = {}
    for name, run in runs.items():
        if not run.ended or not any((work / name).glob("*.safetensors")):
            command = [sys.executable, "-m", "jobs.cli", "train", str(work / "data"), "-o", str(work / name)]
            command += ["--recipe", _recipe_of(name, config), "--workers", "1", "--json"]
            command += [
                word for key, value in _settings(work, name, config).items() for word in ("--set", f"{key}={value}")
            ]
            with (work / f"{name}.log").open("ab") as log:
                children[name] = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _watch(runs, children)
        failed = [name for name, child in children.items() if child.poll()]  # before we end the other
    finally:
        for child in children.values():
            child.terminate()
            child.wait()
    for name in failed:
        tail = (work / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise FlowTTSError(f"training the {name} failed:\n{tail}", f"{work / name}.log has it all; run again to go on")


def _recipe_of(part: str, config: TaughtRecipe) -> str:
    names = {"acoustic": config.acoustic, "vocoder": config.vocoder}
    return {**names, "distilled": config.distillation, "tuned": config.tuning}[part]


def _before(work: Path, stage: str) -> Path:
    """The voice that a later stage begins with."""
    return work / f"voice-to-be-{stage}"


def _settings(work: Path, part: str, config: TaughtRecipe) -> dict[str, Any]:
    if part == "distilled":
        voice = str(_before(work, part))
        return {"teacher": voice, "vocoder": voice, "how.steps": config.steps}
    return {"voice": str(_before(work, part))} if part == "tuned" else {}


def _open(work: Path, part: str, config: TaughtRecipe, **settings: Any) -> TrainingRun:
    """Open the run of a part: "acoustic", "vocoder", "distilled" (another acoustic model) or "tuned" (another vocoder)."""
    settings = {**_settings(work, part, config), **settings}
    return open_run(work / f"{part}-training", work / "data", recipe(_recipe_of(part, config), settings))


def _watch(runs: dict[str, Any], children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Show a bar for each until all have ended, or one has failed."""
    with bar() as shown:
        tasks = {
            name: shown.add_task(name, total=runs[name].steps, completed=runs[name].last_step) for name in children
        }
        while None in (codes := [child.poll() for child in children.values()]) and not any(codes):
            time.sleep(1.0)
            for name, task in tasks.items():
                shown.update(task, completed=int(read_progress(runs[name]).get("step", 0)))


def _pack(work: Path, output: Path, config: TaughtRecipe, stage: str, clips: int) -> None:
    """Write the averaged weights as one voice, at half precision: those that `stage` begins with, or of all stages."""
    from flowtts_core.sampling import Sampling
    from flowtts_core.training.pace import relative_length

    acoustic = "distilled" if config.distillation and stage != "distilled" else "acoustic"
    vocoder = "tuned" if config.tuning and not stage else "vocoder"
    run = _open(work, acoustic, config, vocoder=str(work / vocoder))
    model: Any = trained_module(run)
    speed = min(4.0, max(0.25, relative_length(model, run.recipe.examples(work / "data", ["tokens"]))))
    cards = {teacher: teacher_card(teacher) for teacher in config.teachers}
    read = "; ".join(
        f"{teacher}: {card.source or 'source not stated'}, licence {card.licence or 'not stated'}"
        for teacher, card in cards.items()
    )
    write_result(
        run,
        output,
        half=True,
        sampling=Sampling(steps=config.steps, speed=round(speed, 3)),
        licence=_licence(config),
        description=f"taught by {', '.join(config.teachers)}",
        source=f"{clips} clips read by {read}",
    )


def measure(voice: Path, held_out: Path, config: TaughtRecipe, workers: int | None = None) -> dict[str, Any]:
    """Judge each speaker against its teacher on the held-out texts, and write the figures into the voice's card."""
    from flowtts_core.voice.card import write_card
    from jobs.benchmarks.quality import quality
    from jobs.benchmarks.speed import read_texts as read_pairs
    from jobs.benchmarks.speed import speed

    pairs = read_pairs(held_out)
    speakers = speakers_of(config.teachers)
    several = len(speakers) > 1
    each = {
        name: quality(
            str(voice), pairs, config.judged, 0 if number else config.ablation_judged, teacher, workers,
            speaker=name if several else None,
        )
        for number, (name, teacher) in enumerate(speakers.items())
    }  # fmt: skip
    figures = each.pop(next(iter(speakers)))
    if each:
        figures["speakers"] = {
            name: {"systems": own["systems"], "difference": own["difference"]} for name, own in each.items()
        }
    figures |= {"speed": speed(str(voice), [text for _, text in pairs])}
    taught = " ".join(f"--teacher {teacher}" for teacher in config.teachers)
    scores = {"command": f"flowtts train --recipe {config.name} {taught}", **figures}
    write_card(voice, replace(load_card(voice), scores=scores))
    return scores


def _require_same(work: Storage, identity: dict[str, Any]) -> None:
    identity, name = json.loads(json.dumps(identity)), "recipe.json"
    if work.exists(name) and json.loads(work.read(name)) != identity:
        remedy = "give another -o, or remove that folder"
        raise ConfigError(f"{work.root}: was begun with other texts or another recipe", remedy)
    work.write(name, f"{json.dumps(identity)}\n".encode())


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    print(f"{stage} ...", file=sys.stderr, flush=True)
    yield
    seconds[stage] = time.perf_counter() - began
