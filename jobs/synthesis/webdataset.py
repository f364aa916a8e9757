"""WebDataset shards: the spoken rows of a shard as a tar of KEY.flac and KEY.json, and the way back to one of its members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa

TARS = "webdataset"
_WORD = {"word": pa.string(), "start": pa.int32(), "end": pa.int32(), "start_s": pa.float64(), "end_s": pa.float64()}
_WORD_DIGITS = 4  # a tenth of a millisecond: what a shard's float32 and the worker's float64 agree on


def tar_name(index: int, folder: str = TARS) -> str:
    return f"{folder}/{index:05d}.tar"


def place_of(tar: str, file: str) -> str:
    """Return the place of an utterance in a tar, as the manifest's `audio` names it; `file` is its unit's."""
    return f"{tar}#{key_of(file)}.flac"


def key_of(file: str) -> str:
    """Return the key of a sample; different for different files, on file systems that ignore case too.

    WebDataset ends a key at the first dot, and the datasets library skips names that begin with two underscores.
    """
    if not file:
        raise ValueError("a unit without a file name has no place in a tar; plan it with one")
    key = file.replace("%", "%25").replace(".", "%2E")
    return f"%5F{key[1:]}" if key.startswith("__") else key


def tar_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the tar of the rows that have audio, sorted by key; the same rows give the same bytes.

    Args:
        rows: of a shard, each with its `flac` and with `audio` as `place_of` gives it; what has no `flac` is left out. Those that
            a gate set aside belong in a tar elsewhere: whoever trains on a tar takes all of it.
    """
    buffer = io.BytesIO()
    spoken = sorted((row for row in rows if row.get("flac")), key=lambda row: str(row["audio"]))
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in spoken:
            name = str(row["audio"]).partition("#")[2]
            _add(tar, name, row["flac"])
            _add(tar, f"{name.removesuffix('.flac')}.json", json.dumps(_described(row), ensure_ascii=False).encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # by itself: mtime, uid and gid 0, no names of owners
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _described(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sample's JSON says of it.

    Each field has one type in every sample of a job, null never: the datasets library takes the types from the first five.
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
    """Return the fields of a sample's JSON; `scores` are those of the job's gate, where it had one."""
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
    """From a worker's dict, or from what Arrow makes of a map or of a list of names and values."""
    if isinstance(scores, Mapping):
        return dict(scores)
    return dict(tuple(pair.values()) if isinstance(pair, Mapping) else pair for pair in scores or ())


class TarReader:
    """The members of an open tar, in any order; its headers are read once.

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
        """Of the members, as they lie."""
        return list(self._spans)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member; FileNotFoundError where there is none, OSError where the tar is cut off in it."""
        if name not in self._spans:
            raise FileNotFoundError(name)
        offset, size = self._spans[name]
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"the tar is cut off in {name}")
        return data


def split_place(place: str) -> tuple[str, str]:
    """Return the tar and the member of a place such as `webdataset/00003.tar#KEY.flac`; the member is empty for any other."""
    tar, found, member = place.partition(".tar#")
    return (f"{tar}.tar", member) if found else (place, "")


def samples(reader: TarReader, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the key, the audio's member and the description of each sample; KEY.txt is read where no KEY.json tells the text."""
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
