"""Front ends by name: each turns a text into tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowtts_core import config as _config
from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word
from flowtts_core.text.frontends.characters import ByteConfig, ByteFrontend, CharacterConfig, CharacterFrontend
from flowtts_core.text.frontends.emilia import EmiliaConfig, EmiliaFrontend
from flowtts_core.text.frontends.kokoro import KokoroConfig, KokoroFrontend
from flowtts_core.text.frontends.letters import LetterConfig, LetterFrontend
from flowtts_core.text.frontends.phonemes import PhonemeConfig, PhonemeFrontend
from flowtts_core.text.frontends.symbols import MATCHA
from flowtts_core.text.frontends.vocabulary import VocabularyConfig, VocabularyFrontend

FRONTENDS = {
    "phonemes": (PhonemeConfig, PhonemeFrontend),
    "characters": (CharacterConfig, CharacterFrontend),
    "bytes": (ByteConfig, ByteFrontend),
    "kokoro": (KokoroConfig, KokoroFrontend),
    "vocabulary": (VocabularyConfig, VocabularyFrontend),
    "emilia": (EmiliaConfig, EmiliaFrontend),
    "letters": (LetterConfig, LetterFrontend),
}


def build(spec: Mapping[str, Any]) -> Frontend:
    """Build the front end of a spec, `{"name": "phonemes", **fields of PhonemeConfig}`; see `flowtts_core.config.build`."""
    frontend: Frontend = _config.build(FRONTENDS, {"name": "phonemes", **spec})
    return frontend


def in_language(spec: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return a front end's spec for another language, with the same token for each symbol.

    Where its phonemizer does not have the language, one that does takes its place. A voice's own table gets the symbols of
    the VITS table that it lacks, as far as their tokens are free: its model has rows for them, which it has not learnt.

    Raises:
        ConfigError: where no phonemizer has the language.
        DependencyError: where the one that has it is not installed.
    """
    before, spec = str(spec.get("language", "")), {**spec, "language": language}
    if spec["name"] != "phonemes":
        return spec
    if spec.get("table") and before.partition("-")[0] != language.partition("-")[0]:
        taken = set(spec["table"].values())
        free = {symbol: token for symbol, token in MATCHA.ids.items() if token not in taken}
        spec["table"] = {**{symbol: token for symbol, token in free.items() if token < max(taken)}, **spec["table"]}
    known = spec.get("phonemizer", PhonemeConfig.phonemizer)
    problem: ConfigError | None = None
    for phonemizer in dict.fromkeys((known, "gruut", "espeak")):
        try:
            build({**spec, "phonemizer": phonemizer})
        except ConfigError as error:
            problem = problem or error  # the first one's remedy names the others
        except DependencyError:
            if phonemizer != "espeak" or problem is None:
                raise
        else:
            return {**spec, "phonemizer": phonemizer}
    assert problem is not None
    raise problem


def language_of(frontend: Frontend, request: SynthesisRequest) -> str:
    """Return the language in which a front end reads a request, as `en-us`; empty where it names none.

    Raises:
        FlowTTSError: for a speaker or language that it does not read, or a package that is missing.
    """
    return str(getattr(getattr(frontend.of(request), "config", None), "language", ""))


def language_read(spec: Mapping[str, Any], speaker: str | None, language: str | None) -> str:
    """Return the language in which the front end of `spec` reads a request; see `language_of`."""
    return language_of(build(spec), SynthesisRequest(text="", speaker=speaker, language=language))


__all__ = [
    "FRONTENDS",
    "ByteConfig",
    "ByteFrontend",
    "CharacterConfig",
    "CharacterFrontend",
    "EmiliaConfig",
    "EmiliaFrontend",
    "EncodedText",
    "Frontend",
    "KokoroConfig",
    "KokoroFrontend",
    "LetterConfig",
    "LetterFrontend",
    "PhonemeConfig",
    "PhonemeFrontend",
    "VocabularyConfig",
    "VocabularyFrontend",
    "Word",
    "build",
    "in_language",
    "language_of",
    "language_read",
]
