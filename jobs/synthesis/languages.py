"""Whether books and rows are in the language in which a voice reads them; others are refused before any sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.text.document import Document
from flowtts_core.text.languages import another_language
from flowtts_core.text.marks import shown_words
from jobs.synthesis.engine import Voices
from jobs.synthesis.settings import Speaking
from jobs.synthesis.units import Unit

REFUSED = "another language"  # begins the reason of a row that is refused
_SAMPLE = 60  # sentences of a book that are looked at, from everywhere in it


@dataclass(frozen=True)
class LanguageCheck:
    """Compares texts with the languages of a job's voices. A `language` that the job or a row asks for is not questioned."""

    voices: Voices
    speaking: Speaking
    _of_speakers: dict[tuple[str | None, str], str] = field(default_factory=dict)  # a front end is slow to make

    def require_book(self, document: Document, name: str, voice: str | None, settings: Mapping[str, Any]) -> None:
        """Refuse a book in another language than the voice reads, by its text, or what its file says of it.

        Args:
            voice, settings: that the book is given, beside the job's.

        Raises:
            ConfigError: with what tells the language.
        """
        read = self._read(voice, settings)
        if read:
            sentences = [sentence.text for chapter in document.chapters for sentence in chapter.sentences]
            sample = " ".join(sentences[:: len(sentences) // _SAMPLE + 1])
            self._refuse(name, another_language(sample, read, declared=document.language), read, voice)

    def require_rows(self, first: Sequence[Any], name: str) -> None:
        """Refuse a table the first of whose rows are all in another language; raises ConfigError."""
        refused = [item for item in first if isinstance(item, Unit) and item.error.startswith(REFUSED)]
        if first and len(refused) == len(first):
            raise ConfigError(f"{name}: its rows are in {refused[0].error}", _remedy(self._read(first[0].voice, {})))

    def row_problem(self, text: str, voice: str | None, settings: Mapping[str, Any]) -> str:
        """Return why a row is refused; empty where it may be spoken."""
        read = self._read(voice, settings)
        if read and {**self.speaking.settings, **settings}.get("input_type") == "ssml":
            text = shown_words(text, "ssml")  # its tags are English
        found = another_language(text, read) if read else ""
        return f"{REFUSED}: {found}, and the voice reads {read} (--language {read} insists)" if found else ""

    def _refuse(self, name: str, found: str, read: str, voice: str | None) -> None:
        if found:
            speaker = voice or self.voices.own.name
            raise ConfigError(f"{name}: {found}, and voice {speaker} reads {read}", _remedy(read))

    def _read(self, voice: str | None, settings: Mapping[str, Any]) -> str:
        """Return the language of the voice; empty where one is asked for, or the voice cannot be had, which the job tells."""
        asked = {**self.speaking.settings, **settings}
        if asked.get("language") or (voice is not None and self.voices.problem(voice)):
            return ""
        engine = self.voices.find(voice)
        own = str((engine.frontend or {}).get("language") or next(iter(engine.languages), ""))
        speaker = asked.get("speaker")
        if not speaker:
            return own  # without loading its front end
        if (voice, speaker) not in self._of_speakers:
            try:
                self._of_speakers[voice, speaker] = engine.language(speaker, None)
            except FlowTTSError:
                self._of_speakers[voice, speaker] = ""
        return self._of_speakers[voice, speaker]


def _remedy(read: str) -> str:
    return (
        "choose a voice that reads it (flowtts voices), or its language where the voice has several (--language); "
        f"--language {read} insists, and reads it all the same"
    )
