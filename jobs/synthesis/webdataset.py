"""WebDataset shards: write the spoken rows of a shard as a tar of KEY.flac and KEY.json, and read its members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa

TARS = "webdataset"
_WORD = {"word": pa.string(), "start": pa.int32(), "end": pa.int32(), "start_s": pa.float64(), "end_s": pa.float64()}
_WORD_DIGITS = 4  # a tenth of a millisecond: to here a shard's float32 and the worker's float64 agree


def tar_name(index: int, folder: str = TARS) -> str:
    return f"{folder}/{index:05d}.tar"


def place_of(tar: str, file: str) -> str:
    """Return the place of an utterance in a tar, as in the manifest's column `audio`. `file` is its file name."""
    return f"{tar}#{key_of(file)}.flac"


def key_of(file: str) -> str:
    """Return the key of a sample. Different files have different keys, also on file systems that ignore case.

    WebDataset ends a key at the first dot, and the datasets library skips names that begin with two underscores.
    """
    if not file:
        raise ValueError("a unit without a file name has no place in a tar; plan it with one")
    key = file.replace("%", "%25").replace(".", "%2E")
    return f"%5F{key[1:]}" if key.startswith("__") else key


def tar_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the tar of the rows that have audio, sorted by key. The same rows give the same bytes.

    Args:
        rows: rows of a shard, each with `audio` from `place_of`; those without `flac` are left out. Rows that a gate set aside
            belong in another tar, since training uses all of a tar.
    """
    buffer = io.BytesIO()
    spoken = sorted((row for row in rows if row.get("flac")), key=lambda row: str(row["audio"]))
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in spoken:
            name = str(row["audio"]).partition("#")[2]
            add_member(tar, name, row["flac"])
            add_member(
                tar, f"{name.removesuffix('.flac')}.json", json.dumps(_described(row), ensure_ascii=False).encode()
            )
    return buffer.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file; the same bytes give the same tar."""
    member = tarfile.TarInfo(name)  # its defaults: mtime, uid and gid 0, no names of owners
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _described(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample's JSON.

    A field has the same type in every sample and is never null: the datasets library infers types from the first five.
    """
    provenance = {name: row.get(name) or "" for name in ("model", "licence", "job", "sha256")}
    judged = {} if row.get("verified") is None else {"verified": row["verified"], "scores": _scores(row.get("scores"))}
    return {
        **{name: row.get(name) or "" for name in ("id", "text", "voice", "speaker")},
        **{name: row[name] for name in ("seed", "sample_rate", "duration")},
        "words": [_word(word) for word in row.get("words") or ()],
        "phonemes": row.get("phonemes") or "",
        "provenance": {**provenance, "takes": row.get("takes") or 1, **judged},
    }


def sample_schema(scores: Iterable[str] = ()) -> pa.Schema:
    """Return the schema of a sample's JSON. `scores` names the scores of the job's gate, if any."""
    strings = {name: pa.string() for name in ("model", "licence", "job", "sha256")}
    measured = pa.struct([(name, pa.float64()) for name in scores])
    judged = {"verified": pa.bool_(), "scores": measured} if measured.num_fields else {}
    return pa.schema(
        {
            **{name: pa.string() for name in ("id", "text", "voice", "speaker")},
            **{"seed": pa.int64(), "sample_rate": pa.int32(), "duration": pa.float64()},
            "words": pa.list_(pa.struct(_WORD)),
            "phonemes": pa.string(),
            "provenance": pa.struct({**strings, "takes": pa.int32(), **judged}),
        }
    )


def _word(word: Mapping[str, Any]) -> dict[str, Any]:
    return {**word, **{name: round(float(word[name]), _WORD_DIGITS) for name in ("start_s", "end_s")}}


def _scores(scores: Any) -> dict[str, float]:
    """Return scores as a dict, from a dict or from an Arrow map or list of names and values."""
    if isinstance(scores, Mapping):
        return dict(scores)
    return dict(tuple(pair.values()) if isinstance(pair, Mapping) else pair for pair in scores or ())


class TarReader:
    """Reads the members of an open tar in any order. Its headers are read once.

    Raises:
        OSError: where it is no tar.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                self._spans = {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}
        except tarfile.TarError as error:
            raise OSError(f"not a whole tar: {error}") from error

    @property
    def names(self) -> list[str]:
        """The members' names in the order of the tar."""
        return list(self._spans)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member. Raise FileNotFoundError where it is absent, OSError where the tar is cut off in it."""
        if name not in self._spans:
            raise FileNotFoundError(name)
        offset, size = self._spans[name]
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"the tar is cut off in {name}")
        return data


def split_place(place: str) -> tuple[str, str]:
    """Return the tar and the member of a place like `webdataset/00003.tar#KEY.flac`; an empty member for a plain file."""
    tar, found, member = place.partition(".tar#")
    return (f"{tar}.tar", member) if found else (place, "")


def samples(reader: TarReader, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the key, the audio's member and the JSON of each sample. The text is KEY.txt's where KEY.json has none."""
    names = set(reader.names)
    for name in reader.names:
        folder, slash, base = name.rpartition("/")
        key, _, field = base.partition(".")
        if not f".{field.lower()}".endswith(suffixes):
            continue
        stem = f"{folder}{slash}{key}"
        described = _read_json(reader, f"{stem}.json") if f"{stem}.json" in names else {}
        if f"{stem}.txt" in names and "text" not in described:
            described["text"] = reader.read(f"{stem}.txt").decode("utf-8", errors="replace").strip()
        yield stem, name, described


def _read_json(reader: TarReader, name: str) -> dict[str, Any]:
    try:
        value = json.loads(reader.read(name))
    except ValueError as error:
        raise OSError(f"{name} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}
