"""Homographs are read by their sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtts_core.engines.kokoro import read_vocab
from flowtts_core.text.frontends import PhonemeConfig, PhonemeFrontend

FRONTEND = PhonemeFrontend()
SENTENCES = Path(__file__).with_name("homographs.tsv")  # lines of IPA, tab, sentence with the *word*


def reading(sentence: str) -> str:
    """Return the IPA of the word between stars."""
    before, word, after = sentence.split("*")
    encoded = FRONTEND.encode(before + word + after)
    place = next(w for w in encoded.words if w.start <= len(before) < w.end)
    return "".join(FRONTEND.symbols_of(encoded)[place.token_start : place.token_end])


def test_of_some_hundred_sentences_nearly_all_are_right() -> None:
    """The last 70 lines were written after the rules; the front end had 77 % of them right before, and 99 % with the rules."""
    rows = [line.split("\t") for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    wrong = [f"{sentence} {ipa}, not {reading(sentence)}" for ipa, sentence in rows if reading(sentence) != ipa]
    assert len(rows) > 300
    assert len(wrong) <= 0.03 * len(rows), "\n".join(wrong)


@pytest.mark.parametrize(
    ("sentence", "ipa"),
    [
        ("I *read* it yesterday.", "ɹˈɛd"),
        ("*Close* the door.", "klˈoʊz"),
        ("a *tear* on her cheek", "tˈɪɹ"),
        ("I'm *content*", "kəntˈɛnt"),
        ("*Polish* the Polish vase", "pˈɑlɪʃ"),
        ("Polish the *Polish* vase", "pˈoʊlɪʃ"),
        ("CLOSE THE DOOR, I WILL *RECORD* IT", "ɹɪkˈɔɹd"),
        ("It was *used* to cut bread.", "jˈuzd"),
        ("They were *used* to the noise.", "jˈust"),
    ],
)
def test_a_homograph_in_its_sentence(sentence: str, ipa: str) -> None:
    assert reading(sentence) == ipa


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("I read it yesterday.", "ɹˈɛd"),
        ("We read a chapter every night.", "ɹˈid"),
        ("Close the door.", "klˈOz"),
        ("There was a tear in his coat.", "tˈɛɹ"),
        ("I'm content.", "kəntˈɛnt"),
        ("Polish the vase.", "pˈɑlɪʃ"),
        ("The pipes were made of lead.", "lˈɛd"),
        ("I am used to the noise.", "jˈust"),
        ("The actor took a bow.", "bˈW"),
    ],
)
def test_kokoros_phonemes_too(text: str, phonemes: str) -> None:
    frontend = PhonemeFrontend(PhonemeConfig("misaki", alphabet="misaki", table=read_vocab(None), add_blank=False))
    assert phonemes in frontend.encode(text).phonemes
