"""A corpus read by a teacher: the texts a synthesis job is given, written out in words as its pupils will read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.text.marks import bare
from flowtts_core.text.pieces import Piece
from jobs.synthesis.plan import Book, Plan
from jobs.synthesis.settings import Speaking
from jobs.synthesis.units import Unit

_ORDINAL = re.compile(r"\b(\w+ty) (first|second|third|\w+th)\b")


@dataclass(frozen=True)
class TextLimits:
    """How many characters a text may have that is read for training; others are set aside."""

    least: int = 4
    most: int = 250

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(
                f"--min-chars {self.least} --max-chars {self.most}", "give 1 or more, and the smaller first"
            )

    def problem(self, text: str) -> str:
        """Why a text is not read; empty where it is."""
        if len(text) < self.least:
            return f"shorter than {self.least} characters"
        return f"longer than {self.most} characters" if len(text) > self.most else ""


def require_speaker(voice: str | None, speaker: str | None) -> None:
    """Raise FlowTTSError for a voice that does not open, or has no such speaker."""
    from flowtts_core.voice import open_voice

    open_voice(voice).check_settings({"speaker": speaker} if speaker else {})


def teaching_plan(plan: Plan, voice: str | None, speaker: str | None, speaking: Speaking, limits: TextLimits) -> Plan:
    """Return the plan with its texts in words, where they are English, and those of unfit length set aside.

    Args:
        speaker: of the voice; rows with a voice or speaker of their own keep that.
    """
    return replace(
        plan,
        items=lambda: _teaching_units(plan.items(), voice, speaker, speaking, limits),
        sources=(*plan.sources, [voice, speaker, limits.least, limits.most]),
    )


def _teaching_units(
    items: Iterable[Book | Unit], voice: str | None, speaker: str | None, speaking: Speaking, limits: TextLimits
) -> Iterator[Unit]:
    language = lru_cache(1000)(partial(_language, speaking.defaults))
    for item in items:
        assert isinstance(item, Unit)
        if speaker is not None and item.voice is None:
            item = replace(item, settings={"speaker": speaker, **item.settings})
        settings = item.settings
        if not item.error and is_directed(item.text, {**speaking.settings, **settings}):
            item = replace(item, error="holds marks or SSML, which its pupils would read as text: give it plain")
        if not item.error and language(
            item.voice or voice, settings.get("speaker"), settings.get("language")
        ).startswith("en"):
            item = replace(item, text=words_of(item.text))
        yield item if item.error else replace(item, error=limits.problem(item.text))


def is_directed(text: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a text says how it is spoken: by marks ("[pause:2s]") or as SSML."""
    return settings.get("input_type") == "ssml" or bare(text) != text


def words_of(text: str) -> str:
    """Return an English text with its numbers, signs and abbreviations in words, and all else as it stands."""
    from flowtts_core.text.normalize import normalize

    out: list[str] = []
    done = 0
    for (start, end), group in groupby(normalize(text), lambda piece: (piece.start, piece.end)):
        parts = [piece for piece in group if piece.kind in ("word", "letter")]
        if parts and start >= done and _letters("".join(part.text for part in parts)) != _letters(text[start:end]):
            out += [text[done:start], _written(parts)]
            done = end
    return " ".join("".join([*out, text[done:]]).split())


def _written(parts: Sequence[Piece]) -> str:
    """Words with blanks between; letters that are spelled as an abbreviation, and "twenty-second" with its hyphen."""
    said = []
    for spelled, run in groupby(parts, lambda part: part.kind == "letter"):
        texts = [part.text for part in run]
        letters = "".join(f"{one.upper()}." for one in texts) if len(texts) > 1 else texts[0].upper()
        said.append(letters if spelled else " ".join(texts))
    return _ORDINAL.sub(r"\1-\2", " ".join(said))


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _language(job: dict[str, Any], voice: str | None, speaker: str | None, language: str | None) -> str:
    """The language in which a voice reads; empty where its front end names none, or it cannot be had."""
    from flowtts_core.text.frontends import language_read
    from flowtts_core.voice import load_card

    try:
        frontend = load_card(voice).parts["frontend"]
        return language_read(frontend, speaker or job.get("speaker"), language or job.get("language"))
    except (FlowTTSError, KeyError):  # the job says what is wrong with it
        return ""
