"""Proves that a folder of codes is whole: each sound of the job once, in its file or set aside, and codes that can be decoded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import OutputError
from jobs.codecs.corpus import CARD, QUARANTINE
from jobs.corpus.shards import NOTE, PARQUET

if TYPE_CHECKING:
    from cluster.storage import Storage

_ROWS = 256  # that are looked at together


@dataclass
class TokenAudit:
    """What was found.

    Attributes:
        sounds, set_aside: that stand in the files, and in the quarantine.
        findings: what is wrong, each named with its file; empty where all is whole.
    """

    sounds: int = 0
    set_aside: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.findings


def has_tokens(storage: Storage) -> bool:
    """Tell whether a place is one of codes, finished or not."""
    return any(name == CARD or (name.startswith("tokens-") and name.endswith(PARQUET)) for name in storage.list())


def audit_tokens(storage: Storage, told: Callable[[int, int], None] = lambda done, total: None) -> TokenAudit:
    """Look at each row of a folder that `encode_corpus` made.

    Raises:
        OutputError: where the card is no record of ours.
    """
    if not storage.exists(CARD):
        return TokenAudit(findings=[f"{CARD}: missing, so the job did not end"])
    try:
        card = json.loads(storage.read(CARD))
        files, sizes, codec = list(card["files"]), list(card["codebooks"]), card["codec"]
        rate = card["sample_rate"] / card["frame_rate"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{storage.path(CARD)}: not a card of codes ({error})", "encode again") from error
    found, ids, aside = TokenAudit(), Counter[str](), list[dict[str, Any]]()
    for name in storage.list():
        if name.endswith(PARQUET) and name not in files:
            found.findings.append(f"{name}: {CARD} does not name it")
    for name in files:
        try:
            rows, note = 0, dict[str, Any]()
            for row, noted in _rows(storage, name):
                rows, note = rows + bool(row), noted
                if row:
                    ids[row["id"]] += 1
                    found.findings += [f"{name}: {row['id']}: {wrong}" for wrong in _wrong(row, sizes, rate)]
        except Exception as error:  # damaged Parquet can make its reader raise anything
            found.findings.append(f"{name}: missing or damaged ({type(error).__name__}: {error})")
            continue
        if note["codec"] != codec:
            found.findings.append(f"{name}: of the codec {note['codec']}, not of {codec}")
        if note["rows"] != rows:
            found.findings.append(f"{name}: has {rows} sounds, and noted {note['rows']}")
        found.sounds += rows
        aside += note["set_aside"]
        told(found.sounds, card["sounds"])
    found.set_aside = len(aside)
    ids.update(entry["id"] for entry in aside)
    found.findings += [f"{name}: {count} times" for name, count in ids.items() if count > 1]
    if (found.sounds, found.set_aside) != (card["sounds"], card["set_aside"]):
        told_of = f"{card['sounds']} sounds and {card['set_aside']} set aside"
        found.findings.append(f"{CARD}: tells of {told_of}; there are {found.sounds} and {found.set_aside}")
    listed = storage.read(QUARANTINE).decode().splitlines() if storage.exists(QUARANTINE) else None
    if listed is None or [json.loads(line) for line in listed] != aside:
        found.findings.append(f"{QUARANTINE}: is not what the files noted")
    return found


def _rows(storage: Storage, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each row with the file's own record, and at last the record alone."""
    import pyarrow.parquet as pq

    with storage.open(name) as file, pq.ParquetFile(file) as opened:
        note: dict[str, Any] = json.loads(opened.schema_arrow.metadata[NOTE])
        for batch in opened.iter_batches(_ROWS):
            for row in batch.to_pylist():
                yield row, note
        yield {}, note


def _wrong(row: dict[str, Any], sizes: list[int], hop: float) -> Iterator[str]:
    """Yield what keeps a row from being decoded."""
    frames = row["codes"]
    if not frames or any(len(frame) != len(sizes) for frame in frames):
        yield f"codes are not frames of {len(sizes)}"
    elif any(not 0 <= code < size for frame in frames for code, size in zip(frame, sizes, strict=True)):
        yield "codes beyond the codebooks"
    elif not 0 < row["samples"] <= len(frames) * hop + 1:
        yield f"{row['samples']} samples of {len(frames)} frames"
