"""The page of `flowtts benchmark judges`, from its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.benchmarks.judges_expected import DEGRADATIONS, MARGINS, WHY

_GROUPS = {
    "Words and opinions": ("wer", "cer", "mos_overall", "mos_p808", "mos_background"),
    "Voice, pitch and spectrum, along a time warp": ("secs", "f0_rmse", "voicing_error", "mcd"),
    "Against the recording, at the same time": ("mel_l1", "stft", "si_sdr", "stoi", "pesq"),
    "Shape": ("seconds", "pace", "clipped"),
    "Distances of sets": ("kad_mel", "fad_mel", "kad_speaker", "fad_speaker"),
}
_UNITS = {
    "wer": "errors per word", "cer": "errors per character", "secs": "cosine", "f0_rmse": "cents", "mcd": "dB",
    "voicing_error": "share of frames", "mel_l1": "nats", "si_sdr": "dB", "seconds": "s", "pace": "characters per s",
    "clipped": "share of samples",
}  # fmt: skip
_DIGITS = {
    "f0_rmse": 0,
    "si_sdr": 1,
    "pace": 1,
    "fad_mel": 1,
    "clipped": 4,
    "kad_speaker": 3,
    "fad_speaker": 3,
    "secs": 3,
}


def write(folder: Path, figures: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "judges.md").write_text(page(figures), encoding="utf-8")


def page(figures: dict[str, Any]) -> str:
    rows = {(row["degradation"], row["metric"]): row for row in figures["rows"]}
    expected = [row for row in rows.values() if row["expected"]]
    held = sum(row["expected"] == row["found"] for row in expected)
    tables = "\n\n".join(f"## {title}\n\n{_table(metrics, rows)}" for title, metrics in _GROUPS.items())
    machine = figures["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if version)
    return f"""# Do the judges measure what they say?

{len(figures["clips"])} recordings of one reader were damaged in known ways, one way at a time, and judged. Before the
measurement we wrote down what each figure must do: go up, go down, or stay. Of {len(expected)} such expectations {held} held.

| damage | what is done |
|---|---|
{chr(10).join(f"| {name} | {one.about} |" for name, one in DEGRADATIONS.items())}

A cell shows the figure of the damaged clips minus that of the same clips undamaged, with its interval of 95 % (bootstrap over
pairs of clips; for distances of sets, jackknife over clips). The signs ↑ ↓ = say what was expected: up, down, the same. Cells
without a sign had no expectation. "Up" and "down" hold when the whole interval lies beyond the least difference that matters,
"same" when it lies within that difference. **Bold** cells are those in which the expectation did not hold, or not surely.

Undamaged clips are compared with themselves: their SECS and STOI are 1, PESQ is 4.64, distances are 0. SI-SDR is that
at 16 kHz, and counts up to 40 dB.

{tables}

Every second clip is compared with the other clips undamaged, and the reverse. A cell shows by how much damage increases the
distance. KAD is on its own scale (not times 100). `mel` are log-mel statistics, `speaker` are Resemblyzer's embeddings.

## Expectations that did not hold

We checked the reasons given for pace and PESQ; the others are what we believe.

{_surprises(expected, undecided=False)}

## Undecided

Here the interval crosses the least difference that matters: {len(figures["clips"])} clips are too few to decide, or the
effect is about as large as that difference.

{_surprises(expected, undecided=True)}

## Telling speakers apart

{_speakers(figures["calibration"])}

Measured by `flowtts benchmark judges` on {machine.get("cores")} cores of {machine.get("processor")}, GPU:
{machine.get("gpu") or "none"};
{versions}.
"""


def _table(metrics: tuple[str, ...], rows: dict[tuple[str, str], Any]) -> str:
    heads = [f"{metric}{f' ({_UNITS[metric]})' if metric in _UNITS else ''}" for metric in metrics]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(metrics) + 1) + "|"]
    lines.append(f"| *least difference that matters* | {' | '.join(f'{MARGINS[metric]:g}' for metric in metrics)} |")
    for name in DEGRADATIONS:
        cells = [_cell(rows.get((name, metric)), _DIGITS.get(metric, 2)) for metric in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None, digits: int) -> str:
    if row is None:
        return ""
    value = _number(row["value"], digits, sign=True)
    text = f"{value} ({_number(row['low'], digits)} to {_number(row['high'], digits)})"
    if not row["expected"]:
        return text
    text += {"up": " ↑", "down": " ↓", "same": " ="}[row["expected"]]
    return text if row["expected"] == row["found"] else f"**{text}**"


def _number(value: float, digits: int, sign: bool = False) -> str:
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:+.{digits}f}" if sign and value else f"{value:.{digits}f}"


def _surprises(expected: list[dict[str, Any]], undecided: bool) -> str:
    lines = []
    for row in expected:
        if row["expected"] != row["found"] and (row["found"] == "open") == undecided:
            key = (row["degradation"], row["metric"])
            value = _number(row["value"], _DIGITS.get(row["metric"], 2), sign=True)
            found = "" if undecided else f', found "{row["found"]}"'
            why = f" {WHY[key]}" if key in WHY and not undecided else ""
            lines.append(f'- {key[0]}, {key[1]}: expected "{row["expected"]}"{found} ({value}).{why}')
    return "\n".join(lines) or "Nothing."


def _speakers(found: dict[str, Any]) -> str:
    (same, same_sd, same_n), (other, other_sd, other_n), eer = found["same"], found["different"], found["eer"]
    rate, low, high = (f"{100 * eer[key]:.2f}" for key in ("value", "low", "high"))
    return f"""Resemblyzer on {found["utterances"]} utterances of {found["speakers"]} speakers:

| pairs | n | cosine, mean ± standard deviation |
|---|---|---|
| same speaker | {same_n} | {same:.3f} ± {same_sd:.3f} |
| different speakers | {other_n} | {other:.3f} ± {other_sd:.3f} |

Equal error rate {rate} % ({low} to {high}), at a cosine of {found["threshold"]:.3f}. The interval resamples speakers,
because all pairs of a speaker share that voice. With {eer["n"]} speakers it is rough."""
