"""The pages of `flowtts benchmark codecs`: Markdown with its tables, and HTML with players."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.benchmarks import vocoders_page
from jobs.benchmarks.vocoders import RECORDINGS
from jobs.benchmarks.vocoders_page import Column, missing, quality_table

PAGE = "codecs-measured.md"
COLUMNS: tuple[Column, ...] = (
    ("pesq", "PESQ", 1, 2),
    ("stoi", "STOI", 1, 3),
    ("naturalness", "naturalness", 1, 2),
    ("mos_p808", "P.808", 1, 2),
    ("mel_l1", "mel L1, nats", 1, 3),
    ("secs", "speaker similarity", 1, 3),
    ("wer", "WER, %", 100, 1),
)


def page(figures: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    machine, busy = figures["machine"], figures["busy"]["others_cores"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if version)
    systems = figures["systems"]
    names = [system["name"] for system in systems]
    sets = "\n\n".join(
        f"### {name}: {rows[RECORDINGS]['n']} clips\n\n{quality_table(rows, [RECORDINGS, *names], COLUMNS)}"
        f"{missing(rows, names, COLUMNS)}"
        for name, rows in figures["sets"].items()
    )
    words = f"; WER is {figures['asr']}'s against what it hears in the recording" if figures["asr"] else ""
    return f"""# Codecs side by side

Made by `flowtts benchmark codecs`: copies of held-out recordings through each codec. A cell has the mean over clips and its
interval of 95 % (bootstrap over clips). PESQ, STOI and mel L1 are measured at 16 kHz; naturalness is DistillMOS, P.808 is
DNSMOS, speaker similarity the cosine of Resemblyzer's vectors of copy and recording{words}.

## Rates and cost

The first row of a codec of ours is the lecture's challenge: {systems[0]["challenge"]["samples"]:,} samples are
{systems[0]["challenge"]["tokens"]} tokens of {systems[0]["name"]}, and {systems[0]["challenge"]["back"]:,} samples come back.
RTF is seconds of computing by second of sound on one thread. Perplexity and use of codebooks are over all clips
together: from the first codebook to the last.

{cost_table(systems)}

## Quality

{sets}

Measured on {machine.get("cores")} cores of {machine.get("processor")}; others kept {busy or 0:.1f} cores busy; {versions}.
"""


def cost_table(systems: Sequence[dict[str, Any]]) -> str:
    """Return the table of rates, speeds and codebooks."""
    heads = [
        "kbit/s", "tokens a second", "second of sound", "perplexity", "codes used, %", "RTF, encode", "RTF, decode",
        "first chunk, ms", "parameters, M",
    ]  # fmt: skip
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for one in systems:
        cells = [f"{one['bits_per_second'] / 1000:.2f}", "", "", "", ""]
        if "challenge" in one:
            made, chunk = one["challenge"], one["first_chunk"]
            cells = [
                cells[0],
                f"{one['tokens_per_second']:g}",
                f"{made['samples']:,} samples, {made['tokens']} tokens, {made['back']:,} samples",
                _range(one["perplexity"], 1),
                _range(one["used"], 100),
            ]
            first = "whole sounds" if chunk is None else f"{1000 * (chunk['sound_s'] + chunk['computing_s']):.0f}"
        else:
            first = ""
        speeds = ["" if one[f"{part}_rtf"] is None else f"{one[f'{part}_rtf']:.4f}" for part in ("encode", "decode")]
        size = f"{one['parameters'] / 1e6:.2f}" if "parameters" in one else ""
        lines.append(f"| {one['name']} | {' | '.join([*cells, *speeds, first, size])} |")
    return "\n".join(lines)


def _range(values: Sequence[float], scale: float) -> str:
    shown = [f"{scale * value:.0f}" for value in values]
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"


def write(folder: Path, figures: dict[str, Any]) -> Path:
    """Write the page; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page(figures), encoding="utf-8")
    return folder / PAGE


def write_players(path: Path, figures: dict[str, Any], sounds: Sequence[dict[str, Path]]) -> None:
    """Write an HTML page with the table and players, as that of vocoders."""
    vocoders_page.write_players(path, figures, sounds, COLUMNS, "codec")
