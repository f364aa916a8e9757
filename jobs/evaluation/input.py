"""Find the clips to judge and their texts in a job's manifest, an LJSpeech folder, audio files, Parquet or tars."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage
from flowtts_core.audio.files import read_audio, require_seconds
from flowtts_core.errors import AudioError, TextError
from flowtts_core.text.marks import spoken_words
from jobs.corpus.text_lists import lines_of, parse_list
from jobs.synthesis.manifest import MANIFEST, SHARDS, read_manifest, read_shard, shard_stats
from jobs.synthesis.webdataset import TarReader, samples, split_place

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4b", ".m4a")
_AUDIO_COLUMNS = ("audio", "flac", "wav")
_TEXT_COLUMNS = ("text", "normalized", "transcript", "sentence")
_SPEED_COLUMNS = ("compute_s", "latency_s")
_ROW = re.compile(r"(.*\.parquet)#(\d+)", re.DOTALL)
_ACCEPTED = "give a folder that flowtts synthesize or flowtts prepare reads or writes, of audio, of Parquet or of WebDataset tars"
_OPEN_AT_ONCE = 16  # shards read at once, since a store answers slowly
_LARGE_BYTES = 1 << 26  # of a file in a store whose header is read first, to tell whether the rest is wanted


@dataclass(frozen=True)
class Item:
    """A clip to judge.

    Attributes:
        id: pairs it with the same clip of a reference or of another run.
        text: what it should say; None where unknown.
        place: relative to the root: a file, "file.parquet#row" or "file.tar#member".
        error: why there is nothing to judge, if the job that made it set it aside.
        compute_s: seconds of computing that made it, if known.
        latency_s: seconds from its request to its first sound, if known.
        stamp: changes when the sound does: a digest, or the size and time of its file.
        mark: the number that the job which made it says it put into its watermark.
    """

    id: str
    text: str | None
    place: str
    error: str = ""
    compute_s: float | None = None
    latency_s: float | None = None
    stamp: str = ""
    mark: int | None = None


def find_items(root: str) -> list[Item]:
    """Return the clips under a folder, file or `s3://` prefix, in the order of their ids.

    Raises:
        TextError: when there are none, or an id occurs twice.
    """
    storage, name = _rooted(root)
    if not storage.exists(name):
        raise TextError(f"{root}: no such folder or file", "check the path")
    try:
        items = sorted(_items(storage, name), key=lambda item: item.id)
    except (pa.ArrowException, OSError) as error:
        raise TextError(f"{root}: cannot be read ({error})", _ACCEPTED) from error
    if not items:
        raise TextError(f"{root}: holds no clips", _ACCEPTED)
    for item in items:
        shown = item.place.encode("utf-8", "backslashreplace").decode()
        if shown != item.place:  # the tables could not hold it
            raise TextError(f"{root}: the name {shown} is not UTF-8", "rename that file")
    for one, other in zip(items, items[1:], strict=False):
        if one.id == other.id:
            raise TextError(f"{root}: {one.place} and {other.place} have the same id {one.id!r}", "rename one of them")
    return items


def read_clip(root: str, place: str, longest_s: float | None = None) -> tuple[np.ndarray, int]:
    """Return the waveform [S] and sample rate at an item's place.

    Raises:
        AudioError: when it cannot be read, or lasts more than `longest_s` seconds.
    """
    storage, _ = _rooted(root)
    try:
        data = _sound_at(storage, place, longest_s)
    except FileNotFoundError:
        raise AudioError(f"{place}: no such file", "was it moved or deleted?") from None
    except (pa.ArrowException, OSError, IndexError) as error:
        raise AudioError(f"{place}: cannot be read ({error})") from error
    if isinstance(data, dict):  # as the datasets library writes audio
        data = data.get("bytes")
    if not data:
        raise AudioError(f"{place}: holds no audio")
    if not isinstance(data, bytes | Path):  # a path in a table could point anywhere
        raise AudioError(f"{place}: its column of audio holds {type(data).__name__}, not the bytes of a file")
    try:
        return read_audio(data, longest_s=longest_s)
    except AudioError as error:
        named = "these bytes" if isinstance(data, bytes) else str(data)
        raise AudioError(error.message.replace(named, place), error.remedy) from error


def lies_at(item: Item) -> tuple[str, int, str]:
    """Return a sort key by which a file of many clips is opened once.

    The order of ids would not do: a job may have sorted its rows by length.
    """
    if found := _ROW.fullmatch(item.place):
        return found[1], int(found[2]), ""
    file, member = split_place(item.place)
    return file, 0, member


def _sound_at(storage: Storage, place: str, longest_s: float | None) -> Any:
    """Return what lies at a place: the bytes of a file, the path of a local one, or what a table's column holds."""
    if found := _ROW.fullmatch(place):
        return _audio_column(storage.path(found[1]))[int(found[2])].as_py()
    tar, member = split_place(place)
    if member:
        try:
            return _tar(storage.path(tar)).read(member)
        except FileNotFoundError:
            pass  # unless a file has such a name
    with storage.open(place) as file:  # refuses what is no file, as a pipe, which would never end
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if not storage.remote:
            return Path(storage.path(place)) if size else b""
        if longest_s is not None and size > _LARGE_BYTES:
            require_seconds(file, place, longest_s)
            file.seek(0)
        return file.read()


def _rooted(root: str) -> tuple[Storage, str]:
    """Return the folder to read from, and the file of many clips in it, if the path names one."""
    if root.endswith((".parquet", ".tar")):
        folder, _, name = root.rpartition("/")
        return Storage(folder or "."), name
    return Storage(root), ""


def _items(storage: Storage, name: str) -> Iterator[Item]:
    if name:
        yield from _of_tar(storage, name) if name.endswith(".tar") else _of_parquet(storage, name)
        return
    if storage.exists(MANIFEST):
        yield from _of_manifest(storage)
        return
    files = dict(_walk(storage))
    if "metadata.csv" in files:
        yield from _of_ljspeech(storage, files)
    elif any(_is_audio(file) for file in files):
        yield from _of_files(storage, files)
    else:
        tars = [file for file in files if file.endswith(".tar")]
        for file in tars:
            yield from _of_tar(storage, file)
        for file in [] if tars else files:
            if file.endswith(".parquet"):
                yield from _of_parquet(storage, file)


def _walk(storage: Storage, folder: str = "") -> Iterator[tuple[str, int]]:
    for name, size in storage.list(folder).items():
        path = f"{folder}/{name}" if folder else name
        if size >= 0:
            yield path, size
        elif not name.startswith("."):
            yield from _walk(storage, path)


def _of_manifest(storage: Storage) -> Iterator[Item]:
    table = read_manifest(storage)
    optional = [name for name in ("input_type", "watermark") if name in table.column_names]  # older jobs lack it
    needed = ["id", "text", "audio", "status", "reason", "sha256", "duration"]
    rows = table.select([*needed, *optional]).to_pylist()
    costs = _costs(storage, {row["id"]: row["duration"] or 0.0 for row in rows})
    for row in rows:
        error = "" if row["status"] == "ok" else f"set aside when it was made: {row['reason']}"
        words, cost = spoken_words(row["text"], row.get("input_type")), costs.get(row["id"])
        stamp, mark = row["sha256"] or "", row.get("watermark")
        yield Item(row["id"], words, row["audio"] or "", error, cost, stamp=stamp, mark=mark)


def _costs(storage: Storage, durations: dict[str, float]) -> dict[str, float]:
    """Return the computing time of each id: its share by length of its shard's. Ids of missing shards are left out."""
    numbers = [name.removesuffix(".parquet") for name in storage.list(SHARDS) if name.endswith(".parquet")]
    with ThreadPoolExecutor(_OPEN_AT_ONCE) as pool:
        found = pool.map(partial(_costs_of_shard, storage, durations), [int(n) for n in numbers if n.isdecimal()])
        return {id: cost for costs in found for id, cost in costs.items()}


def _costs_of_shard(storage: Storage, durations: dict[str, float], index: int) -> dict[str, float]:
    try:
        ids, compute_s = (
            read_shard(storage, index, ("id",))["id"].to_pylist(),
            shard_stats(storage, index).get("compute_s"),
        )
    except (OSError, pa.ArrowException):  # its audio may lie elsewhere, and is judged without
        return {}
    spoken = sum(durations.get(id, 0.0) for id in ids)
    return {} if compute_s is None or not spoken else {id: compute_s * durations.get(id, 0.0) / spoken for id in ids}


def _of_ljspeech(storage: Storage, files: dict[str, int]) -> Iterator[Item]:
    places = {_stem(file): file for file in files if _is_audio(file)}
    name = storage.path("metadata.csv")
    listed = parse_list(name, lines_of(name, storage.read("metadata.csv")), lambda key: _stem(key) in places)
    for number, cells in listed.rows:
        values = listed.values(cells)
        key, place = values.get("id") or values.get("audio") or f"line {number}", ""
        error = listed.problem(cells)
        if error:
            error = f"metadata.csv, line {number}: {error}"
        elif place := places.get(_stem(key), ""):
            stamp = _stamp(storage, place, files[place])
        else:
            error = f"metadata.csv names {key}, not there"
        yield Item(_stem(key), values.get("text"), place, error, stamp=stamp if place else "")


def _of_files(storage: Storage, files: dict[str, int]) -> Iterator[Item]:
    texts: dict[str, str] = {}
    for file in files:
        if file.endswith(".trans.txt"):  # LibriSpeech: one line a clip
            for line in storage.read(file).decode("utf-8", errors="replace").split("\n"):
                id, _, text = line.partition(" ")
                texts[id] = text.strip()
    audio = [file for file in files if _is_audio(file)]
    unique = len({_stem(file) for file in audio}) == len(audio)
    for file in audio:
        beside = f"{file.rpartition('.')[0]}.txt"
        said: str | None = texts.get(_stem(file))
        if said is None and beside in files:
            said = storage.read(beside).decode("utf-8-sig", errors="replace").strip()
        yield Item(
            _stem(file) if unique else file.rpartition(".")[0], said, file, stamp=_stamp(storage, file, files[file])
        )


def _of_parquet(storage: Storage, name: str) -> Iterator[Item]:
    with storage.open(name) as file:
        parquet = pq.ParquetFile(file)
        columns = parquet.schema_arrow.names
        _audio_name(columns, storage.path(name))
        text = next((column for column in _TEXT_COLUMNS if column in columns), None)
        table = parquet.read(columns=[column for column in ("id", text, *_SPEED_COLUMNS) if column in columns])
    ids: list[Any] = table["id"].to_pylist() if "id" in columns else list(range(len(table)))
    texts: list[Any] = table[text].to_pylist() if text else [None] * len(ids)
    stamp = _stamp(storage, name, storage.size(name))
    speeds = zip(*(table[c].to_pylist() if c in columns else [None] * len(ids) for c in _SPEED_COLUMNS), strict=True)
    for row, (id, said, (compute_s, latency_s)) in enumerate(zip(ids, texts, speeds, strict=True)):
        words = None if said is None else str(said)
        known = str(id) if "id" in columns else f"{_stem(name)}-{row:06d}"
        yield Item(known, words, f"{name}#{row}", "", compute_s, latency_s, stamp)


def _of_tar(storage: Storage, name: str) -> Iterator[Item]:
    stamp = _stamp(storage, name, storage.size(name))
    with storage.open(name) as file:
        for key, member, described in samples(TarReader(file), SUFFIXES):
            said = next((described[column] for column in _TEXT_COLUMNS if column in described), None)
            words = None if said is None else str(said)
            yield Item(str(described.get("id") or key), words, f"{name}#{member}", stamp=stamp)


def _audio_name(columns: list[str], name: str) -> str:
    found = next((column for column in _AUDIO_COLUMNS if column in columns), None)
    if "flac" in columns:  # a shard of ours: its column "audio" is a place
        found = "flac"
    if found is None:
        raise TextError(f"{name}: has no column of audio ({', '.join(columns)})", f"name it {_AUDIO_COLUMNS[0]}")
    return found


@lru_cache(maxsize=2)
def _audio_column(path: str) -> pa.ChunkedArray:
    """Return the audio column of a Parquet file. It is cached, since items of a file follow one another."""
    folder, _, name = path.rpartition("/")
    with Storage(folder).open(name) as file:
        data = io.BytesIO(file.read())
    parquet = pq.ParquetFile(data)
    column = _audio_name(parquet.schema_arrow.names, path)
    return parquet.read(columns=[column])[column]


@lru_cache(maxsize=2)
def _tar(path: str) -> TarReader:
    """Return an open tar with its headers read. It is cached, since clips of a tar follow one another."""
    folder, _, name = path.rpartition("/")
    return TarReader(Storage(folder).open(name))


def _stem(file: str) -> str:
    base = file.rpartition("/")[2]
    return base.rpartition(".")[0] if _is_audio(base) else base


def _is_audio(file: str) -> bool:
    return file.lower().endswith(SUFFIXES)


def _stamp(storage: Storage, file: str, size: int) -> str:
    """Return the size of a file and, for a local one, its modification time."""
    return str(size) if storage.remote else f"{size} {os.stat(storage.path(file)).st_mtime_ns}"
