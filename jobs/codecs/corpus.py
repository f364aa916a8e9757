"""Many sounds to a folder of Parquet files of codes: each sound is there once, or listed with the reason why not."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cluster.storage import InputFile, Storage, find_inputs, is_remote
from flowtts_core.config import fingerprint
from flowtts_core.errors import AudioError, ConfigError, OutputError
from jobs.corpus.source import AUDIO_SUFFIXES, SourceClip
from jobs.synthesis.webdataset import TARS, TarReader, add_member, key_of, split_place, tar_name

if TYPE_CHECKING:
    from flowtts_core.codec.files import LoadedCodec

CARD, QUARANTINE = "tokens.json", "quarantine.jsonl"
PARQUET, TAR = ".parquet", ".tar"
NOTE = b"flowtts"  # key of a file's own record in its Parquet metadata
_NAME = re.compile(r"tokens-(\d{5})\.parquet")
_ID_COLUMNS, _AUDIO_COLUMNS = ("id", "__key__", "file", "name"), ("audio", "flac", "wav")


@dataclass(frozen=True)
class Coded:
    """What became of the sounds.

    Attributes:
        failed: how many are in the quarantine.
        kept: files of an earlier run that were whole.
    """

    output: str
    codec: str
    sounds: int
    failed: int
    hours: float
    frames: int
    kbps: float
    files: int
    kept: int
    wall_s: float


@dataclass(frozen=True)
class Shard:
    """Some sounds, whose codes go into one file; `print` changes with them, and with what they are coded by."""

    index: int
    clips: tuple[SourceClip, ...]
    print: str

    @property
    def name(self) -> str:
        return shard_name(self.index)


def shard_name(index: int) -> str:
    return f"tokens-{index:05d}{PARQUET}"


def encode_corpus(
    inputs: Sequence[str],
    output: str,
    codec_folder: Path,
    books: int | None,
    *,
    workers: int | None = None,
    address: str | None = None,
    sounds_per_file: int = 256,
    webdataset: bool = False,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Coded:
    """Code sounds into a folder or an `s3://` place; files that an interrupted run finished are kept.

    Sound i goes into file `i // sounds_per_file`, whoever codes it. `tokens.json` is written last: a folder without it is not
    finished.

    Args:
        inputs: sounds, folders of sounds, globs, `s3://` places, or Parquet files with a column of audio.
        codec_folder: which the workers must see too.
        webdataset: also write each file's codes as a tar.

    Raises:
        ConfigError: where two sounds have one name, or a Parquet file has no audio.
        OutputError: when the place holds something else, or another run is at work there.
    """
    from flowtts_core.codec.files import load_codec

    began = time.perf_counter()
    loaded = load_codec(codec_folder)
    books = loaded.codec.require_books(books)
    clips, stamps = _clips(inputs)
    storage = Storage(output if is_remote(output) else str(Path(output).absolute()))
    settings = [loaded.fingerprint, books, *([TARS] if webdataset else [])]
    shards = _shards(clips, stamps, settings, sounds_per_file)
    with storage.lock():
        storage.require_writable()
        notes = _finished(storage, shards, overwrite)
        kept, done, total = len(notes), sum(_size(note) for note in notes.values()), len(clips)
        report(done, total)
        storage.delete(CARD)
        tasks = [_task(shard) for shard in shards if shard.index not in notes]
        for made in _run(
            partial(ShardEncoder, str(codec_folder.absolute()), books, storage, webdataset), tasks, address, workers
        ):
            notes[made["index"]] = made["note"]
            done += _size(made["note"])
            report(done, total)
        return _finish(storage, shards, notes, loaded, books, output, kept, time.perf_counter() - began)


def _clips(inputs: Sequence[str]) -> tuple[list[SourceClip], dict[str, str]]:
    """Return the sounds of all inputs, and the size and time of each file."""
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
            stamps[file.path] = f"{file.size}-{file.stamp}"
            if file.path.lower().endswith(PARQUET):
                clips += _rows(file)
            elif file.path.lower().endswith(TAR):
                clips += _members(file)
            else:
                clips.append(_clip(file, given))
    names: dict[str, str] = {}
    for clip in clips:
        if clip.id in names:
            raise ConfigError(
                f"two sounds are named {clip.id!r}: in {names[clip.id]} and {clip.path}",
                "rename one, or give folders apart",
            )
        names[clip.id] = clip.path
    return clips, stamps


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


def _shards(clips: list[SourceClip], stamps: dict[str, str], settings: list[Any], each: int) -> list[Shard]:
    made = []
    for index, at in enumerate(range(0, len(clips), each)):
        own = tuple(clips[at : at + each])
        what = [settings, [[clip.to_json(), stamps[split_place(clip.path)[0]]] for clip in own]]
        made.append(Shard(index, own, fingerprint(what)))
    return made


def _task(shard: Shard) -> dict[str, Any]:
    return {"index": shard.index, "print": shard.print, "clips": [asdict(clip) for clip in shard.clips]}


def _size(note: dict[str, Any]) -> int:
    return int(note["rows"]) + len(note["set_aside"])


def _finished(storage: Storage, shards: list[Shard], overwrite: bool) -> dict[int, dict[str, Any]]:
    """Return the notes of the files that stand whole; removes what killed writes left.

    Raises:
        OutputError: for files that other sounds, another codec or another program made, unless they are to be replaced.
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
            f"{storage.root}: {foreign[0]} is of other sounds, or was coded otherwise",
            "choose another folder with -o, or give --overwrite",
        )
    for name in foreign:
        storage.delete(name)
    return notes


def read_note(storage: Storage, name: str) -> dict[str, Any] | None:
    """Return the record in a file of codes; None where it has none or is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with storage.open(name) as file:
            found = json.loads((pq.read_schema(file).metadata or {})[NOTE])
    except (pa.ArrowException, OSError, EOFError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None


def _run(
    make: Callable[[], Any], tasks: list[dict[str, Any]], address: str | None, workers: int | None
) -> Iterable[Any]:
    if not tasks:
        return ()
    from cluster.pool import run_tasks
    from cluster.session import default_workers

    return run_tasks(make, tasks, address=address, workers=workers or default_workers())


def _finish(
    storage: Storage,
    shards: list[Shard],
    notes: dict[int, dict[str, Any]],
    loaded: LoadedCodec,
    books: int,
    output: str,
    kept: int,
    wall_s: float,
) -> Coded:
    """Require that each sound is there once, and write the quarantine and, last, the card."""
    codec = loaded.codec
    for shard in shards:
        if shard.index not in notes or _size(notes[shard.index]) != len(shard.clips):
            raise OutputError(f"{storage.path(shard.name)}: lacks some of its sounds", "run the same command again")
    ordered = [notes[shard.index] for shard in shards]
    aside = [entry for note in ordered for entry in note["set_aside"]]
    storage.write(QUARANTINE, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in aside).encode())
    card = {
        "codec": loaded.fingerprint,
        "codec_card": loaded.card,
        "sample_rate": codec.sample_rate,
        "frame_rate": codec.frame_rate,
        "codebooks": list(codec.sizes[:books]),
        "bits_per_second": codec.bits_per_second(books),
        "sounds": sum(note["rows"] for note in ordered),
        "set_aside": len(aside),
        "files": [shard.name for shard in shards],
    }
    storage.write(CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    samples = sum(note["samples"] for note in ordered)
    return Coded(
        output=output,
        codec=loaded.fingerprint,
        sounds=card["sounds"],
        failed=len(aside),
        hours=samples / codec.sample_rate / 3600,
        frames=sum(note["frames"] for note in ordered),
        kbps=codec.bits_per_second(books) / 1000,
        files=len(shards),
        kept=kept,
        wall_s=round(wall_s, 2),
    )


class ShardEncoder:
    """Codes the sounds of a shard into its file, which holds its own record: what it was made of, and what was set aside."""

    def __init__(self, codec_folder: str, books: int, storage: Storage, webdataset: bool = False) -> None:
        import torch

        from flowtts_core.codec.files import load_codec

        torch.set_num_threads(1)
        self._loaded, self._books, self._storage = load_codec(Path(codec_folder)), books, storage
        self._webdataset = webdataset

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Write the file of a task: `index`, `print` and `clips`."""
        from cluster.journal import Journal
        from jobs.corpus.prepare_worker import DEADLY

        index, clips = int(task["index"]), [SourceClip(**clip) for clip in task["clips"]]
        journal = Journal(self._storage, f".partial-journal-{index:05d}.json", "", len(clips))
        rows, aside = [], []
        for clip, audio in zip(clips, sounds_of(clips), strict=True):
            try:
                if clip.id in journal.deadly:
                    raise AudioError(DEADLY)
                if journal.careful:
                    journal.enter(clip.id)
                rows.append(self._row(clip, audio))
            except AudioError as error:
                aside.append({"id": clip.id, "reason": error.message, "audio": clip.path, **clip.place})
        codec = self._loaded.codec
        note = {
            "print": task["print"],
            "codec": self._loaded.fingerprint,
            "sample_rate": codec.sample_rate,
            "frame_rate": codec.frame_rate,
            "rows": len(rows),
            "samples": sum(row["samples"] for row in rows),
            "frames": sum(len(row["codes"]) for row in rows),
            "set_aside": aside,
        }
        if self._webdataset:  # before the Parquet, which says that both are there
            self._storage.write(tar_name(index), _tar(rows, note))
        self._storage.write(shard_name(index), self._bytes(rows, note))
        journal.close()
        return {"index": index, "note": note}

    def _row(self, clip: SourceClip, audio: bytes | str) -> dict[str, Any]:
        from flowtts_core.audio.files import read_channels
        from flowtts_core.codec.tokens import LONGEST_S, tokens_of

        codec = self._loaded.codec
        sound = read_channels(audio, codec.channels, codec.sample_rate, longest_s=LONGEST_S)
        tokens = tokens_of(self._loaded, sound, self._books)
        side = {f"side.{name}": values[0].tolist() for name, values in tokens.encoded.side.items()}
        row = {"id": clip.id, "samples": tokens.note.samples, "loudness_lufs": tokens.note.loudness_lufs}
        return {**row, "codes": tokens.encoded.codes[0].T.tolist(), **side}

    def _bytes(self, rows: list[dict[str, Any]], note: dict[str, Any]) -> bytes:
        """Return the Parquet file: `codes` is a list of frames, each a list of one number for each codebook."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = pa.uint16() if max(self._loaded.codec.sizes) <= 1 << 16 else pa.uint32()
        fields = [
            ("id", pa.string()),
            ("samples", pa.int64()),
            ("loudness_lufs", pa.float32()),
            ("codes", pa.list_(pa.list_(number, self._books))),
        ]
        sides = sorted({name for row in rows for name in row if name.startswith("side.")})
        schema = pa.schema([*fields, *((name, pa.list_(pa.float32())) for name in sides)])
        table = pa.Table.from_pylist(rows, schema).replace_schema_metadata({NOTE: json.dumps(note).encode()})
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=64, compression="zstd")
        return sink.getvalue()


def _tar(rows: Iterable[dict[str, Any]], note: dict[str, Any]) -> bytes:
    """Return a WebDataset of KEY.codes.npy [Q, T] and KEY.json, sorted by key."""
    import numpy as np

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in sorted(rows, key=lambda row: key_of(row["id"])):
            key, codes = key_of(row["id"]), np.array(row["codes"])
            written = io.BytesIO()
            np.save(written, codes.T.astype(np.uint16 if codes.max(initial=0) < 1 << 16 else np.uint32))
            told = {name: value for name, value in row.items() if name != "codes"}
            told |= {name: note[name] for name in ("codec", "sample_rate", "frame_rate")}
            add_member(tar, f"{key}.codes.npy", written.getvalue())
            add_member(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    return buffer.getvalue()


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


class ShardDecoder:
    """Decodes a file of codes to sounds, one file each; those that are there already are kept."""

    def __init__(self, codec_folder: str, source: Storage, output: Storage, suffix: str) -> None:
        import torch

        from flowtts_core.codec.files import load_codec

        torch.set_num_threads(1)
        self._loaded, self._source, self._output, self._suffix = load_codec(Path(codec_folder)), source, output, suffix

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Decode the file named in a task."""
        import pyarrow.parquet as pq

        from flowtts_core.audio.files import encode

        rate, made = self._loaded.codec.sample_rate, 0
        with self._source.open(task["name"]) as file, pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(16):
                for row in batch.to_pylist():
                    name = _file_of(row["id"], self._suffix)
                    if not self._output.exists(name):
                        sound = self._sound(row, task["note"])
                        data = encode(sound[0] if len(sound) == 1 else sound.T, rate, self._suffix)
                        self._output.write(name, data, durable=False)
                    made += 1
        return {"name": task["name"], "sounds": made}

    def _sound(self, row: dict[str, Any], note: dict[str, Any]) -> Any:
        import torch

        from flowtts_core.codec.base import Encoded
        from flowtts_core.codec.tokens import TokenNote, Tokens, sound_of

        side = {name.removeprefix("side."): torch.tensor(row[name])[None] for name in row if name.startswith("side.")}
        side = {name: values.long() if name == "frames" else values for name, values in side.items()}
        codes = torch.tensor(row["codes"], dtype=torch.int64).T[None]
        own = TokenNote(
            note["codec"], note["sample_rate"], note["frame_rate"], 0.0, row["samples"], row["loudness_lufs"]
        )
        return sound_of(self._loaded, Tokens(Encoded(codes, None, side), own))


def _file_of(name: str, suffix: str) -> str:
    """Return the file of a sound, inside the output whatever the sound is named."""
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise OutputError(f"a sound named {name!r} would not lie in the output", "name it otherwise, and code it again")
    return f"{name}{suffix}"


def decode_corpus(
    source: str,
    output: str,
    codec_folder: Path,
    *,
    suffix: str = ".flac",
    workers: int | None = None,
    address: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Decode a folder that `encode_corpus` made; return the number of sounds.

    Raises:
        OutputError: where the folder is not finished.
        AudioError: where another codec made it.
    """
    from flowtts_core.codec.files import load_codec

    here = Storage(source if is_remote(source) else str(Path(source).absolute()))
    there = Storage(output if is_remote(output) else str(Path(output).absolute()))
    if not here.exists(CARD):
        raise OutputError(f"{source}: no {CARD}, so it is not finished", "run flowtts codec encode to its end")
    card = json.loads(here.read(CARD))
    loaded = load_codec(codec_folder)
    if card["codec"] != loaded.fingerprint:
        raise AudioError(
            f"{source}: codes of the codec {card['codec']}, not of {loaded.fingerprint}",
            "give the codec that made them",
        )
    tasks = []
    for name in card["files"]:
        note = read_note(here, name)
        if note is None:
            raise OutputError(f"{here.path(name)}: missing or damaged", "run flowtts codec encode again: it goes on")
        tasks.append({"name": name, "note": {key: note[key] for key in ("codec", "sample_rate", "frame_rate")}})
    done = 0
    with there.lock():
        there.require_writable()
        make = partial(ShardDecoder, str(codec_folder.absolute()), here, there, suffix)
        for made in _run(make, tasks, address, workers):
            done += made["sounds"]
            report(done, card["sounds"])
    return done
