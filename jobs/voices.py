"""`flowtts voices`: the voices that come with the package and those in the folders given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WORD_TIMES = {"model": "its own", "aligned": "aligned (English)", "none": "none"}  # of a card, for people


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "voices",
        help="list the voices",
        description="List the bundled voices and those in the folders given: language, licence, size and scores. With"
        " --samples, speak one text with each of them and write a page to listen and compare.",
        epilog="examples:\n  flowtts voices voices/\n  flowtts voices voices/ --samples -o voices.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, help="voice folders, or folders of voice folders")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    group = parser.add_argument_group("listening")
    group.add_argument("--samples", action="store_true", help="write a page on which each voice speaks one text")
    group.add_argument("-o", "--output", type=Path, default=Path("voices.html"), help="the page (default: voices.html)")
    group.add_argument("--text", help="what they say (default: two sentences of English)")
    group.add_argument("--language", help="of the text, for voices of several languages")
    group.add_argument("--all-speakers", action="store_true", help="each speaker of voices with several, not the first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.voice.card import DEFAULT_VOICE, FLITE, bundled_voices, find_voice

    bundled = bundled_voices()
    rows = [describe(path, name, name == DEFAULT_VOICE) for name, path in bundled.items()]
    for folder in args.folders:
        if str(folder).startswith(FLITE):
            rows.append(describe(find_voice(folder), str(folder), False))
        else:
            rows += [describe(path, str(path), False) for path in voice_folders(folder)]
    if args.samples:
        return _listen(args, rows)
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        show(rows)
    else:
        print("no voices: none came with this installation; make one with `flowtts train` or `flowtts import`")
    return int(any("error" in row for row in rows))


def _listen(args: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    """Write the listening page and tell of each voice."""
    from flowtts_core.errors import OutputError
    from jobs.listening import TEXT, make_samples, write_page

    text = args.text or TEXT
    samples = []
    for sample in make_samples([row["voice"] for row in rows], text, args.language, args.all_speakers):
        samples.append(sample)
        name = f"{sample.voice} {sample.speaker}".strip()
        rated = "" if sample.naturalness is None else f"naturalness {sample.naturalness:.2f} of 5, "
        print(f"{name}: {sample.error or f'{rated}{sample.rtf:.4f} s a second of speech'}", flush=True)
    try:
        write_page(args.output, samples, text)
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror or error}", "choose another -o") from error
    print(f"listen: {args.output}")
    return int(any(sample.error for sample in samples))


def voice_folders(folder: Path) -> list[Path]:
    """Return the folder itself where it is a voice or holds none, else the voices right below it."""
    from flowtts_core.voice.card import CARD

    below = sorted(card.parent for card in folder.glob(f"*/{CARD}"))
    return [folder] if (folder / CARD).exists() or not below else below


def describe(folder: Path, name: str, default: bool) -> dict[str, Any]:
    """Return what a voice's card says as JSON values; an `error` for a voice that cannot be read."""
    from flowtts_core.errors import FlowTTSError
    from flowtts_core.voice.card import load_card

    row: dict[str, Any] = {"voice": name, "default": default, "folder": str(folder)}
    try:
        card = load_card(folder)
    except FlowTTSError as error:
        return {**row, "error": error.message}
    return {
        **row,
        "name": card.name,
        "languages": list(card.languages),
        "kind": card.kind,
        "licence": card.licence,
        "source": card.source,
        "description": card.description,
        "sample_rate": card.sample_rate,
        "speakers": list(card.speakers),
        "word_times": card.word_times,
        "parts": {part: spec.get("name") for part, spec in card.parts.items()},
        "fingerprint": card.fingerprint,
        "size_mb": round(card.size_bytes(folder) / 1e6, 1),
        "figures": card.figures,
        "scores": card.scores,
    }


def scores_of(figures: dict[str, Any]) -> list[str]:
    """Return the voice's measured scores in short; --json prints the whole benchmark."""
    known = {
        "naturalness": "naturalness {:.2f}",
        "wer": "WER {:.3f}",
        "overall": "overall {:.2f}",
        "p808": "P.808 {:.2f}",
        "similarity": "similarity {:.3f}",
    }
    return [form.format(figures[name]["value"]) for name, form in known.items() if figures.get(name)]


def show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for column in ("voice", "language", "model", "speakers", "word times", "MB", "licence", "scores"):
        table.add_column(column, overflow="fold")
    for row in rows:
        label = escape(row["voice"]) + (" (default)" if row["default"] else "")
        if "error" in row:
            table.add_row(label, "", "", "", "", "", "", f"[red]{escape(row['error'])}[/red]")
            continue
        cells = (
            ", ".join(row["languages"]),
            f"{row['kind']}: {' + '.join(row['parts'].values())}, {row['sample_rate']} Hz",
            str(len(row["speakers"]) or 1),
            WORD_TIMES[row["word_times"]],
            str(row["size_mb"]),
            row["licence"] or "not stated",
            "\n".join(scores_of(row["figures"])),
        )
        table.add_row(label, *(escape(cell) for cell in cells))
    Console().print(table)
