"""A corpus read by a teacher: the texts a synthesis job is given, written out in words as its pupils will read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from flowtts_core.errors import ConfigError, FlowTTSError
from jobs.synthesis.plan import Book, Plan
from jobs.synthesis.settings import Speaking
from jobs.synthesis.units import Unit


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


def teaching_plan(plan: Plan, voice: str | None, speaking: Speaking, limits: TextLimits) -> Plan:
    """Return the plan with its texts in words, where they are English, and those of unfit length set aside."""
    return replace(
        plan,
        items=lambda: _in_words(plan.items(), voice, speaking, limits),
        sources=(*plan.sources, [voice, limits.least, limits.most]),
    )


def _in_words(
    items: Iterable[Book | Unit], voice: str | None, speaking: Speaking, limits: TextLimits
) -> Iterator[Unit]:
    language = lru_cache(1000)(partial(_language, speaking.defaults))
    for item in items:
        assert isinstance(item, Unit)
        settings = item.settings
        if language(item.voice or voice, settings.get("speaker"), settings.get("language")).startswith("en"):
            item = replace(item, text=words_of(item.text))
        yield item if item.error else replace(item, error=limits.problem(item.text))


def words_of(text: str) -> str:
    """Return an English text as it is read aloud, numbers and abbreviations in words; with another script in it, unchanged."""
    from flowtts_core.text.english.normalize import normalize

    words: list[str] = []
    for piece in normalize(text):
        if piece.kind in ("skip", "ipa"):
            return text
        if piece.kind == "mark" and words:
            words[-1] += piece.text
        elif piece.spoken:
            words.append(piece.text)
    return " ".join(words)


def _language(job: dict[str, Any], voice: str | None, speaker: str | None, language: str | None) -> str:
    """The language in which a voice reads; empty where its front end names none, or it cannot be had."""
    from flowtts_core.text.frontends import language_read
    from flowtts_core.voice import load_card

    try:
        frontend = load_card(voice).parts["frontend"]
        return language_read(frontend, speaker or job.get("speaker"), language or job.get("language"))
    except (FlowTTSError, KeyError):  # the job says what is wrong with it
        return ""
