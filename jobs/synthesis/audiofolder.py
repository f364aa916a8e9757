"""The `audio/metadata.jsonl` of a corpus of files, which the datasets library's audiofolder reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

FOLDER = "audio"
METADATA = f"{FOLDER}/metadata.jsonl"

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "text", "voice", "speaker")),
        ("seed", pa.int64()),
        ("duration", pa.float64()),
        *((name, pa.string()) for name in ("sha256", "model", "licence", "job")),
    ]
)
"""A line, but for its `file_name`; words, phonemes and scores stand in the manifest."""


def metadata_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a line for each row of the manifest whose audio is a file in `audio/`, in the manifest's order."""
    lines = []
    for row in rows:
        folder, _, name = str(row.get("audio") or "").partition("/")
        if row.get("status") == "ok" and folder == FOLDER and name:
            # never null: a column of nulls alone has no type
            said = {field.name: row.get(field.name) or _empty(field.type) for field in SCHEMA}
            lines.append(json.dumps({"file_name": name, **said}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _empty(kind: pa.DataType) -> str | int:
    return "" if pa.types.is_string(kind) else 0
