"""Which columns of a table hold its texts and ids: those that are named, else those whose names are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowtts_core.errors import TextError

TEXT_NAMES = (  # the preferred first
    *("text", "transcription", "transcript", "sentence", "normalized_text", "normalised_text", "text_normalized"),
    *("normalized", "normalised", "raw_text", "utterance"),
)
ID_NAMES = ("id", "utt_id", "utterance_id", "clip_id", "segment_id")
_OF_TEXTS = (*TEXT_NAMES, "content", "body", "quote", "line", "phrase", "message")  # no recordings beside them


@dataclass(frozen=True)
class Columns:
    """The columns of a table that the user named; "" where the table tells."""

    text: str = ""
    id: str = ""

    def named_in(self, names: Sequence[str]) -> bool:
        """Return whether a line of cells is a header with a column of texts."""
        return self.text in names if self.text else any(name.strip().lower() in _OF_TEXTS for name in names)

    def found(self, names: Sequence[str], table: str) -> Columns:
        """Return the columns as they are called in a table with these names.

        Raises:
            TextError: for a column that is named and not there, and where none or several can hold the texts.
        """
        listed = ", ".join(map(repr, names[:20])) or "none"
        for option, name in (("--text-column", self.text), ("--id-column", self.id)):
            if name and name not in names:
                raise TextError(f"{table}: no column {name!r}; it has: {listed}", f"name one of them with {option}")
        known = {name.strip().lower(): name for name in reversed(names)}
        texts = [known[name] for name in _OF_TEXTS if name in known]
        text = self.text or ("text" if "text" in names else "")
        if not text and not texts:
            raise TextError(
                f"{table}: no column 'text'; it has: {listed}",
                "name the column that holds the text: --text-column NAME",
            )
        if not text and len(texts) > 1 and texts[0].strip().lower() != "text":
            raise TextError(
                f"{table}: the text may be in {' or '.join(map(repr, texts))}", "choose with --text-column NAME"
            )
        ids = [known[name] for name in ID_NAMES if name in known]
        text = text or texts[0]
        return Columns(text, self.id or next((name for name in ids if name != text), ID_NAMES[0]))
