"""`flowtts prepare`: a corpus of clips and texts to audio and features for training, on all cores or a cluster."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.storage import Storage, is_remote
from flowtts_core.audio.mel import MELS, MelConfig
from flowtts_core.config import fingerprint, from_dict, override
from flowtts_core.errors import ConfigError, OutputError, TextError
from flowtts_core.text import frontends
from flowtts_core.text.languages import INSTALL, detector_is_there
from flowtts_core.training.corpus_checks import ClipMeasures, kind_of, unlike_the_rest
from flowtts_core.training.example_files import AUDIO, INDEX, NOTE, Index, file_name
from flowtts_core.training.examples import META, DatasetMeta
from flowtts_core.training.features import (
    FEATURES,
    MAKERS,
    FeatureSet,
    changed_frontend,
    crowded,
    whole_frontend,
)
from flowtts_core.training.prepare import PrepareConfig
from jobs.corpus.clips import LAYOUTS, SourceClip, read_corpus
from jobs.corpus.columns import ROLES, Reading
from jobs.corpus.outlier_page import OUTLIERS, ClipPlace, outlier_page, texts_of
from jobs.corpus.prepare_worker import Note, ShardPreparer, feature_print, sets_of
from jobs.request_options import add_lexicon_option, read_lexicon

QUARANTINE = "quarantine.jsonl"
SOME_SET_ASIDE = 3  # exit code
_NAME = re.compile(r"clips-\d{5}\.parquet")


@dataclass(frozen=True)
class Prepared:
    """What became of a corpus.

    Attributes:
        mel_mean, mel_std: over all values of all log-mels.
        reasons: how many clips were set aside for what.
        languages: how texts in other languages were looked for, as `limits.language` says.
    """

    clips: int
    set_aside: int
    hours: float
    mel_mean: float
    mel_std: float
    files: int
    speakers: int
    wall_s: float
    reasons: dict[str, int]
    languages: str


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="make a corpus ready for training",
        description="Keep the audio and text of a corpus in Parquet, and the features that training reads (mels, tokens)"
        " beside them. Silence at the ends and a constant offset are removed, and each clip is brought to one loudness"
        " (--set cleaning.lufs=-23). Clips that cannot be trained on, or would spoil a voice, are listed with their reason in"
        " quarantine.jsonl: among them texts that are too long or too short for their clip, one recording under several texts,"
        " and texts that are not in the front end's language. Hear them, and the most extreme of those that were kept, in"
        f" {OUTLIERS}. Run it again after an interruption: it goes on. Run it on the prepared folder itself to add features of"
        " another configuration.",
        epilog="exit codes: 0 all clips prepared, 3 some were set aside, 1 failed, 2 wrong usage, 130 interrupted,\n"
        "143 terminated\n\nexamples:\n"
        "  flowtts prepare LJSpeech-1.1/ -o data/\n"
        "  flowtts prepare clips.jsonl -o data/ --resample --max-seconds 12\n"
        "  flowtts prepare LJSpeech-1.1/ -o data/ --no-trim --no-loudness --set limits.rate_spread=0\n"
        "  flowtts prepare LJSpeech-1.1/ -o s3://bucket/data     # keys and endpoint from the AWS_ variables\n"
        "  flowtts prepare corpus.parquet -o data/ --set mel.sample_rate=24000 --set frontend.add_blank=false\n"
        "  flowtts prepare clips.jsonl -o data/ --like natural --resample   # to fine-tune that voice\n"
        "  flowtts prepare kerstin/ -o data/ --resample --language de   # German: pip install 'flowtts[german]'\n"
        "  flowtts prepare data/ -o data/ --set mel.n_mels=100   # another mel beside the first\n"
        "  flowtts prepare data/ -o data/ --whisper models/whisper-base                          # to train a tokeniser\n"
        "  flowtts prepare data/ -o data/ --whisper models/whisper-base --speech-tokens tokens/  # to train on its tokens\n"
        "  flowtts prepare filelist.txt -o data/ --columns audio,text,speaker   # where the rows leave it open\n\n"
        "layouts, which are recognised, or forced by --layout:\n"
        + "\n".join(f"  {name:<12} {layout.says}" for name, layout in LAYOUTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input",
        help="a corpus: a folder or a list in one of the layouts below, or a prepared folder. How it is read is printed first",
    )
    parser.add_argument("--layout", default="", choices=list(LAYOUTS), metavar="NAME", help="how the corpus is kept")
    parser.add_argument(
        "--columns",
        default="",
        metavar="A,B,...",
        help=f"what each column of a list without names holds: {', '.join(ROLES)} (not used)",
    )
    for role in ("text", "audio", "speaker"):
        parser.add_argument(f"--{role}-column", default="", metavar="NAME", help=f"the column that holds the {role}")
    parser.add_argument(
        "-o", "--output", required=True, help="folder or s3:// place to make; the workers must see it too"
    )
    parser.add_argument("--workers", type=int, help="processes (default: the cores of this machine)")
    parser.add_argument("--address", help="a Ray cluster, for example http://head:8265 (default: this machine)")
    parser.add_argument("--resample", action="store_true", help="convert other sample rates")
    parser.add_argument(
        "--mel",
        choices=sorted(MELS),
        help="the mel that published vocoders read, instead of the default one (hifigan: 22.05 kHz, 80 bands)",
    )
    parser.add_argument(
        "--like", metavar="VOICE", help="make the features of a voice, to fine-tune it: `flowtts train --from VOICE`"
    )
    parser.add_argument(
        "--whisper",
        default="",
        metavar="FOLDER",
        help="also keep features of this Whisper's encoder (of CTranslate2), for `flowtts train --recipe cosy_tokens`",
    )
    parser.add_argument(
        "--speech-tokens",
        default="",
        metavar="FOLDER",
        help="with --whisper: keep the speech tokens of this tokeniser instead, for `flowtts train --recipe cosy`",
    )
    parser.add_argument("--max-seconds", type=float, help="set longer clips aside (default: 20)")
    parser.add_argument(
        "--language",
        help="of the texts, as the phonemizer names it: en-us (default) and de are gruut's; the same as --set"
        " frontend.language=... It becomes the language of the voice",
    )
    parser.add_argument("--no-trim", action="store_true", help="keep the silence at the ends of clips")
    parser.add_argument("--no-loudness", action="store_true", help="keep each clip's own loudness")
    add_lexicon_option(parser)
    parser.add_argument("--licence", default="", help="licence of the corpus, noted in dataset.json")
    parser.add_argument("--clips-per-file", type=int, default=128, help="bound of each Parquet file (default: 128)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="mel.X, frontend.X, limits.X or cleaning.X",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was prepared otherwise")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.clips_per_file < 1 or (args.workers is not None and args.workers < 1):
        raise ConfigError("--workers and --clips-per-file must be 1 or more")
    config, reading = config_of(args), reading_of(args)
    from jobs.bar import bar

    with bar(quiet=args.json) as shown:
        task = shown.add_task("preparing clips", total=None)
        result = prepare(
            args.input,
            args.output,
            config,
            workers=args.workers,
            address=args.address,
            clips_per_file=args.clips_per_file,
            licence=args.licence,
            overwrite=args.overwrite,
            reading=reading,
            tell=lambda summary: print(summary, file=sys.stderr),
            report=lambda done, total: shown.update(task, completed=done, total=total),
        )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{args.output}: {result.clips} clips, {result.hours:.2f} h, in {result.wall_s:.0f} s")
        where = Storage(args.output)
        if result.set_aside:
            print(f"{result.set_aside} clips set aside: {where.path(QUARANTINE)} says why")
            for reason, count in result.reasons.items():
                print(f"{count:8d}  {reason}")
        print(f"hear them, and the most extreme of the others: {where.path(OUTLIERS)}")
    if config.limits.language == "detect" and not detector_is_there() and not _is_own(args.input, args.output):
        print(f"nobody looked whether the texts are in the front end's language: {INSTALL}", file=sys.stderr)
    return SOME_SET_ASIDE if result.set_aside else 0


def config_of(args: argparse.Namespace) -> PrepareConfig:
    """Return the settings of the command line; on a prepared folder itself they change those it has.

    Raises:
        ConfigError: for a `--set` that is not KEY=VALUE or names no setting, or that decides about audio which is there.
    """
    base = PrepareConfig(resample=args.resample)
    if _is_own(args.input, args.output):
        meta = DatasetMeta.load(_storage(args.output))
        base = replace(base, mel=meta.mel, frontend=meta.frontend)
    there = replace(base, resample=False).of_audio
    if args.mel is not None:
        base = replace(base, mel=MELS[args.mel])
    if args.like is not None:
        base = replace(base, **_features_of(args.like))
    config: PrepareConfig = override(replace(base, frontend={}), parse_settings(args.settings))
    frontend = changed_frontend(whole_frontend(base.frontend), config.frontend)
    if args.language is not None:
        frontend = whole_frontend(frontends.in_language(frontend, args.language))
    if args.lexicon is not None:
        frontend = changed_frontend(frontend, {"lexicon": read_lexicon(args.lexicon)})
    frontends.build(frontend)  # a language that the phonemizer lacks ends the run before any work
    for option, setting in ((args.no_trim, "cleaning.trim"), (args.no_loudness, "cleaning.loudness")):
        if option:
            config = override(config, {setting: False})
    if args.max_seconds is not None:
        config = override(config, {"limits.max_seconds": args.max_seconds})
    if _is_own(args.input, args.output) and config.of_audio != there:
        raise ConfigError(
            "--resample, --no-trim, --no-loudness, --max-seconds, cleaning.X, limits.X and mel.sample_rate decide about the"
            " audio, which is prepared already",
            "prepare the corpus again into another folder",
        )
    whisper, tokeniser = (str(Path(place).absolute()) if place else "" for place in (args.whisper, args.speech_tokens))
    return replace(config, frontend=frontend, whisper=whisper, tokeniser=tokeniser)


def _features_of(voice: str) -> dict[str, Any]:
    """Return the `mel` and `frontend` of a voice."""
    from flowtts_core.voice.card import require_flow

    parts = require_flow(voice, "prepared for").parts
    return {"mel": from_dict(MelConfig, parts["acoustic"]["mel"]), "frontend": parts["frontend"]}


def reading_of(args: argparse.Namespace) -> Reading:
    """Return what the command line says about the corpus.

    Raises:
        ConfigError: for a column that there is not, or anything of it about a prepared folder, which is no corpus any more.
    """
    columns = tuple(role.strip().lower() for role in args.columns.split(",")) if args.columns else ()
    columns = tuple("normalised" if role == "normalized" else role for role in columns)
    reading = Reading(args.layout, columns, args.text_column, args.audio_column, args.speaker_column)
    if reading != Reading() and _is_own(args.input, args.output):
        raise ConfigError(
            "--layout and --columns say how a corpus is read, which this prepared folder was", "leave them out"
        )
    return reading


def parse_settings(settings: list[str]) -> dict[str, str]:
    """Turn `["a.b=1"]` into `{"a.b": "1"}`."""
    wrong = [setting for setting in settings if "=" not in setting]
    if wrong:
        raise ConfigError(f"--set {wrong[0]}", "write it as KEY=VALUE")
    return dict(setting.split("=", 1) for setting in settings)


def prepare(
    source: str | Path,
    output: str | Path,
    config: PrepareConfig | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
    clips_per_file: int = 128,
    licence: str = "",
    overwrite: bool = False,
    reading: Reading | None = None,
    tell: Callable[[str], None] = lambda summary: None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Prepare a corpus into a folder; files that an interrupted run finished are kept.

    SourceClip i of the corpus goes into file `i // clips_per_file`, whoever prepares it: the same corpus gives the same files.
    `dataset.json` is written last: a folder without it is not taken for a finished one. Features of other configurations
    that stand there stay; `dataset.json` goes on naming the first ones.

    Args:
        source: the corpus, or the output itself, to which features are then added.
        reading: what is known of the corpus's layout and columns.
        tell: called with how the corpus was read.
        report: called with (clips done, clips in all).

    Raises:
        TextError: when the corpus is not one, or none of its clips can be used.
        OutputError: when the folder holds other data, cannot be written, or another run is at work there.
    """
    began = time.perf_counter()
    config, storage = config or PrepareConfig(), _storage(output)
    own = _is_own(source, output)
    clips = [] if own else _clips(Path(source), reading, tell)
    config = _as_prepared(config, DatasetMeta.load(storage)) if own else _detecting(config)
    sets = sets_of(config)
    kinds = [features.kind for features in sets]
    shards = {i: clips[at : at + clips_per_file] for i, at in enumerate(range(0, len(clips), clips_per_file))}
    with storage.lock():
        storage.require_writable()
        prints = {i: _audio_print(config, shard) for i, shard in shards.items()}
        records = _finished(storage, None if own else prints, sets, overwrite)
        total = sum(len(shards.get(i, ())) or _size(record) for i, record in records.items())
        done = sum(_size(record) for record in records.values() if not _missing(record, kinds))
        report(done, total)
        tasks = [
            _task(i, record, shards.get(i, []), prints.get(i), kinds)
            for i, record in records.items()
            if _missing(record, kinds)
        ]
        for made in _prepare_shards(tasks, config, storage, address, workers) if tasks else ():
            record = records[made.pop("shard")]
            record |= made
            done += _size(record)
            report(done, total)
        return _finish(storage, records, sets, config, Path(source).name, licence, began)


def _clips(source: Path, reading: Reading | None, tell: Callable[[str], None]) -> list[SourceClip]:
    corpus = read_corpus(source, reading)
    tell(corpus.summary)
    return corpus.clips


def _storage(output: str | Path) -> Storage:
    return Storage(str(output) if is_remote(str(output)) else str(Path(output).absolute()))


def _is_own(source: str | Path, output: str | Path) -> bool:
    """Return whether the source is the output itself."""
    return str(source).rstrip("/") == str(output).rstrip("/") or _storage(source) == _storage(output)


def _detecting(config: PrepareConfig) -> PrepareConfig:
    """Return the settings that can be followed here: without the detector only marked languages are looked at."""
    if config.limits.language != "detect" or detector_is_there():
        return config
    return replace(config, limits=replace(config.limits, language="marked"))


def _as_prepared(config: PrepareConfig, meta: DatasetMeta) -> PrepareConfig:
    """Return the settings with those that the audio of a prepared folder was made with."""
    kept: dict[str, Any] = {name: meta.audio[name] for name in ("limits", "cleaning") if name in meta.audio}
    settings: PrepareConfig = from_dict(PrepareConfig, kept)
    return replace(config, limits=settings.limits, cleaning=settings.cleaning)


Record = dict[str, Note]  # of a shard, by kind


def _missing(record: Record, kinds: Sequence[str]) -> list[str]:
    return [kind for kind in (AUDIO, *kinds) if kind not in record]


def _task(
    shard: int, record: Record, clips: list[SourceClip], print_: str | None, kinds: Sequence[str]
) -> dict[str, Any]:
    """Return what a worker is to do for a shard of which something is missing."""
    missing = _missing(record, kinds)
    given = [asdict(clip) for clip in clips] if AUDIO in missing else []
    return {"shard": shard, "print": print_ or record[AUDIO]["print"], "missing": missing, "clips": given}


def _size(record: Record) -> int:
    """Return how many clips a shard had, with those that were set aside."""
    return len(record[AUDIO]["index"]) + len(record[AUDIO]["set_aside"]) if AUDIO in record else 0


def _audio_print(config: PrepareConfig, clips: list[SourceClip]) -> str:
    """Return what changes with the settings of the audio, the texts, and the size or time of the audio files."""
    stats = [_stat(path) for path in dict.fromkeys(clip.path for clip in clips if clip.path)]
    return fingerprint([config.of_audio, [clip.to_json() for clip in clips], stats])


def _stat(path: str) -> list[float]:
    try:
        found = Path(path).stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime]


def _finished(
    storage: Storage, prints: dict[int, str] | None, sets: tuple[FeatureSet, ...], overwrite: bool
) -> dict[int, Record]:
    """Return the records of the files that stand complete, for each shard; removes what killed writes left.

    Args:
        prints: what the audio files must be marked with; None where those that stand there are the corpus.

    Raises:
        OutputError: when files stand there that other settings or another corpus made.
    """
    storage.sweep()
    notes = {_shard_of(name): _note(storage, f"{AUDIO}/{name}") for name in _parquet(storage, AUDIO)}
    records: dict[int, Record] = {shard: {} for shard in sorted(notes if prints is None else prints)}
    foreign = _parquet(storage, "")  # of the first version, which kept features with the audio
    for shard, note in notes.items():
        if note is not None and shard in records and (prints is None or note.get("print") == prints[shard]):
            records[shard][AUDIO] = note
        elif note is not None or shard not in records:
            foreign.append(f"{AUDIO}/{file_name(shard)}")
        elif prints is None:
            what = f"{storage.path(AUDIO)}/{file_name(shard)}: is damaged"
            raise OutputError(what, "prepare the corpus itself again: it goes on")
    if foreign and not overwrite:
        raise OutputError(
            f"{storage.root}: {foreign[0]} was prepared from other clips, with other settings, or by another version",
            "choose another folder with -o, or give --overwrite",
        )
    if foreign or not all(AUDIO in record for record in records.values()):
        storage.delete(META)
    for name in (*foreign, *(["features"] if foreign else [])):
        storage.delete(name)
    for features in sets:
        _find_features(storage, features, records)
    return records


def _find_features(storage: Storage, features: FeatureSet, records: dict[int, Record]) -> None:
    for name in _parquet(storage, features.folder):
        note, audio = _note(storage, f"{features.folder}/{name}"), records.get(_shard_of(name), {}).get(AUDIO)
        if note and audio and note["print"] == feature_print(audio["print"], features):
            records[_shard_of(name)][features.kind] = note
    if not all(features.kind in record for record in records.values()):
        storage.delete(f"{features.folder}/{FEATURES}")


def _parquet(storage: Storage, folder: str) -> list[str]:
    """Return the names of the Parquet files of a folder.

    Raises:
        OutputError: for one that `flowtts prepare` did not write.
    """
    storage.sweep(folder)
    names = [name for name in storage.list(folder) if name.endswith(".parquet")]
    for name in names:
        if not _NAME.fullmatch(name):
            raise OutputError(
                f"{storage.path(folder)}/{name}: not of `flowtts prepare`", "choose another folder with -o"
            )
    return names


def _shard_of(name: str) -> int:
    return int(name[6:11])


def _note(storage: Storage, name: str) -> Note | None:
    """Return the record in a Parquet file of ours, empty where it has none; None where the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with storage.open(name) as file:
            return dict(json.loads((pq.read_schema(file).metadata or {}).get(NOTE, b"{}")))
    except (pa.ArrowException, OSError, EOFError, ValueError, TypeError):
        return None


def _prepare_shards(
    tasks: list[dict[str, Any]], config: PrepareConfig, storage: Storage, address: str | None, workers: int | None
) -> Iterator[dict[str, Any]]:
    from cluster.pool import run_tasks
    from cluster.session import default_workers

    return run_tasks(
        partial(ShardPreparer, config, storage), tasks, address=address, workers=workers or default_workers()
    )


def _finish(
    storage: Storage,
    records: dict[int, Record],
    sets: tuple[FeatureSet, ...],
    config: PrepareConfig,
    source: str,
    licence: str,
    began: float,
) -> Prepared:
    """Write the indices, what is known of the features, the quarantine with its page and, last, `dataset.json`."""
    audio = [entry for record in records.values() for entry in record[AUDIO]["index"]]
    kinds = [features.kind for features in sets]
    places = _places(records)
    odd = unlike_the_rest([place.measures for place in places], config.limits)
    for entry in (entry for record in records.values() for kind in kinds for entry in record[kind]["set_aside"]):
        odd.pop(entry["id"], None)  # one reason is enough
    lengths = {
        kind: {i: _lengths(record, kind, odd) for i, record in records.items()} for kind in kinds
    }  # 0 leaves a clip out
    mels, tokens = ([n for of_shard in lengths[kind].values() for n in of_shard] for kind in ("mel", "tokens"))
    usable = [(frames, count) for frames, count in zip(mels, tokens, strict=True) if 0 < count <= frames]
    aside = [entry for record in records.values() for kind in (AUDIO, *kinds) for entry in record[kind]["set_aside"]]
    reasons = [(entry[0], crowded(*both)) for entry, *both in zip(audio, mels, tokens, strict=True) if min(both) > 0]
    aside += [{"id": key, "reason": reason} for key, reason in [*reasons, *odd.items()] if reason]
    bare = {entry["id"] for entry in aside if "text" not in entry}
    texts = texts_of(storage, [place for place in places if place.measures.id in bare])
    aside = [entry if "text" in entry else {**entry, "text": texts.get(entry["id"], "")} for entry in aside]
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in aside)
    storage.write(QUARANTINE, lines.encode("utf-8", "replace"))
    storage.write(OUTLIERS, outlier_page(storage, source, places, aside, config).encode("utf-8", "replace"))
    if not usable:
        reason = f": {aside[0]['id']}: {aside[0]['reason']}" if aside else ""
        raise TextError(f"{source}: no clip can be trained on{reason}", f"{storage.path(QUARANTINE)} says why for each")
    samples = {i: [entry[1] for entry in record[AUDIO]["index"]] for i, record in records.items()}
    storage.write(f"{AUDIO}/{INDEX}", Index.of(samples, 1, [entry[2] for entry in audio]).to_bytes())
    mean, std = _statistics([record["mel"] for record in records.values()])
    for features in sets:
        index = Index.of(lengths[features.kind], MAKERS[features.kind].rows_per_group)
        storage.write(f"{features.folder}/{INDEX}", index.to_bytes())
        known = {"spec": features.spec, **({"mean": mean, "std": std} if features.kind == "mel" else {})}
        storage.write(f"{features.folder}/{FEATURES}", (json.dumps(known, indent=1) + "\n").encode())
    speakers, languages = (tuple(sorted({entry[k] for entry in audio} - {""})) for k in (2, 3))
    if not storage.exists(META):
        meta = DatasetMeta(config.mel, sets[1].spec, speakers, languages, licence, source, config.of_audio)
        storage.write(META, meta.to_bytes())
    return Prepared(
        clips=len(usable),
        set_aside=len(aside),
        hours=round(config.mel.seconds_of(sum(frames for frames, _ in usable)) / 3600, 4),
        mel_mean=mean,
        mel_std=std,
        files=len(records),
        speakers=len(speakers),
        wall_s=round(time.perf_counter() - began, 2),
        reasons=dict(Counter(kind_of(entry["reason"]) for entry in aside).most_common()),
        languages=config.limits.language,
    )


def _places(records: dict[int, Record]) -> list[ClipPlace]:
    """Return where each clip that is kept lies, and its measures; none of files that an earlier version wrote."""
    return [
        ClipPlace(shard, row, ClipMeasures(*values))
        for shard, record in records.items()
        for row, values in enumerate(record[AUDIO].get("measures", []))
    ]


def _lengths(record: Record, kind: str, odd: Mapping[str, str]) -> list[int]:
    """Return the lengths of a shard's features, 0 for clips that are set aside for what the corpus shows."""
    pairs = zip(record[AUDIO]["index"], record[kind]["index"], strict=True)
    return [0 if entry[0] in odd else length for entry, length in pairs]


def _statistics(notes: list[Note]) -> tuple[float, float]:
    """Return mean and standard deviation of all values of all mels."""
    count = sum(note["values"] for note in notes)
    mean = math.fsum(note["sum"] for note in notes) / count
    return mean, math.sqrt(max(0.0, math.fsum(note["squares"] for note in notes) / count - mean**2))
