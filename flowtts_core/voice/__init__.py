"""Voices as artefacts: cards, weights, and the one way to open any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from flowtts_core.errors import VoiceError
from flowtts_core.voice.card import (
    CARD,
    VoiceCard,
    bundled_voices,
    find_voice,
    found_anywhere,
    load_card,
    split_speaker,
)

if TYPE_CHECKING:
    from flowtts_core.engines.base import UtteranceSynthesizer


def open_voice(
    voice: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    lexicon: Mapping[str, str] | None = None,
) -> UtteranceSynthesizer:
    """Open a voice of any kind: a bundled or saved voice's name, a folder, or an `s3://` place; None is the default voice.

    Args:
        threads: that the voice computes with; where it runs on torch, all of this process do.
        lexicon: the user's own words (see `flowtts_core.text.own_words`), which go before the voice's.

    Raises:
        VoiceError: where there is no such voice, or it is damaged, or of a kind that this version does not know.
    """
    from flowtts_core.engines.table import ENGINES

    folder = find_voice(voice)
    card = with_lexicon(load_card(folder), lexicon)
    if card.kind not in ENGINES:
        raise VoiceError(f"{folder / CARD}: kind {card.kind!r}", f"this version knows: {', '.join(ENGINES)}")
    return ENGINES[card.kind](folder, card, device, threads)


def with_lexicon(card: VoiceCard, lexicon: Mapping[str, str] | None) -> VoiceCard:
    """Return the card with words of the user's before the voice's own.

    Raises:
        VoiceError: for a voice without a front end of ours, or for IPA where the voice reads letters.
    """
    if not lexicon:
        return card
    from flowtts_core.text.frontends import FRONTENDS
    from flowtts_core.text.own_words import is_text

    frontend = card.parts.get("frontend", {})
    if frontend.get("name") not in FRONTENDS:
        raise VoiceError(f"voice {card.name} takes no lexicon: it reads texts by itself", "leave it out")
    phonemes = [word for word, said in lexicon.items() if not is_text(said)]
    if phonemes and frontend["name"] not in ("phonemes", "kokoro", "emilia"):
        raise VoiceError(
            f"voice {card.name} takes no lexicon of IPA, since it reads letters: {phonemes[0]!r} is given in IPA",
            "respell it: Siobhan, a tab, shi-VAWN",
        )
    words = {**(frontend.get("lexicon") or {}), **lexicon}
    return replace(card, parts={**card.parts, "frontend": {**frontend, "lexicon": words}})


__all__ = [
    "VoiceCard",
    "bundled_voices",
    "find_voice",
    "found_anywhere",
    "load_card",
    "open_voice",
    "split_speaker",
    "with_lexicon",
]
