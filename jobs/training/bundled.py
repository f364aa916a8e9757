"""The recipe of the bundled voice: from texts alone to a measured voice, in stages that a cut run does not repeat."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.text.frontends import language_read
from flowtts_core.voice import load_card, split_speaker
from flowtts_core.voice.card import VoiceCard
from jobs.corpus.teach import TextLimits, require_speaker, teaching_plan
from jobs.synthesis.settings import Speaking
from jobs.training.bar import bar
from jobs.training.recipes import recipe
from jobs.training.run import TrainingRun, open_run, read_progress, trained_module, write_result

TSV_HEADER = "id\ttext\n"


@dataclass(frozen=True)
class BundledRecipe:
    """The whole way to a voice.

    Attributes:
        teacher: who reads the texts: VOICE[@SPEAKER].
        held_out: texts kept out of training to measure on (at most a tenth of all).
        min_chars, max_chars: texts outside are not read.
        acoustic, vocoder: names of the recipes of both models, trained at the same time.
        judged: held-out texts that are judged; 0 leaves the voice unmeasured.
    """

    teacher: str = "flite:rms"
    held_out: int = 200
    min_chars: int = 4
    max_chars: int = 250
    limit: int | None = None
    seed: int = 0
    acoustic: str = "bundled_acoustic"
    vocoder: str = "bundled_vocoder"
    judged: int = 200
    ablation_judged: int = 30


def bundled_debug() -> BundledRecipe:
    """Return the same stages in a minute: few texts, tiny models, nothing judged."""
    return BundledRecipe(held_out=4, limit=24, acoustic="matcha_debug", vocoder="vocos_debug", judged=0)


RECIPES = {"bundled": BundledRecipe, "bundled_debug": bundled_debug}


@dataclass(frozen=True)
class Made:
    """What a run of the recipe did; seconds of each stage (0 where an earlier run had done it)."""

    voice: str
    clips: int
    seconds: dict[str, float]
    scores: dict[str, Any]


def make_bundled(texts: Path, output: Path, config: BundledRecipe, workers: int | None = None) -> Made:
    """Make a voice of texts: the teacher's readings, examples, acoustic model and vocoder, voice, scores in its card.

    Everything between lies in `OUTPUT-training/`; the same command goes on where a cut run stopped.

    Raises:
        VoiceError: for a teacher that does not open.
        ConfigError: when the working folder was made from other texts or settings.
        FlowTTSError: when a stage fails; names its log.
    """
    work = output.absolute().with_name(f"{output.absolute().name}-training")
    _require_english(config.teacher)
    train_texts, held_out = split_texts(read_texts(texts, config), config)
    with Storage(str(work)).lock():
        return _make(work, output, config, train_texts, held_out, workers)


def _make(
    work: Path,
    output: Path,
    config: BundledRecipe,
    train_texts: list[tuple[str, str]],
    held_out: list[tuple[str, str]],
    workers: int | None,
) -> Made:
    storage, seconds = Storage(str(work)), dict[str, float]()
    made_by = {key: value for key, value in asdict(config).items() if key not in ("judged", "ablation_judged")}
    _require_same(storage, {"recipe": made_by, "texts": fingerprint([train_texts, held_out])})
    pairs = "".join(f"{key}\t{text}\n" for key, text in held_out)
    storage.write("held_out.tsv", f"{TSV_HEADER}{pairs}".encode())
    with _timed(seconds, "corpus"):
        clips = read_aloud(train_texts, work / "corpus", config.teacher, workers)
    with _timed(seconds, "prepare"):
        _prepare(work, workers, teacher_card(config.teacher).licence)
    with _timed(seconds, "train"):
        _train_both(work, config)
    with _timed(seconds, "pack"):
        _pack(work, output, config, clips)
    with _timed(seconds, "measure"):
        scores = measure(output, work / "held_out.tsv", config, workers) if config.judged else {}
    return Made(str(output), clips, {k: round(v, 1) for k, v in seconds.items()}, scores)


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


def read_texts(path: Path, config: BundledRecipe) -> list[tuple[str, str]]:
    """Return (id, text) of a book's or text's sentences, or of a table's rows; those left out are told on standard error.

    English texts are written out in words, so that teacher and pupil read numbers and abbreviations alike.
    """
    from jobs.synthesis.input import ReadingOptions, read_plan

    speaking, limits = _speaking(config.teacher), TextLimits(config.min_chars, config.max_chars)
    plan = read_plan([str(path)], ReadingOptions(sentences=True), speaking)
    units = teaching_plan(plan, *split_speaker(config.teacher), speaking, limits).units
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
    options = Options(running=Running(most=workers), progress=sys.stderr.isatty())
    summary = speak_plan(plan, str(output), voice, speaking, options)
    if not summary.ok:
        raise TextError(f"{teacher} could read none of {len(texts)} texts", "; ".join(summary.reasons))
    return summary.ok


def split_texts(
    texts: Sequence[tuple[str, str]], config: BundledRecipe
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


def _prepare(work: Path, workers: int | None, licence: str) -> None:
    from flowtts_core.training.prepare import PrepareConfig
    from jobs.prepare import prepare

    if not (work / "data" / "dataset.json").exists():
        prepare(work / "corpus", work / "data", PrepareConfig(resample=True), workers=workers, licence=licence)


def _train_both(work: Path, config: BundledRecipe) -> None:
    """Train both models at the same time, in one process with one thread each.

    Where this process is killed, they train on to their end. A next start of the recipe is refused meanwhile, by the locks
    of their folders.
    """
    runs = {name: _open(work, name, config) for name in ("acoustic", "vocoder")}
    children = {}
    for name, run in runs.items():
        if run.last_step < run.steps or not any((work / name).glob("*.safetensors")):
            command = [sys.executable, "-m", "jobs.cli", "train", str(work / "data"), "-o", str(work / name)]
            command += ["--recipe", getattr(config, name), "--workers", "1", "--json"]
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


def _open(work: Path, part: str, config: BundledRecipe, **settings: Any) -> TrainingRun:
    """Open the run of the "acoustic" model or the "vocoder"."""
    return open_run(work / f"{part}-training", work / "data", recipe(getattr(config, part), settings))


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


def _pack(work: Path, output: Path, config: BundledRecipe, clips: int) -> None:
    """Write the averaged weights of both runs as one voice, at half precision."""
    from flowtts_core.sampling import Sampling
    from flowtts_core.training.pace import relative_length

    run = _open(work, "acoustic", config, vocoder=str(work / "vocoder"))
    model: Any = trained_module(run)
    speed = min(4.0, max(0.25, relative_length(model, run.recipe.examples(work / "data", ["tokens"]))))
    teacher = teacher_card(config.teacher)
    write_result(
        run,
        output,
        half=True,
        sampling=Sampling(speed=round(speed, 3)),
        licence=teacher.licence,
        description=f"taught by {config.teacher}",
        source=f"{clips} texts read by {config.teacher} ({teacher.source or 'source not stated'}; its licence: "
        f"{teacher.licence or 'not stated'})",
    )


def measure(voice: Path, held_out: Path, config: BundledRecipe, workers: int | None = None) -> dict[str, Any]:
    """Judge the voice against its teacher on the held-out texts, and write the figures into its card."""
    from flowtts_core.voice.card import write_card
    from jobs.benchmarks.quality import quality
    from jobs.benchmarks.speed import read_texts as read_pairs
    from jobs.benchmarks.speed import speed

    pairs = read_pairs(held_out)
    figures = quality(str(voice), pairs, config.judged, config.ablation_judged, config.teacher, workers)
    figures |= {"speed": speed(str(voice), [text for _, text in pairs])}
    scores = {"command": f"flowtts train --recipe bundled --teacher {config.teacher}", **figures}
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
