"""The Parquet files of a prepared corpus: where each example lies, and its row group when it is asked for."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowtts_core.errors import TextError
from flowtts_core.training.files import Files, LocalFiles, RangeFile, patiently

INDEX = "examples.index"  # Parquet inside; the name keeps it apart from the examples
INDEX_SCHEMA = pa.schema(
    [("file", pa.string()), ("group", pa.int32()), ("row", pa.int32()), ("n_frames", pa.int32()),
     ("n_tokens", pa.int32()), ("speaker", pa.string())]
)  # fmt: skip
_READERS = 8  # requests at once to a remote store
_FOOTERS = 256  # of files, kept parsed

Group = tuple[str, int]  # file, row group
Value = TypeVar("Value")


@dataclass(frozen=True)
class Index:
    """Where each example lies (file, row group, row in it), and how long it is; one entry each."""

    names: list[str]
    files: np.ndarray  # into `names`
    groups: np.ndarray
    rows: np.ndarray
    frames: np.ndarray
    tokens: np.ndarray
    speakers: np.ndarray  # of str

    def group(self, index: int) -> Group:
        return self.names[int(self.files[index])], int(self.groups[index])

    def first(self, limit: int | None) -> Index:
        """Of the first so many examples; of all where there is no limit."""
        parts = (self.files, self.groups, self.rows, self.frames, self.tokens, self.speakers)
        return self if not limit else Index(self.names, *(part[:limit] for part in parts))

    @staticmethod
    def of(table: pa.Table) -> Index:
        """From a table of `INDEX_SCHEMA`."""
        encoded = table["file"].combine_chunks().dictionary_encode()
        numbers = {name: table[name].to_numpy() for name in ("group", "row", "n_frames", "n_tokens")}
        return Index(
            encoded.dictionary.to_pylist(),
            encoded.indices.to_numpy(),
            numbers["group"],
            numbers["row"],
            numbers["n_frames"],
            numbers["n_tokens"],
            np.array(table["speaker"].to_pylist(), dtype=np.str_),
        )


def index_bytes(entries: Iterable[tuple[str, int, int, int, int, str]]) -> bytes:
    """The content of an index file, from (file, group, row, frames, tokens, speaker) of each example."""
    columns = list(zip(*entries, strict=True)) or [()] * len(INDEX_SCHEMA)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(zip(INDEX_SCHEMA.names, map(list, columns), strict=True)), INDEX_SCHEMA), sink)
    return sink.getvalue()


def read_index(files: Files) -> Index:
    """From the index of a prepared folder, or from its examples where they are of an older version.

    Raises:
        TextError: where there are no examples.
    """
    listed = patiently(files.list, f"listing {files.path()}")
    sizes = {name: size for name, size in listed.items() if name.endswith(".parquet")}
    if not sizes:
        raise TextError(f"{files.path()}: no Parquet files", "run `flowtts prepare` to its end")
    if INDEX in listed:
        found = Index.of(
            pq.read_table(io.BytesIO(patiently(lambda: files.read(INDEX), f"reading {files.path(INDEX)}")))
        )
        if set(found.names) <= set(sizes):
            return found
    entries = [entry for name in sorted(sizes) for entry in _entries(files, name, sizes[name])]
    return Index.of(pq.read_table(io.BytesIO(index_bytes(entries))))


def _entries(files: Files, name: str, size: int) -> Iterator[tuple[str, int, int, int, int, str]]:
    """Those of one file of examples, read from it."""
    with pq.ParquetFile(RangeFile(files, name, size), pre_buffer=True) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["n_frames", "tokens", "speaker"])
            for row, example in enumerate(table.to_pylist()):
                yield name, group, row, example["n_frames"], len(example["tokens"]), example["speaker"]


class RowGroups:
    """Row groups by file and number; those used last stay in memory, up to `cache_bytes`. Safe to use from threads."""

    def __init__(self, files: Files, columns: list[str], cache_bytes: int) -> None:
        self._files, self._columns = files, columns
        self._sizes = patiently(files.list, f"listing {files.path()}")
        self._footers: Recent[str, pq.FileMetaData] = Recent(_FOOTERS, lambda _: 1)
        self._groups: Recent[Group, pa.Table] = Recent(cache_bytes, lambda table: table.nbytes)
        local = isinstance(files, LocalFiles)
        self._readers = None if local else ThreadPoolExecutor(_READERS, "examples")

    def get(self, group: Group) -> pa.Table:
        return self._groups.get(group, self._read)

    def fetch(self, groups: Sequence[Group]) -> None:
        """Bring these into memory."""
        if self._readers is not None:
            missing = [group for group in dict.fromkeys(groups) if group not in self._groups]
            list(self._readers.map(self._footer, dict.fromkeys(name for name, _ in missing)))  # once for each file
            list(self._readers.map(self.get, missing))

    def _read(self, group: Group) -> pa.Table:
        name, number = group
        source = RangeFile(self._files, name, self._sizes[name])
        with pq.ParquetFile(source, metadata=self._footer(name), pre_buffer=True) as file:
            return file.read_row_group(number, columns=self._columns, use_threads=False)

    def _footer(self, name: str) -> pq.FileMetaData:
        return self._footers.get(name, self._read_footer)

    def _read_footer(self, name: str) -> pq.FileMetaData:
        return pq.read_metadata(RangeFile(self._files, name, self._sizes[name]))


Key = TypeVar("Key", bound=Hashable)


class Recent(Generic[Key, Value]):
    """The values used last, as many as weigh no more than `limit` together, and always the newest."""

    def __init__(self, limit: int, weigh: Callable[[Value], int]) -> None:
        self._limit, self._weigh, self._weight = limit, weigh, 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value, made where it is not there; two threads that miss it at once both make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make(key)
        with self._lock:
            if key not in self._values:
                self._weight += self._weigh(value)
            self._values[key] = value
            while self._weight > self._limit and len(self._values) > 1:
                self._weight -= self._weigh(self._values.popitem(last=False)[1])
        return value
