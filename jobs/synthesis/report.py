"""The report of a synthesis job: one self-contained HTML page with totals, players, outliers, settings and machine."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.plan import StoredPlan
from cluster.storage import Storage
from jobs.synthesis.audiobook import CHAPTERS
from jobs.synthesis.dataset_card import in_words
from jobs.synthesis.manifest import manifest_batches
from jobs.synthesis.summary import Summary

_OUTLIERS = 12
_LOOKED_AT, _ASIDE_SHOWN = 50_000, 1000
_SHORT = 12  # units of fewer characters vary too much in pace to be suspicious
STYLE = """
:root{color-scheme:light dark;--fg:#1d2430;--soft:#5b6676;--bg:#fff;--card:#f3f5f8;--line:#d9dee6;--warn:#a33a00;
--mark:#2256b0}
@media(prefers-color-scheme:dark){:root{--fg:#e8ecf2;--soft:#a3afbf;--bg:#12161c;--card:#1c222b;--line:#333d4a;
--warn:#ffab70;--mark:#8db8ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 16px 64px;max-width:1120px;font:16px/1.5 system-ui,sans-serif;color:var(--fg);
background:var(--bg)}
h1{font-size:1.7rem;line-height:1.2;margin:0}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0}
a{color:var(--mark)}
.soft{color:var(--soft)}
.warn{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;margin:1.2rem 0}
.tile{background:var(--card);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:1.35rem}
.tile span{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:middle}
th{color:var(--soft);font-weight:600;font-size:.85rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n{text-align:right}
.text{overflow-wrap:anywhere}
audio{width:260px;height:36px;max-width:100%}
@media(max-width:640px){audio{width:100%}thead{display:none}tr{display:block;padding:8px 0;
border-bottom:1px solid var(--line)}td{display:block;border:0;padding:2px 0}td.n{text-align:left}
td[data-k]::before{content:attr(data-k) ": ";color:var(--soft);font-size:.85rem}}
"""


def render(summary: Summary, job: dict[str, Any], storage: Storage, plan: StoredPlan) -> str:
    """The page; it refers to the audio by relative links and to nothing else. Of a large job it looks at some rows."""
    rows, every = _rows(storage, summary)
    books = plan.notes["books"]
    only = books[0] if summary.kind == "book" and books else None
    title = _text(summary.title or "Synthesis")
    author = f"<p class=soft>{_text(only['author'])}</p>" if only and only["author"] else ""
    parts = [
        f"<h1>{title}</h1>{author}",
        _tiles(summary),
        _main_player(summary),
        _chapters(summary, only["chapters"], rows) if only else _books(summary, books) + _samples(rows),
        _quarantine(summary, rows),
        f"<p class=soft>What follows looks at one of {every} rows.</p>" if every > 1 else "",
        _outliers(rows),
        _facts(
            "Voice and settings", {"voice": job["voice"], "fingerprint": job["voice_fingerprint"], **job["settings"]}
        ),
        _facts("Made by", summary.made_by),
        _notes(summary.notes),
    ]
    head = (
        f'<meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1"><title>{title}</title>'
    )
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _rows(storage: Storage, summary: Summary) -> tuple[list[dict[str, Any]], int]:
    """Rows to show and how many each stands for: all of a small job; of a large one every so many, and what was set aside."""
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


def _books(summary: Summary, books: Sequence[dict[str, Any]]) -> str:
    lines = []
    for book in books[:200]:
        names = [
            name for name in summary.files if name.startswith(f"books/{book['slug']}/") and "/chapters/" not in name
        ]
        player = _player(names[0]) if names else "<span class=warn>nothing could be spoken</span>"
        lines.append([("", f"<b>{_text(book['title'])}</b>"), ("sentences", str(book["units"])), ("", player)])
    return "<h2>Books</h2>" + _table(("book", "sentences", ""), lines) if lines else ""


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def suspicious(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spoken rows whose seconds per character are over 4 (robust) standard deviations from the median."""
    spoken = [row for row in rows if row["status"] == "ok" and len(row["text"]) >= _SHORT]
    if len(spoken) < 5:
        return []
    paces = [row["duration"] / len(row["text"]) for row in spoken]
    middle = median(paces)
    spread = (
        1.4826 * median(abs(pace - middle) for pace in paces) or 1e-9
    )  # 1.4826 makes it a standard deviation's size
    scored = [{**row, "pace": pace, "score": (pace - middle) / spread} for row, pace in zip(spoken, paces, strict=True)]
    return sorted((row for row in scored if abs(row["score"]) > 4), key=lambda row: -abs(row["score"]))


def _tiles(summary: Summary) -> str:
    failed = f"<b class={'warn' if summary.failed else 'ok'}>{summary.failed}</b>"
    speed = summary.seconds / summary.compute_s if summary.compute_s else 0.0
    tiles = [
        (f"<b>{clock(summary.seconds)}</b>", "of audio"),
        (f"<b>{summary.ok}</b>", "sentences spoken" if summary.kind == "book" else "rows spoken"),
        (failed, "set aside"),
        (f"<b>{summary.rtf:.3f}</b>", f"real-time factor per core ({speed:.0f}x)"),
        (
            f"<b>{clock(summary.wall_s)}</b>",
            f"this run, {summary.shards_resumed} of {summary.shards} shards were there",
        ),
    ]
    tiles += [(f"<b>{value:.3g}</b>", f"{name} on average") for name, value in summary.scores.items()]
    if summary.unverified or summary.spoken_again:
        tiles.append((f"<b>{summary.unverified}</b>", f"not verified; {summary.spoken_again} better in a later take"))
    if summary.loudness_lufs is not None:
        tiles.append((f"<b>{summary.loudness_lufs:.1f}</b>", "LUFS"))
    return (
        "<div class=tiles>"
        + "".join(f"<div class=tile>{big}<span>{_text(small)}</span></div>" for big, small in tiles)
        + "</div>"
    )


def _main_player(summary: Summary) -> str:
    if summary.kind != "book" or not summary.files:
        return ""
    book = summary.files[0]
    links = [name for name in summary.files if "/" not in name]
    return f"<p>{_player(book)}</p><p class=soft>" + ", ".join(_link(name) for name in links) + "</p>"


def _chapters(summary: Summary, titles: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    by_number: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_number.setdefault(row["chapter"], []).append(row)
    names = {
        _number(name): name
        for name in summary.files
        if name.startswith(f"{CHAPTERS}/") and not name.endswith((".srt", ".vtt"))
    }
    lines = []
    for number, own in by_number.items():
        seconds = sum(row["duration"] for row in own)
        failed = sum(row["status"] != "ok" for row in own)
        player = _player(names[number]) if number in names else ""
        title = titles[number - 1]
        counts = [("speech", clock(seconds)), ("sentences", str(len(own))), ("set aside", str(failed))]
        lines.append([("", f"<b>{number}. {_text(title)}</b>"), *counts, ("", player)])
    return "<h2>Chapters</h2>" + _table(("chapter", "speech", "sentences", "set aside", ""), lines)


def _number(name: str) -> int:
    return int(name.split("/")[1].split(" ")[0])


def _samples(rows: Sequence[dict[str, Any]]) -> str:
    spoken = [
        row for row in rows if row["status"] == "ok" and row["audio"] and "#" not in row["audio"]
    ]  # files can be played
    picked = spoken[:: max(1, len(spoken) // 10)][:10]
    return (
        "<h2>Samples</h2>" + _table(("id", "text", ""), [_unit_line(row, _player(row["audio"])) for row in picked])
        if picked
        else ""
    )


def _quarantine(summary: Summary, rows: Sequence[dict[str, Any]]) -> str:
    """What was set aside, and what a book kept though no take was verified."""
    parts = []
    failed = [row for row in rows if row["status"] != "ok"]
    if summary.failed:
        reasons = "".join(f"<li>{count} x {_text(reason)}</li>" for reason, count in list(summary.reasons.items())[:10])
        parts.append(f"<h2 class=warn>Set aside</h2><ul>{reasons}</ul>{_aside(failed)}")
    kept = [row for row in rows if row["status"] == "ok" and row["verified"] is False]
    if kept:
        parts.append(f"<h2 class=warn>Not verified, kept</h2>{_aside(kept)}")
    return "".join(parts)


def _aside(rows: Sequence[dict[str, Any]]) -> str:
    some = rows[:50]
    table = _table(("id", "text", "reason"), [_unit_line(row, _text(row["reason"])) for row in some])
    return f"{table}<p class=soft>{len(some)} of {len(rows)}; all are in quarantine.jsonl.</p>"


def _outliers(rows: Sequence[dict[str, Any]]) -> str:
    spoken = [row for row in rows if row["status"] == "ok"]
    longest = sorted(spoken, key=lambda row: -row["duration"])[:5]
    slowest = sorted(
        (row for row in spoken if len(row["text"]) >= _SHORT), key=lambda row: -row["duration"] / len(row["text"])
    )[:5]
    odd = suspicious(rows)[:_OUTLIERS]
    parts = []
    for title, picked in (("Longest", longest), ("Slowest", slowest), ("Suspicious pace", odd)):
        lines = [_unit_line(row, _pace(row)) for row in picked]
        parts.append(
            f"<h2>{title}</h2>" + (_table(("id", "text", "pace"), lines) if lines else "<p class=soft>none</p>")
        )
    return "".join(parts)


def _pace(row: dict[str, Any]) -> str:
    return f"{row['duration']:.1f} s, {1000 * row['duration'] / max(1, len(row['text'])):.0f} ms/character"


def _unit_line(row: dict[str, Any], last: str) -> list[tuple[str, str]]:
    text = row["text"] if len(row["text"]) <= 180 else row["text"][:177] + "..."
    return [
        ("", f"<span class=soft>{_text(row['id'])}</span>"),
        ("", f"<span class=text>{_text(text)}</span>"),
        ("", last),
    ]


def _facts(title: str, facts: dict[str, Any]) -> str:
    lines = [[("", f"<span class=soft>{_text(key)}</span>"), ("", f"<span class=text>{_text(in_words(value))}</span>")]
             for key, value in facts.items() if value not in (None, "")]  # fmt: skip
    return f"<h2>{title}</h2>" + _table(("", ""), lines)


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if items else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Rows of (label for the narrow form, HTML); a label marks a number."""
    numbers = {key for line in lines for key, _ in line if key}
    heads = "".join(f"<th{' class=n' if name in numbers else ''}>{_text(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td class=n data-k="{key}">{cell}</td>' if key else f"<td>{cell}</td>" for key, cell in line)
        + "</tr>"
        for line in lines
    )
    return f"<div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _player(name: str) -> str:
    return f'<audio controls preload=none src="{_text(quote(name))}"></audio>'


def _link(name: str) -> str:
    return f'<a href="{_text(quote(name))}">{_text(name)}</a>'


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
