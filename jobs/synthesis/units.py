"""The units of a synthesis job, and the Arrow schemas of their rows in the plan and in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster.plan import Rows
from flowtts_core.request import REQUEST_FIELDS, PromptClip, SynthesisRequest

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), PromptClip: pa.string()}  # of a clip its digest
_SETTINGS = [(name, _ARROW[f.kind]) for name, f in REQUEST_FIELDS.items()]
_SAMPLING = tuple(name for name, f in REQUEST_FIELDS.items() if f.kind in (int, float) and name != "seed")


@dataclass(slots=True)  # not frozen: making a frozen one takes five times as long, and a job has millions
class Unit:
    """One sentence of a book or one row of a corpus. Never changed in place.

    Attributes:
        source: the book (its short name) or table that it comes from; empty where the job has one alone.
        chapter: number in the book, from 1; 0 in a corpus.
        index: place in its chapter or corpus, from 0.
        voice: its own; None takes the job's.
        file: name of its audio file in a corpus, without suffix; empty in a book.
        cue_start, cue_end: of subtitles, the seconds between which they show it.
        error: why it cannot be spoken, known before synthesis (an unreadable row); empty otherwise.
        settings: fields of `SynthesisRequest` of its own, the seed always; others take the job's. A prompt is its clip's path,
            or the clip; in a stored plan its digest.
    """

    id: str
    text: str
    source: str = ""
    chapter: int = 0
    index: int = 0
    role: str = "sentence"
    pause_s: float = 0.0
    cue_start: float | None = None
    cue_end: float | None = None
    voice: str | None = None
    file: str = ""
    error: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))


_COLUMNS = (
    *("id", "text", "source", "chapter", "index", "role", "pause_s", "cue_start", "cue_end", "voice", "file", "error"),
)

PLAN_SCHEMA = pa.schema(
    [
        ("order", pa.int64()),  # place in the job, from 0
        ("id", pa.string()),
        ("source", pa.string()),
        ("chapter", pa.int32()),
        ("index", pa.int32()),
        ("text", pa.string()),
        ("role", pa.string()),
        ("pause_s", pa.float64()),
        ("cue_start", pa.float64()),
        ("cue_end", pa.float64()),
        ("voice", pa.string()),
        *_SETTINGS,
        ("file", pa.string()),
        ("error", pa.string()),
        ("fingerprint", pa.string()),  # of all that the row's sound depends on
    ]
)
"""A row of the plan."""

PLAN_ROWS = Rows(PLAN_SCHEMA, sized_by="text", shared=("voice", *_SAMPLING), windowed="chapter")

_WORD = pa.struct(
    [
        ("word", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("start_s", pa.float32()),
        ("end_s", pa.float32()),
    ]
)
_SCORE = pa.struct([("name", pa.string()), ("value", pa.float64())])

MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),  # the book or table that it comes from
        ("chapter", pa.int32()),  # 1, 2, ... in a book; 0 for rows of a corpus
        ("index", pa.int32()),  # place in the chapter or corpus, from 0
        ("text", pa.string()),
        ("cue_start", pa.float64()),  # of subtitles: when they show it, in seconds; else null
        ("cue_end", pa.float64()),
        ("voice", pa.string()),
        *_SETTINGS,  # as they were asked for; null: the voice's own
        ("model", pa.string()),  # fingerprint of the voice that spoke
        ("licence", pa.string()),  # of the voice
        ("job", pa.string()),  # the job that made it
        ("fingerprint", pa.string()),  # of all that the sound depends on: text, voice, seed, settings
        ("audio", pa.string()),  # where: "shards/00003.parquet#17" (row) or "audio/x.flac"; null for a failed row
        ("sha256", pa.string()),  # of the FLAC bytes
        ("sample_rate", pa.int32()),
        ("num_samples", pa.int64()),
        ("duration", pa.float64()),  # seconds
        ("words", pa.list_(_WORD)),  # null where the voice knows no durations
        ("phonemes", pa.string()),
        ("dropped", pa.list_(pa.string())),  # what of the text was not spoken; null: nothing
        ("notes", pa.list_(pa.string())),  # what was done to its prompt, or is odd about it; null: nothing
        ("watermark", pa.int64()),  # the number that its mark says; null: no mark was put into it
        ("status", pa.string()),  # "ok" or "failed"
        ("reason", pa.string()),  # why it failed
        ("attempts", pa.int32()),
        ("takes", pa.int32()),  # which reading this is: 1, or more where a gate had it spoken again
        ("verified", pa.bool_()),  # whether it kept the gate's bounds; null without a gate
        ("scores", pa.list_(_SCORE)),  # what the gate measured of it; the datasets library knows no maps
    ]
)
"""A row of the manifest."""

SHARD_SCHEMA = MANIFEST_SCHEMA.append(pa.field("flac", pa.binary()))
"""A row of a shard: the manifest's and the audio itself (null where the audio is a file of its own)."""


def plan_row(unit: Unit, fingerprint: str) -> tuple[Any, ...]:
    """Return a unit's values of `PLAN_ROWS.columns`."""
    own = unit.settings
    return (
        *(unit.id, unit.source, unit.chapter, unit.index, unit.text, unit.role, unit.pause_s),
        *(unit.cue_start, unit.cue_end, unit.voice),
        *(own.get(name) for name in REQUEST_FIELDS),
        *(unit.file, unit.error, fingerprint),
    )


def units_of(table: pa.Table) -> list[Unit]:
    """Return the rows of a plan, or of a shard, as units; columns that it lacks keep their defaults."""
    names = [name for name in _COLUMNS if name in table.column_names]
    columns = [table.column(name).to_pylist() for name in names]
    given = [
        name for name in REQUEST_FIELDS if name in table.column_names and table.column(name).null_count < len(table)
    ]
    settings = (
        zip(*(table.column(name).to_pylist() for name in given), strict=True) if given else iter([()] * len(table))
    )
    return [
        Unit(**dict(zip(names, values, strict=True)), settings=_set(given, own))
        for *values, own in zip(*columns, settings, strict=True)
    ]


def _set(names: list[str], values: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def request_of(unit: Unit, job: Mapping[str, Any], clips: Mapping[str, PromptClip], **changed: Any) -> SynthesisRequest:
    """Return what a unit asks of its voice: its own settings, else the job's; a prompt's digest becomes its clip.

    Args:
        changed: fields that go before both.
    """
    settings = {**job, **unit.settings, **changed}
    if "prompt" in settings:
        settings["prompt"] = clips[settings["prompt"]]
    return SynthesisRequest(text=unit.text, **settings)
