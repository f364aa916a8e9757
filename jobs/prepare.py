"""`flowtts prepare`: a corpus of clips and texts to training examples in Parquet, on all cores or a cluster."""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.storage import Storage, is_remote
from flowtts_core.config import fingerprint, override, to_dict
from flowtts_core.errors import ConfigError, OutputError, TextError
from flowtts_core.training.example_files import INDEX, index_bytes
from flowtts_core.training.examples import META, DatasetMeta
from flowtts_core.training.prepare import PrepareConfig
from jobs.corpus.clips import Clip, read_clips
from jobs.corpus.prepare_worker import NOTE, ShardPreparer, file_name

QUARANTINE, STATISTICS = "quarantine.jsonl", "statistics.json"
SOME_SET_ASIDE = 3  # exit code
_NAME = re.compile(r"clips-\d{5}\.parquet")


@dataclass(frozen=True)
class Prepared:
    """What became of a corpus. `mel_mean`, `mel_std` are over all values of all log-mels."""

    clips: int
    set_aside: int
    hours: float
    mel_mean: float
    mel_std: float
    files: int
    speakers: int
    wall_s: float


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="make a corpus ready for training",
        description="Turn clips and texts into training examples (tokens, mels, audio) in Parquet. Clips that cannot be"
        " trained on are listed with their reason in quarantine.jsonl. Run it again after an interruption: it goes on.",
        epilog="exit codes: 0 all clips prepared, 3 some were set aside, 1 failed, 2 wrong usage, 130 interrupted,\n"
        "143 terminated\n\nexamples:\n"
        "  flowtts prepare LJSpeech-1.1/ -o data/\n"
        "  flowtts prepare clips.jsonl -o data/ --resample --max-seconds 12\n"
        "  flowtts prepare LJSpeech-1.1/ -o s3://bucket/data     # keys and endpoint from the AWS_ variables\n"
        "  flowtts prepare corpus.parquet -o data/ --set mel.sample_rate=24000 --set frontend.add_blank=false",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", type=Path, help="an LJSpeech-format folder, a .jsonl (audio, text, speaker, id) or Parquet"
    )
    parser.add_argument(
        "-o", "--output", required=True, help="folder or s3:// place to make; the workers must see it too"
    )
    parser.add_argument("--workers", type=int, help="processes (default: the cores of this machine)")
    parser.add_argument("--address", help="a Ray cluster, for example http://head:8265 (default: this machine)")
    parser.add_argument("--resample", action="store_true", help="convert other sample rates")
    parser.add_argument("--max-seconds", type=float, help="set longer clips aside (default: 20)")
    parser.add_argument("--lexicon", type=Path, help="JSON object of word -> IPA that goes before the phonemizer")
    parser.add_argument("--licence", default="", help="licence of the corpus, noted in dataset.json")
    parser.add_argument("--clips-per-file", type=int, default=128, help="bound of each Parquet file (default: 128)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="mel.X, frontend.X or limits.X"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was prepared otherwise")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.clips_per_file < 1 or (args.workers is not None and args.workers < 1):
        raise ConfigError("--workers and --clips-per-file must be 1 or more")
    config = config_of(args)
    with _progress(args.json) as report:
        result = prepare(
            args.input,
            args.output,
            config,
            workers=args.workers,
            address=args.address,
            clips_per_file=args.clips_per_file,
            licence=args.licence,
            overwrite=args.overwrite,
            report=report,
        )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{args.output}: {result.clips} clips, {result.hours:.2f} h, in {result.wall_s:.0f} s")
        if result.set_aside:
            print(f"{result.set_aside} clips set aside: {Storage(args.output).path(QUARANTINE)} says why")
    return SOME_SET_ASIDE if result.set_aside else 0


def config_of(args: argparse.Namespace) -> PrepareConfig:
    """The settings of the command line.

    Raises:
        ConfigError: for a `--set` that is not KEY=VALUE or names no setting.
    """
    config = PrepareConfig(resample=args.resample)
    if args.max_seconds is not None:
        config = override(config, {"limits.max_seconds": args.max_seconds})
    if args.lexicon is not None:
        config = replace(config, frontend=replace(config.frontend, lexicon=read_lexicon(args.lexicon)))
    changed: PrepareConfig = override(config, parse_settings(args.settings))
    return changed


def parse_settings(settings: list[str]) -> dict[str, str]:
    """`["a.b=1"]` to `{"a.b": "1"}`."""
    wrong = [setting for setting in settings if "=" not in setting]
    if wrong:
        raise ConfigError(f"--set {wrong[0]}", "write it as KEY=VALUE")
    return dict(setting.split("=", 1) for setting in settings)


def read_lexicon(path: Path) -> dict[str, str]:
    """A JSON object of word -> IPA.

    Raises:
        TextError: when the file is anything else.
    """
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextError(f"{path}: not a lexicon ({error})", 'write it as {"word": "IPA", ...}') from error
    if not isinstance(words, dict) or not all(isinstance(ipa, str) for ipa in words.values()):
        raise TextError(f"{path}: not a lexicon", 'write it as {"word": "IPA", ...}')
    return words


def prepare(
    source: Path,
    output: str | Path,
    config: PrepareConfig | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
    clips_per_file: int = 128,
    licence: str = "",
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Prepare a corpus into a folder; files that an interrupted run finished are kept.

    Clip i of the corpus goes into file `i // clips_per_file`, whoever prepares it: the same corpus gives the
    same files.
    `dataset.json` is written last: a folder without it is not taken for a finished one.

    Args:
        report: called with (clips done, clips in all).

    Raises:
        TextError: when the corpus is not one, or none of its clips can be used.
        OutputError: when the folder holds other data, cannot be written, or another run is at work there.
    """
    began = time.perf_counter()
    config = config or PrepareConfig()
    clips = read_clips(source)
    shards = {i: clips[at : at + clips_per_file] for i, at in enumerate(range(0, len(clips), clips_per_file))}
    prints = {i: _shard_print(config, shard) for i, shard in shards.items()}
    storage = Storage(str(output) if is_remote(str(output)) else str(Path(output).absolute()))
    with storage.lock():
        records = _finished(storage, prints, overwrite)
        done = sum(len(shards[i]) for i in records)
        report(done, len(clips))
        missing = {i: shard for i, shard in shards.items() if i not in records}
        if missing:
            for record in _prepare_shards(missing, prints, config, storage, address, workers):
                records[record["shard"]] = record
                done += len(shards[record["shard"]])
                report(done, len(clips))
        return _finish(storage, [records[i] for i in sorted(records)], config, source, licence, began)


def _shard_print(config: PrepareConfig, clips: list[Clip]) -> str:
    """Changes with the settings, the texts, and the size or time of the audio files."""
    stats = [_stat(path) for path in dict.fromkeys(clip.path for clip in clips)]
    return fingerprint([to_dict(config), [asdict(clip) for clip in clips], stats])


def _stat(path: str) -> list[float]:
    try:
        found = Path(path).stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime]


def _finished(storage: Storage, prints: dict[int, str], overwrite: bool) -> dict[int, dict[str, Any]]:
    """Records of the files that stand complete; sweeps what killed writes left, and the mark of a finished folder.

    Raises:
        OutputError: when files stand there that other settings or another corpus made.
    """
    storage.require_writable()
    storage.sweep()
    names = [name for name in storage.list() if name.endswith(".parquet")]
    records: dict[int, dict[str, Any]] = {}
    foreign = []
    for name in names:
        if not _NAME.fullmatch(name):
            raise OutputError(f"{storage.path(name)}: not of `flowtts prepare`", "choose another folder with -o")
        note, index = _note(storage, name), int(name[6:11])
        if note is None and index in prints:
            continue  # cut off: it is prepared again
        if note is not None and note.get("print") is not None and note["print"] == prints.get(index):
            records[index] = {"shard": index, **note}
        else:
            foreign.append(name)
    if foreign and not overwrite:
        raise OutputError(
            f"{storage.root}: {foreign[0]} was prepared from other clips or with other settings",
            "choose another folder with -o, or give --overwrite",
        )
    if len(records) < len(prints) or foreign:
        for name in (META, INDEX):
            storage.delete(name)
    for name in foreign:
        storage.delete(name)
    return records


def _note(storage: Storage, name: str) -> dict[str, Any] | None:
    """The record in a Parquet file of ours, empty where it has none; None where the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with storage.open(name) as file:
            return dict(json.loads((pq.read_schema(file).metadata or {}).get(NOTE, b"{}")))
    except (pa.ArrowException, OSError, EOFError, ValueError, TypeError):
        return None


def _prepare_shards(
    shards: dict[int, list[Clip]],
    prints: dict[int, str],
    config: PrepareConfig,
    storage: Storage,
    address: str | None,
    workers: int | None,
) -> Iterator[dict[str, Any]]:
    from cluster.pool import run_tasks
    from cluster.session import default_workers

    tasks = [
        {"shard": index, "print": prints[index], "clips": [asdict(clip) for clip in shard]}
        for index, shard in shards.items()
    ]
    make = partial(ShardPreparer, config, storage)
    return run_tasks(make, tasks, address=address, workers=workers or default_workers())


def _finish(
    storage: Storage, records: list[dict[str, Any]], config: PrepareConfig, source: Path, licence: str, began: float
) -> Prepared:
    """Write the quarantine, the statistics and, last, `dataset.json`."""
    aside = [entry for record in records for entry in record["set_aside"]]
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in aside)
    storage.write(QUARANTINE, lines.encode("utf-8", "replace"))
    count = sum(record["values"] for record in records)
    if count == 0:
        reason = f": {aside[0]['id']}: {aside[0]['reason']}" if aside else ""
        raise TextError(f"{source}: no clip can be trained on{reason}", f"{storage.path(QUARANTINE)} says why for each")
    mean = math.fsum(record["sum"] for record in records) / count
    std = math.sqrt(max(0.0, math.fsum(record["squares"] for record in records) / count - mean**2))
    frames = sum(record["frames"] for record in records)
    clips = sum(record["clips"] for record in records)
    hours = config.mel.seconds_of(frames) / 3600
    speakers = tuple(sorted({name for record in records for name in record["speakers"]}))
    result = Prepared(
        clips=clips,
        set_aside=len(aside),
        hours=round(hours, 4),
        mel_mean=mean,
        mel_std=std,
        files=len(records),
        speakers=len(speakers),
        wall_s=round(time.perf_counter() - began, 2),
    )
    if all("index" in record for record in records):  # else some are of an older version, and training looks by itself
        storage.write(INDEX, index_bytes(_entries(records)))
    statistics = {key: value for key, value in asdict(result).items() if key != "wall_s"}
    storage.write(STATISTICS, (json.dumps(statistics, indent=1) + "\n").encode())
    meta = DatasetMeta(config.mel, config.frontend, speakers, licence, source.name)
    storage.write(META, (json.dumps(to_dict(meta), indent=1) + "\n").encode())
    return result


def _entries(records: list[dict[str, Any]]) -> Iterator[tuple[str, int, int, int, int, str]]:
    """Of the index: where each example lies, and how long it is."""
    for record in records:
        for group, (frames, tokens, speaker) in enumerate(record["index"]):
            yield file_name(record["shard"]), group, 0, frames, tokens, speaker


class _progress:
    """A progress bar on the terminal's error stream; `with _progress(quiet) as report`."""

    def __init__(self, quiet: bool) -> None:
        from rich import progress as bar
        from rich.console import Console

        columns = (
            bar.TextColumn("preparing clips"),
            bar.BarColumn(),
            bar.MofNCompleteColumn(),
            bar.TimeElapsedColumn(),
            bar.TimeRemainingColumn(),
        )
        self._bar = bar.Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
