"""`flowtts voices`: the voices that come with the package, saved here, or in the folders given; `add` saves a clone."""

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
        description="List the bundled voices, those saved here and those in the folders given: language, licence, size and"
        " scores. With --samples, speak one text with each of them and write a page to listen and compare. `flowtts voices add"
        " NAME` saves a recording under a name, for a voice that imitates; NAME is then a voice for every command.",
        epilog="examples:\n  flowtts voices voices/\n  flowtts voices voices/ --samples -o voices.html\n"
        '  flowtts voices add ann --clone ann.wav --ref-text "What Ann says." --voice voices/f5 --consent "Ann, 2026-05-01"\n'
        "  flowtts voices add ann --clone ann.wav --style calm=calm.wav --style lively=lively.wav --voice voices/f5\n"
        '  flowtts say "Good evening." --voice ann --style calm',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER | add NAME",
        help="voice folders, or folders of voice folders; or add and a name, to save a clone",
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    group = parser.add_argument_group("listening")
    group.add_argument("--samples", action="store_true", help="write a page on which each voice speaks one text")
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the page (default: voices.html); of add, the clone's folder (default: this user's own voices)",
    )
    group.add_argument("--text", help="what they say (default: two sentences of English)")
    group.add_argument("--language", help="of the text, for voices of several languages")
    group.add_argument("--all-speakers", action="store_true", help="each speaker of voices with several, not the first")
    _add_saving(parser.add_argument_group("saving a clone (flowtts voices add NAME)"))
    parser.set_defaults(run=run)


def _add_saving(group: Any) -> None:
    from jobs.request_options import add_clone_options

    group.add_argument("--voice", help="the voice that imitates: a name, a folder or hf://owner/name")
    group.add_argument(
        "--clone", dest="prompt", metavar="FILE", help="the recording: 3 to 12 s of one person, without music or noise"
    )
    group.add_argument(
        "--ref-text",
        dest="prompt_text",
        metavar="TEXT",
        help="what is said in it, word for word (default: it is transcribed)",
    )
    group.add_argument(
        "--style",
        metavar="STYLE=FILE",
        action="append",
        default=[],
        help="the same person in another manner, which a request asks for by --style STYLE; may be given again",
    )
    group.add_argument(
        "--style-text",
        metavar="STYLE=TEXT",
        action="append",
        default=[],
        help="what is said in the recording of a style (default: it is transcribed)",
    )
    add_clone_options(group)
    group.add_argument("--overwrite", action="store_true", help="replace the clone of that name")


def run(args: argparse.Namespace) -> int:
    from flowtts_core.voice.card import DEFAULT_VOICE, FLITE, bundled_voices, find_voice, own_voices

    if [str(folder) for folder in args.folders[:1]] == ["add"]:
        return _add(args)
    _refuse_saving_options(args)
    known = {**own_voices(), **bundled_voices()}
    rows = [describe(path, name, name == DEFAULT_VOICE) for name, path in known.items()]
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


def _refuse_saving_options(args: argparse.Namespace) -> None:
    from flowtts_core.errors import ConfigError

    given = ("voice", "prompt", "prompt_text", "style", "style_text", "asr", "consent", "overwrite")
    if any(getattr(args, name) for name in given):
        raise ConfigError("these options save a clone", "write: flowtts voices add NAME --clone FILE --voice VOICE")


def _add(args: argparse.Namespace) -> int:
    """Save a clone under a name."""
    from flowtts_core.errors import ConfigError
    from flowtts_core.voice.card import load_card
    from flowtts_core.voice.clone import save_clone
    from jobs.request_options import prepared_clone

    names = [str(name) for name in args.folders[1:]]
    if len(names) != 1:
        raise ConfigError("one name is wanted", "write: flowtts voices add NAME --clone FILE --voice VOICE")
    files = {"": args.prompt} if args.prompt is not None else {}
    files |= _by_style(args.style, "--style STYLE=FILE")
    texts: dict[str, str | None] = {"": args.prompt_text, **_by_style(args.style_text, "--style-text STYLE=TEXT")}
    if not files or args.voice is None:
        raise ConfigError("a recording and a voice that imitates are wanted", "give --clone FILE and --voice VOICE")
    if unknown := sorted(texts.keys() - files.keys() - {""}):
        raise ConfigError(f"--style-text {unknown[0]}: no such style", "give its recording too: --style STYLE=FILE")
    language = next(iter(load_card(args.voice).languages), "en")
    prepared = {style: prepared_clone(file, texts.get(style), args.asr, language) for style, file in files.items()}
    told = {style: found.provenance(files[style], args.consent) for style, found in prepared.items()}
    folder, card = save_clone(names[0], args.voice, prepared, told, args.output, overwrite=args.overwrite)
    if args.json:
        print(json.dumps({**describe(folder, card.name, False), "references": told}, ensure_ascii=False))
    else:
        name = card.name if args.output is None else folder
        print(f'saved in {folder}; speak with it: flowtts say "Hello." --voice {name}')
    return 0


def _by_style(given: list[str], form: str) -> dict[str, str]:
    from flowtts_core.errors import ConfigError

    found: dict[str, str] = {}
    for text in given:
        style, equals, value = text.partition("=")
        if not (style and equals and value) or style in found:
            raise ConfigError(f"{text!r}: not as {form}, or given twice", "for example --style calm=calm.wav")
        found[style] = value
    return found


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
        page = args.output or Path("voices.html")
        write_page(page, samples, text)
    except OSError as error:
        raise OutputError(f"cannot write {page}: {error.strerror or error}", "choose another -o") from error
    print(f"listen: {page}")
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
            f"{row['kind']}: {' + '.join(filter(None, row['parts'].values()))}, {row['sample_rate']} Hz",
            str(len(row["speakers"]) or 1),
            WORD_TIMES[row["word_times"]],
            str(row["size_mb"]),
            row["licence"] or "not stated",
            "\n".join(scores_of(row["figures"])),
        )
        table.add_row(label, *(escape(cell) for cell in cells))
    Console().print(table)
