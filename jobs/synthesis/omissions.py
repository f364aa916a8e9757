"""Tell in few words what a book's reader left out: one line for each reason, with its number, its letters and examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flowtts_core.text.document import LeftOut

_SHOWN = 90  # characters of the examples of a line
_SHORT = 40  # longer texts are told by the places that they stand in


def omissions(left_out: Iterable[LeftOut]) -> list[dict[str, Any]]:
    """Return a line for each reason as JSON values: `reason`, `pieces`, `characters`, and `examples` (texts or places)."""
    groups: dict[str, list[LeftOut]] = {}
    for piece in left_out:
        groups.setdefault(piece.reason, []).append(piece)
    return [
        {
            "reason": reason,
            "pieces": len(pieces),
            "characters": sum(len(piece.text) for piece in pieces),
            "examples": _examples(pieces),
        }
        for reason, pieces in groups.items()
    ]


def told(lines: Iterable[dict[str, Any]]) -> list[str]:
    """Return the lines of `omissions` as sentences; the letters of much text are counted."""
    return [
        f"left out: {line['reason']}, {line['pieces']}{_size(line['characters'])}: {line['examples']}" for line in lines
    ]


def _size(characters: int) -> str:
    return f" ({characters:,} characters)" if characters > _SHOWN else ""


def _examples(pieces: Sequence[LeftOut]) -> str:
    long = max(len(piece.text) for piece in pieces) > _SHORT
    shown = ", ".join(dict.fromkeys(piece.place if long else piece.text for piece in pieces))
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 4]} ..."
