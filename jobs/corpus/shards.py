"""Many sounds to a folder of Parquet files, so many sounds each: what an earlier run finished is kept"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from cluster.journal import Journal
from cluster.storage import InputFile, Storage, find_inputs, is_remote
from flowtts_core.config import fingerprint
from flowtts_core.errors import AudioError, ConfigError, OutputError
from jobs.corpus.source import AUDIO_SUFFIXES, SourceClip
from jobs.synthesis.webdataset import TarReader, split_place

PARQUET, TAR = ".parquet", ".tar"
NOTE = b"flowtts"  # key of a file's own record in its Parquet metadata
_NAME = re.compile(r"[a-z]+-(\d{5})\.parquet")
DEADLY = "its worker died over it"
_ID_COLUMNS, _AUDIO_COLUMNS = ("id", "__key__", "file", "name"), ("audio", "flac", "wav")


@dataclass(frozen=True)
class Shard:
    """Some sounds, of which one file tells; `print` changes with them, and with the settings of the job."""

    kind: str
    index: int
    clips: tuple[SourceClip, ...]
    print: str

    @property
    def name(self) -> str:
        return shard_name(self.kind, self.index)


@dataclass(frozen=True)
class Made:
    """The files of a job.

    Attributes:
        notes: the record of each, in order.
        kept: how many an earlier run had finished.
    """

    files: list[str]
    notes: list[dict[str, Any]]
    kept: int


def shard_name(kind: str, index: int) -> str:
    return f"{kind}-{index:05d}{PARQUET}"


def storage_of(place: str) -> Storage:
    """Return the storage of an output, a folder or an `s3://` place."""
    return Storage(place if is_remote(place) else str(Path(place).absolute()))


def make_files(
    storage: Storage,
    shards: list[Shard],
    make: Callable[[], Any],
    *,
    card: str,
    workers: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Have workers write the files of shards; those that an interrupted run finished are kept. The storage must be locked.

    Args:
        make: what does a task (`index`, `print` and `clips`): writes the file with its record, `note_of` it, and returns
            `index` and `note`.
        card: of the output, which the caller writes at last: a place without it is not finished.

    Raises:
        OutputError: when the place holds something else, or a file does not have all its sounds.
    """
    storage.require_writable()
    notes = _finished(storage, shards, overwrite)
    kept, done, total = len(notes), sum(map(_size, notes.values())), sum(len(shard.clips) for shard in shards)
    report(done, total)
    storage.delete(card)
    for made in do_tasks(make, [_task(shard) for shard in shards if shard.index not in notes], address, workers):
        notes[made["index"]] = made["note"]
        done += _size(made["note"])
        report(done, total)
    for shard in shards:
        if shard.index not in notes or _size(notes[shard.index]) != len(shard.clips):
            raise OutputError(f"{storage.path(shard.name)}: lacks some of its sounds", "run the same command again")
    return Made([shard.name for shard in shards], [notes[shard.index] for shard in shards], kept)


def find_sounds(inputs: Sequence[str], output: str) -> tuple[list[SourceClip], dict[str, str]]:
    """Return the sounds of all inputs, and the size and time of each file.

    Args:
        inputs: sounds, folders of sounds, globs, `s3://` places, Parquet files with a column of audio, or tars.
        output: of the job, whose files are no inputs where it lies in one of them.

    Raises:
        AudioError: for an input without sounds.
        ConfigError: for a Parquet file or a tar without audio, or one that cannot be read.
    """
    clips: list[SourceClip] = []
    stamps: dict[str, str] = {}
    for given in inputs:
        try:
            files = find_inputs(given, (*AUDIO_SUFFIXES, PARQUET, TAR))
        except FileNotFoundError as error:
            raise AudioError(
                f"{given}: no sounds there", f"give files, folders or globs of {' '.join(AUDIO_SUFFIXES)}"
            ) from error
        for file in files:
            if _is_own(file.path, output):
                continue
            stamps[file.path] = f"{file.size}-{file.stamp}"
            if file.path.lower().endswith(PARQUET):
                clips += _rows(file)
            elif file.path.lower().endswith(TAR):
                clips += _members(file)
            else:
                clips.append(_clip(file, given))
    return clips, stamps


def _is_own(path: str, output: str) -> bool:
    """Tell whether a file is one that a job wrote to the output."""
    folder, _, name = path.rpartition("/")
    if _NAME.fullmatch(name) is None or is_remote(path) != is_remote(output):
        return False
    return folder == output.rstrip("/") if is_remote(path) else Path(folder).absolute() == Path(output).absolute()


def _clip(file: InputFile, given: str) -> SourceClip:
    """Return the sound of a file; it is named by its place under a folder that was given."""
    bare = given.rstrip("/")
    inside = file.path.removeprefix(f"{bare}/") if file.path.startswith(f"{bare}/") else Path(file.path).name
    return SourceClip(str(Path(inside).with_suffix("")), "", file.path)


def _rows(file: InputFile) -> list[SourceClip]:
    import pyarrow.parquet as pq

    if is_remote(file.path):
        raise ConfigError(f"{file.path}: Parquet is read from local files alone", "copy it here")
    try:
        with pq.ParquetFile(file.path) as opened:
            names, count = opened.schema_arrow.names, opened.metadata.num_rows
            audio = next((name for name in _AUDIO_COLUMNS if name in names), None)
            key = next((name for name in _ID_COLUMNS if name in names), None)
            ids = opened.read(columns=[key])[key].to_pylist() if key else [None] * count
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file.path}: not readable as Parquet ({error})", "write it again or leave it out"
        ) from error
    if audio is None:
        raise ConfigError(f"{file.path}: no column of audio", f"name it one of: {', '.join(_AUDIO_COLUMNS)}")
    stem = Path(file.path).stem
    return [
        SourceClip(f"{stem}-{row:06d}" if name is None else str(name), "", file.path, row=row, column=audio)
        for row, name in enumerate(ids)
    ]


def _members(file: InputFile) -> list[SourceClip]:
    """Return the sounds of a tar, as WebDataset has them; each is named by its key."""
    try:
        with _opened_tar(file.path) as opened:
            names = TarReader(opened).names
    except OSError as error:
        raise ConfigError(f"{file.path}: not readable as a tar ({error})", "write it again or leave it out") from error
    sounds = [name for name in names if name.lower().endswith(AUDIO_SUFFIXES)]
    if not sounds:
        raise ConfigError(f"{file.path}: no sounds in it", f"give tars of {' '.join(AUDIO_SUFFIXES)}")
    return [SourceClip(str(Path(name).with_suffix("")), "", f"{file.path}#{name}") for name in sounds]


def _opened_tar(path: str) -> IO[bytes]:
    from cluster.storage import read_input

    return io.BytesIO(read_input(path)) if is_remote(path) else open(path, "rb")


def shards_of(
    kind: str, clips: list[SourceClip], stamps: dict[str, str], settings: list[Any], each: int
) -> list[Shard]:
    """Return shards of so many sounds each: sound i is in shard `i // each`, whoever does it."""
    made = []
    for index, at in enumerate(range(0, len(clips), each)):
        own = tuple(clips[at : at + each])
        what = [settings, [[clip.to_json(), stamps[split_place(clip.path)[0]]] for clip in own]]
        made.append(Shard(kind, index, own, fingerprint(what)))
    return made


def _task(shard: Shard) -> dict[str, Any]:
    return {"index": shard.index, "print": shard.print, "clips": [asdict(clip) for clip in shard.clips]}


def _size(note: dict[str, Any]) -> int:
    return int(note["rows"]) + len(note.get("set_aside", ()))


def _finished(storage: Storage, shards: list[Shard], overwrite: bool) -> dict[int, dict[str, Any]]:
    """Return the notes of the files that stand whole; removes what killed writes left.

    Raises:
        OutputError: for files that other sounds, other settings or another program made, unless they are to be replaced.
    """
    storage.sweep()
    wanted = {shard.name: shard for shard in shards}
    notes: dict[int, dict[str, Any]] = {}
    foreign = []
    for name in storage.list():
        if not name.endswith(PARQUET):
            continue
        note = read_note(storage, name) if _NAME.fullmatch(name) else None
        if note is not None and name in wanted and note.get("print") == wanted[name].print:
            notes[wanted[name].index] = note
        elif note is not None or name not in wanted or not _NAME.fullmatch(name):
            foreign.append(name)
    if foreign and not overwrite:
        raise OutputError(
            f"{storage.root}: {foreign[0]} is of other sounds, or was made with other settings",
            "choose another folder with -o, or give --overwrite",
        )
    for name in foreign:
        storage.delete(name)
    return notes


def read_note(storage: Storage, name: str) -> dict[str, Any] | None:
    """Return the record in a file of a shard; None where it has none or is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with storage.open(name) as file:
            found = json.loads((pq.read_schema(file).metadata or {})[NOTE])
    except (pa.ArrowException, OSError, EOFError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None


def do_tasks(
    make: Callable[[], Any], tasks: list[dict[str, Any]], address: str | None, workers: int | None
) -> Iterable[Any]:
    """Do tasks on a cluster, or on this machine; yields results as they come."""
    if not tasks:
        return ()
    from cluster.pool import run_tasks
    from cluster.session import default_workers

    return run_tasks(make, tasks, address=address, workers=workers or default_workers())


def parquet_bytes(table: Any, note: dict[str, Any]) -> bytes:
    """Return a table as a Parquet file with its own record."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({NOTE: json.dumps(note).encode()}), sink, row_group_size=64, compression="zstd"
    )
    return sink.getvalue()


def journal_of(storage: Storage, index: int, clips: list[SourceClip]) -> Journal:
    """Return the journal of a shard, to be closed when its file is written."""
    return Journal(storage, f".partial-journal-{index:05d}.json", "", len(clips))


def tried(
    clips: list[SourceClip], journal: Journal, do: Callable[[SourceClip, bytes | str], Any]
) -> Iterator[tuple[SourceClip, Any]]:
    """Yield each sound and what comes of it: what `do` returns, or the AudioError that it raises."""
    for clip, audio in zip(clips, sounds_of(clips), strict=True):
        item = f"{clip.path}#{clip.row}"  # two sounds may have one id
        try:
            if item in journal.deadly:
                raise AudioError(DEADLY)
            if journal.careful:
                journal.enter(item)
            yield clip, do(clip, audio)
        except AudioError as error:
            yield clip, error


def sounds_of(clips: list[SourceClip]) -> Iterable[bytes | str]:
    """Yield the audio of sounds in order, as bytes or a local path."""
    from cluster.storage import read_input
    from jobs.corpus.source import audio_of

    if any(split_place(clip.path)[1] for clip in clips):
        return _with_members(clips)
    if any(is_remote(clip.path) for clip in clips):
        return (read_input(clip.path) if is_remote(clip.path) else next(iter(audio_of([clip]))) for clip in clips)
    return audio_of(clips)


def _with_members(clips: list[SourceClip]) -> Iterable[bytes | str]:
    """Yield as `sounds_of` where some lie in tars, each of which is opened once for neighbours."""
    place, reader = "", None
    with ExitStack() as opened:
        for clip in clips:
            tar, member = split_place(clip.path)
            if not member:
                yield next(iter(sounds_of([clip])))
                continue
            if tar != place or reader is None:
                opened.close()
                place, reader = tar, TarReader(opened.enter_context(_opened_tar(tar)))
            yield reader.read(member)
