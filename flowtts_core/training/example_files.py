"""The Parquet files of a prepared corpus: how they are written, where each clip lies, and its row group when it is asked for."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache, cached
from cachetools.keys import hashkey

from flowtts_core.errors import TextError
from flowtts_core.training.files import Files, LocalFiles, RangeFile, patiently

AUDIO = "audio"  # folder of the corpus itself
AUDIO_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("language", pa.string()),
        ("sample_rate", pa.int32()),
        ("samples", pa.int32()),
        ("audio", pa.binary()),  # FLAC, 16 bit, mono
    ]
)
INDEX = "examples.index"  # Parquet inside; the name keeps it apart from the examples
NOTE = b"flowtts"  # key of a file's own record in its Parquet metadata
_INDEX_COLUMNS = ("shard", "group", "row", "length")
_READERS = 8  # requests at once to a remote store
_FOOTERS = 256  # of files, kept parsed

Group = tuple[str, int, int]  # folder, shard, row group


def file_name(shard: int) -> str:
    """Return the name of a shard's file, which is the same in each folder."""
    return f"clips-{shard:05d}.parquet"


def feature_schema(value_type: pa.DataType) -> pa.Schema:
    """Return the schema of features: row for row those of the audio files; length 0 where a clip has none."""
    return pa.schema([("id", pa.string()), ("length", pa.int32()), ("value", value_type)])


def table_bytes(rows: list[dict[str, Any]], schema: pa.Schema, rows_per_group: int, note: Mapping[str, Any]) -> bytes:
    """Return a Parquet file's content. Few rows in a group let training read a clip without the others."""
    table = pa.Table.from_pylist(rows, schema).replace_schema_metadata({NOTE: json.dumps(note).encode()})
    sink = pa.BufferOutputStream()
    # half-precision mels and FLAC do not shrink; statistics of them would only swell the footer
    pq.write_table(
        table, sink, row_group_size=rows_per_group, compression="none", use_dictionary=False, write_statistics=False
    )
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Index:
    """Where each clip lies in a folder's files, and how long it is: samples, frames or tokens. One entry for each clip."""

    shards: np.ndarray
    groups: np.ndarray
    rows: np.ndarray  # in the group
    lengths: np.ndarray
    speakers: np.ndarray  # of str

    @staticmethod
    def of(shards: Mapping[int, Sequence[int]], rows_per_group: int, speakers: Iterable[str] = ()) -> Index:
        """Return the index of files with these lengths, by shard."""
        counts = [np.arange(len(lengths)) for lengths in shards.values()]
        places = np.concatenate([*counts, np.empty(0, np.int64)])
        lengths = np.array([length for lengths in shards.values() for length in lengths], dtype=np.int32)
        names = np.repeat(np.array([*shards], dtype=np.int32), [len(lengths) for lengths in shards.values()])
        of = np.array([*speakers] or [""] * len(lengths), dtype=np.str_)
        return Index(names, places // rows_per_group, places % rows_per_group, lengths, of)

    def taken(self, places: np.ndarray) -> Index:
        """Return the index of the clips at these places."""
        parts = (self.shards, self.groups, self.rows, self.lengths, self.speakers)
        return Index(*(part[places] for part in parts))

    def to_bytes(self) -> bytes:
        """Return the content of the index file."""
        numbers = (self.shards, self.groups, self.rows, self.lengths)
        columns = {name: pa.array(v, pa.int32()) for name, v in zip(_INDEX_COLUMNS, numbers, strict=True)}
        sink = io.BytesIO()
        pq.write_table(pa.table({**columns, "speaker": pa.array(self.speakers.tolist(), pa.string())}), sink)
        return sink.getvalue()

    @staticmethod
    def read(files: Files, folder: str) -> Index:
        """Read a folder's index.

        Raises:
            TextError: where there is none, or a file of it is missing.
        """
        name = f"{folder}/{INDEX}"
        listed = patiently(lambda: files.list(folder), f"listing {files.path(folder)}")
        if INDEX not in listed:
            raise TextError(f"{files.path(name)}: no such file", "run `flowtts prepare` to its end")
        table = pq.read_table(io.BytesIO(patiently(lambda: files.read(name), f"reading {files.path(name)}")))
        shards, groups, rows, lengths = (table[column].to_numpy() for column in _INDEX_COLUMNS)
        found = Index(shards, groups, rows, lengths, np.array(table["speaker"].to_pylist(), dtype=np.str_))
        missing = {file_name(int(shard)) for shard in np.unique(found.shards)} - listed.keys()
        if missing:
            raise TextError(f"{files.path(folder)}: no {min(missing)}", "run `flowtts prepare` to its end")
        return found


class RowGroups:
    """Row groups by folder, shard and number; those used last stay in memory, up to `cache_bytes`. Safe to use from threads.

    Args:
        columns: by folder, those that are read.
    """

    def __init__(self, files: Files, columns: Mapping[str, list[str]], cache_bytes: int) -> None:
        self._files, self._columns = files, columns
        self._sizes = {f: patiently(partial(files.list, f), f"listing {files.path(f)}") for f in columns}
        self._kept: LRUCache[Hashable, pa.Table] = LRUCache(cache_bytes, lambda table: table.nbytes)
        self.get = cached(self._kept, lock=threading.Lock())(self._read)
        self._footer = cached(LRUCache(_FOOTERS), lock=threading.Lock())(self._read_footer)
        local = isinstance(files, LocalFiles)
        self._readers = None if local else ThreadPoolExecutor(_READERS, "examples")

    def fetch(self, groups: Iterable[Group]) -> None:
        """Bring these into memory, several at once where the store is remote."""
        if self._readers is not None:
            missing = [group for group in dict.fromkeys(groups) if hashkey(*group) not in self._kept]
            footers = dict.fromkeys((folder, shard) for folder, shard, _ in missing)
            list(self._readers.map(lambda file: self._footer(*file), footers))  # once for each file
            list(self._readers.map(lambda group: self.get(*group), missing))

    def _read(self, folder: str, shard: int, number: int) -> pa.Table:
        with pq.ParquetFile(self._file(folder, shard), metadata=self._footer(folder, shard), pre_buffer=True) as file:
            return file.read_row_group(number, columns=self._columns[folder], use_threads=False)

    def _read_footer(self, folder: str, shard: int) -> pq.FileMetaData:
        return pq.read_metadata(self._file(folder, shard))

    def _file(self, folder: str, shard: int) -> RangeFile:
        name = file_name(shard)
        return RangeFile(self._files, f"{folder}/{name}", self._sizes[folder][name])
