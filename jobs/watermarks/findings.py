"""Looks for marks in many sounds, into a folder of Parquet files: a row for each sound, also for those that cannot be read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import AudioError, VoiceError
from flowtts_core.watermark.finding import LEAST_SHARE, Finder
from jobs.corpus.shards import (
    Made,
    find_sounds,
    journal_of,
    make_files,
    parquet_bytes,
    shard_name,
    shards_of,
    storage_of,
    tried,
)
from jobs.corpus.source import SourceClip
from jobs.watermark import LONGEST_S

if TYPE_CHECKING:
    from cluster.storage import Storage

CARD, KIND = "findings.json", "findings"
_FORM = 2  # of a row; earlier ones have no own_key


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        marked: by the key or by the public pattern.
        own_key: of them, those by the key that was given.
        kept: files of an earlier run that were whole.
    """

    output: str
    sounds: int
    marked: int
    own_key: int
    unmarked: int
    unreadable: int
    hours: float
    files: int
    kept: int
    wall_s: float


def find_marks(
    inputs: Sequence[str],
    output: str,
    mark: Path | None = None,
    key: bytes = b"",
    *,
    workers: int | None = None,
    address: str | None = None,
    sounds_per_file: int = 256,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Look for marks into a folder or an `s3://` place; files that an interrupted run finished are kept.

    `findings.json` is written last: a folder without it is not finished.

    Args:
        inputs: sounds, folders of sounds, globs, `s3://` places, Parquet files with a column of audio, or tars.
        mark: folder of the watermark, which the workers must see too; None for the one of the installation.

    Raises:
        VoiceError: where the folder is no watermark.
        ConfigError: where a Parquet file or a tar has no audio.
        OutputError: when the place holds something else, another mark's or key's findings too, or another run is at work there.
    """
    from flowtts_core.watermark.card import bundled_mark

    began = time.perf_counter()
    mark = mark and mark.absolute()
    identity = _identity(mark or bundled_mark(), key)
    clips, stamps = find_sounds(inputs, output)
    clips = list({(clip.path, clip.row): clip for clip in clips}.values())  # a file given twice is one sound
    storage = storage_of(output)
    shards = shards_of(KIND, clips, stamps, [identity, LEAST_SHARE, _FORM], sounds_per_file)
    with storage.lock():
        made = make_files(
            storage,
            shards,
            partial(MarkFinder, mark, key, identity, storage),
            card=CARD,
            workers=workers,
            address=address,
            overwrite=overwrite,
            report=report,
        )
        return _finish(storage, made, identity, output, time.perf_counter() - began)


def _identity(mark: Path, key: bytes) -> dict[str, str]:
    """Return what findings depend on beside the sound: the mark, its net, and of the key a fingerprint."""
    from flowtts_core.watermark.card import read_card
    from flowtts_core.watermark.marker import Marker
    from flowtts_core.watermark.marking import key_fingerprint

    card = read_card(mark)
    Marker.open(mark, key)  # so that what is damaged is said before any work
    return {
        "mark": card["watermark"]["name"],
        "weights": card["sha256"],
        "estimator": hashlib.sha256((mark / "estimator.onnx").read_bytes()).hexdigest(),
        "threshold": str(card.get("threshold", 0.0)),
        "key": key_fingerprint(key) if key else "",
    }


def _finish(storage: Storage, made: Made, identity: dict[str, str], output: str, wall_s: float) -> Found:
    """Write the card."""
    sums = {
        name: sum(note[name] for note in made.notes)
        for name in ("rows", "marked", "own_key", "unmarked", "unreadable", "seconds")
    }
    counts = {"sounds": sums["rows"]} | {name: sums[name] for name in ("marked", "own_key", "unmarked", "unreadable")}
    hours = round(sums["seconds"] / 3600, 4)
    card = {**identity, **counts, "hours": hours, "files": made.files}
    storage.write(CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    return Found(output=output, **counts, hours=hours, files=len(made.files), kept=made.kept, wall_s=round(wall_s, 2))


class MarkFinder:
    """Looks for marks in the sounds of a shard, and writes its file."""

    def __init__(self, mark: Path | None, key: bytes, identity: dict[str, str], storage: Storage) -> None:
        from flowtts_core.watermark.card import bundled_mark

        folder = mark or bundled_mark()  # of the worker's machine, where it may lie elsewhere
        if _identity(folder, key) != identity:
            raise VoiceError(f"{folder}: another watermark than that of the job", "have one version on all machines")
        self._finder, self._storage = Finder(folder, key), storage

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Write the file of a task: `index`, `print` and `clips`."""
        index, clips = int(task["index"]), [SourceClip(**clip) for clip in task["clips"]]
        journal = journal_of(self._storage, index, clips)
        rows = [_row(clip, found) for clip, found in tried(clips, journal, self._look)]
        note = {
            "print": task["print"],
            "rows": len(rows),
            "marked": sum(row["marked"] is True for row in rows),
            "own_key": sum(row["own_key"] is True for row in rows),
            "unmarked": sum(row["marked"] is False for row in rows),
            "unreadable": sum(row["marked"] is None for row in rows),
            "seconds": round(sum(row["seconds"] or 0.0 for row in rows), 3),
        }
        self._storage.write(shard_name(KIND, index), _bytes(rows, note))
        journal.close()
        return {"index": index, "note": note}

    def _look(self, clip: SourceClip, audio: bytes | str) -> dict[str, Any]:
        return self._finder.told_of(audio, longest_s=LONGEST_S)


def _row(clip: SourceClip, found: dict[str, Any] | AudioError) -> dict[str, Any]:
    row = {"id": clip.id, "file": clip.path, "row": clip.row if clip.row >= 0 else None}
    if isinstance(found, AudioError):
        return {**row, "marked": None, "own_key": None, "seconds": None, "error": found.message}
    spans = [{"begin_s": begin, "end_s": end} for begin, end in found["spans_s"]]
    told = {name: found[name] for name in ("marked", "own_key", "score", "share", "number", "seconds")}
    return {**row, **told, "spans": spans, "error": None}


def _bytes(rows: list[dict[str, Any]], note: dict[str, Any]) -> bytes:
    """Return the Parquet file; what is not known of a sound is null."""
    import pyarrow as pa

    span = pa.struct([("begin_s", pa.float64()), ("end_s", pa.float64())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("file", pa.string()),
            ("row", pa.int64()),  # in a Parquet file
            ("marked", pa.bool_()),
            ("own_key", pa.bool_()),  # the mark is that of the key, not the public one
            ("score", pa.float64()),
            ("share", pa.float64()),
            ("spans", pa.list_(span)),
            ("number", pa.int32()),
            ("seconds", pa.float64()),
            ("error", pa.string()),
        ]
    )
    return parquet_bytes(pa.Table.from_pylist(rows, schema), note)
