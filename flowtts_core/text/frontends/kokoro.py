"""Kokoro's texts: misaki's phonemes, in the language of the request, else in that of the speaker's name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends.base import EncodedText, Frontend
from flowtts_core.text.frontends.misaki import LANGUAGES
from flowtts_core.text.frontends.phonemes import PhonemeConfig, PhonemeFrontend

# The first letter of a speaker's name -> the language. Chinese ("z") needs phonemes of its own.
SPOKEN_BY = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "j": "ja", "p": "pt-br"}
_PHONEMIZERS = {**dict.fromkeys(LANGUAGES, "misaki"), "ja": "openjtalk"}  # others: espeak


@dataclass(frozen=True)
class KokoroConfig:
    """Settings of Kokoro's front end.

    Attributes:
        table: symbol -> token.
        language: of requests that name neither a language nor a speaker.
        lexicon: word -> IPA, which goes before the phonemizer.
    """

    table: dict[str, int]
    language: str = "en-us"
    lexicon: dict[str, str] | None = None


class KokoroFrontend(Frontend):
    """Holds a front end for each language, made at its first use; `encode` reads the default language."""

    def __init__(self, config: KokoroConfig) -> None:
        self.config = config
        self._made: dict[str, PhonemeFrontend] = {}

    @property
    def n_symbols(self) -> int:
        return max(self.config.table.values()) + 1

    def encode(self, text: str) -> EncodedText:
        return self._in(self.config.language).encode(text)

    def load(self) -> None:
        self._in(self.config.language).load()

    def of(self, request: SynthesisRequest) -> Frontend:
        """Raise FlowTTSError for a speaker of a language that is not read here, where the request names no other."""
        if request.language is not None:
            language = request.language.lower()
        elif request.speaker is not None:
            language = SPOKEN_BY.get(request.speaker[:1], "")
            if not language:
                raise FlowTTSError(
                    f"speaker {request.speaker!r} is unknown, or its language is not read here: name the text's language, "
                    f"one of {', '.join(SPOKEN_BY.values())}"
                )
        else:
            language = self.config.language
        return self._in(next((own for own in SPOKEN_BY.values() if own.startswith(language)), language))

    def _in(self, language: str) -> PhonemeFrontend:
        if language not in self._made:
            config = PhonemeConfig(
                phonemizer=_PHONEMIZERS.get(language, "espeak"),
                language=language,
                add_blank=False,
                table=self.config.table,
                alphabet="misaki",
                begin="_",
                end="_",
            )
            self._made[language] = PhonemeFrontend(replace(config, lexicon=self.config.lexicon))
        return self._made[language]

    def __reduce__(self) -> tuple[type[KokoroFrontend], tuple[KokoroConfig]]:
        return type(self), (self.config,)
