"""Render the report of a synthesis job: one HTML page with totals, players, outliers, settings and machine."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.plan import StoredPlan
from cluster.storage import Storage
from jobs.synthesis.audiobook import CHAPTERS
from jobs.synthesis.dataset_card import in_words
from jobs.synthesis.manifest import manifest_batches
from jobs.synthesis.summary import Summary
from jobs.templates import fill

_OUTLIERS = 12
_LOOKED_AT, _ASIDE_SHOWN = 50_000, 1000
_SHORT = 12  # units of fewer characters vary too much in pace to be suspicious


def render(summary: Summary, job: dict[str, Any], storage: Storage, plan: StoredPlan) -> str:
    """Return the page. It links to the audio beside it and to nothing else. Of a large job it shows some of the rows."""
    rows, every = _rows(storage, summary)
    books = plan.notes["books"]
    book = books[0] if summary.kind == "book" and books else None
    voice = {"voice": job["voice"], "fingerprint": job["voice_fingerprint"], **job["settings"]}
    return fill(
        "synthesis.html.j2",
        summary=summary,
        title=summary.title or "Synthesis",
        book=book,
        every=every,
        tiles=_tiles(summary),
        chapters=_chapters(summary, book["chapters"], rows) if book else [],
        books=[(one["title"], one["units"], _file_of(summary, one["slug"])) for one in books[:200]],
        samples=_samples(rows),
        failed=[row for row in rows if row["status"] != "ok"],
        unverified=[row for row in rows if row["status"] == "ok" and row["verified"] is False],
        outliers=_outliers(rows),
        facts={"Voice and settings": voice, "Made by": summary.made_by},
        pace=_pace,
        in_words=in_words,
    )


def _rows(storage: Storage, summary: Summary) -> tuple[list[dict[str, Any]], int]:
    """Return the rows to show, and n where one of n is shown: all of a small job, of a large one those set aside too."""
    columns = ("id", "chapter", "text", "duration", "status", "reason", "attempts", "num_samples", "audio", "verified")
    every = max(1, summary.units // _LOOKED_AT)
    rows: list[dict[str, Any]] = []
    first = aside = 0
    for batch in manifest_batches(storage, columns):
        unverified = pc.fill_null(pc.invert(batch.column("verified")), False)
        bad = pc.or_(pc.not_equal(batch.column("status"), "ok"), unverified).to_numpy(zero_copy_only=False)
        shown = bad & (aside + np.cumsum(bad) <= _ASIDE_SHOWN) | ((first + np.arange(len(bad))) % every == 0)
        rows += batch.filter(pa.array(shown)).to_pylist()
        first, aside = first + len(bad), aside + int(bad.sum())
    return rows, every


def clock(seconds: float) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def suspicious(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the spoken rows whose seconds per character lie over 4 robust standard deviations from the median."""
    spoken = [row for row in rows if row["status"] == "ok" and len(row["text"]) >= _SHORT]
    if len(spoken) < 5:
        return []
    middle = median(map(_pace, spoken))
    # 1.4826 times the median deviation estimates a normal distribution's standard deviation
    spread = 1.4826 * median(abs(_pace(row) - middle) for row in spoken) or 1e-9
    scored = [{**row, "pace": _pace(row), "score": (_pace(row) - middle) / spread} for row in spoken]
    return sorted((row for row in scored if abs(row["score"]) > 4), key=lambda row: -abs(row["score"]))


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return a large figure, what it says and its class, for each tile."""
    speed = summary.seconds / summary.compute_s if summary.compute_s else 0.0
    tiles = [
        (clock(summary.seconds), "of audio", ""),
        (str(summary.ok), "sentences spoken" if summary.kind == "book" else "rows spoken", ""),
        (str(summary.failed), "set aside", "warn" if summary.failed else "ok"),
        *([(str(summary.in_part), f"not spoken in full: {summary.most_dropped}", "warn")] if summary.in_part else []),
        (f"{summary.rtf:.3f}", f"real-time factor per core ({speed:.0f}x)", ""),
        (clock(summary.wall_s), f"this run, {summary.shards_resumed} of {summary.shards} shards were there", ""),
        *((f"{value:.3g}", f"{name} on average", "") for name, value in summary.scores.items()),
    ]
    if summary.unverified or summary.spoken_again:
        tiles.append((str(summary.unverified), f"not verified; {summary.spoken_again} better in a later take", ""))
    if summary.prompts:
        kept = summary.prompts - summary.prompts_made
        tiles.append(
            (str(summary.prompts_made), f"prompts' features made; {kept} more utterances took what was kept", "")
        )
    if summary.loudness_lufs is not None:
        tiles.append((f"{summary.loudness_lufs:.1f}", "LUFS", ""))
    return tiles


def _file_of(summary: Summary, slug: str) -> str:
    """Return the file that holds a whole book of several, "" where none of it could be spoken."""
    own = (name for name in summary.files if name.startswith(f"books/{slug}/") and "/chapters/" not in name)
    return next(own, "")


def _chapters(summary: Summary, titles: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    audio = [name for name in summary.files if name.startswith(f"{CHAPTERS}/") and not name.endswith((".srt", ".vtt"))]
    files = {int(name.split("/")[1].split(" ")[0]): name for name in audio}
    by_number: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_number.setdefault(row["chapter"], []).append(row)
    return [
        {
            "number": number,
            "title": titles[number - 1],
            "speech": clock(sum(row["duration"] for row in own)),
            "sentences": len(own),
            "failed": sum(row["status"] != "ok" for row in own),
            "file": files.get(number),
        }
        for number, own in by_number.items()
    ]


def _samples(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ten rows, evenly spread, whose audio is a file of its own and can be played."""
    spoken = [row for row in rows if row["status"] == "ok" and row["audio"] and "#" not in row["audio"]]
    return spoken[:: max(1, len(spoken) // 10)][:10]


def _outliers(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    spoken = [row for row in rows if row["status"] == "ok"]
    return {
        "Longest": sorted(spoken, key=lambda row: -row["duration"])[:5],
        "Slowest": sorted((row for row in spoken if len(row["text"]) >= _SHORT), key=_pace, reverse=True)[:5],
        "Suspicious pace": suspicious(rows)[:_OUTLIERS],
    }


def _pace(row: dict[str, Any]) -> float:
    """Return the seconds per character of a row."""
    return float(row["duration"] / max(1, len(row["text"])))
