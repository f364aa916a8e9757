"""Phonemes in a text: spoken as given, shown as written, never split; brackets of ordinary books are read as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtts_core.engines.base import Speech
from flowtts_core.errors import TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends import (
    ByteConfig,
    ByteFrontend,
    CharacterConfig,
    CharacterFrontend,
    KokoroConfig,
    KokoroFrontend,
    PhonemeConfig,
    PhonemeFrontend,
)
from flowtts_core.text.given_phonemes import given_phonemes, written
from flowtts_core.text.plan import plan_text
from flowtts_core.text.sentences import split_sentences
from flowtts_core.voice import load_card, open_voice
from jobs.synthesis.subtitles import Cue, srt

FRONTEND = PhonemeFrontend()
MISAKI = KokoroFrontend(KokoroConfig(load_card("heart").parts["frontend"]["table"]))


@pytest.mark.parametrize("text", [
    "He wrote [[sic]] there.", "See [12] and [[12]].", "Go [home](/about/) now.", "[x](https://a.example/ə/)",
    "[[Bjørn]] and [[Ærø]]", "[word]( /ə/ )", "[[ə]", "an array[[0]]", "[](/ə/)", "[a](/ə/b/)",
])  # fmt: skip
def test_ordinary_brackets_are_no_phonemes(text: str) -> None:
    assert given_phonemes(text) == [] and written(text) == text


def test_a_word_in_double_brackets_is_read_as_a_word() -> None:
    assert FRONTEND.encode("He wrote [[sic]] there.").phonemes == FRONTEND.encode("He wrote, sic, there.").phonemes


@pytest.mark.parametrize(
    ("block", "ipa"),
    [
        ("[[həlˈoʊ]]", "həlˈoʊ"),
        ("[[ h ə l ˈoʊ ]]", "həlˈoʊ"),  # blanks between single phones
        ("[[həlˈoʊ wˈɜːld]]", "həlˈoʊ wˈɜːld"),
        ("[hello](/hə.lˈoʊ/)", "həlˈoʊ"),
        ("[[tʰˈɪn]]", "tʰˈɪn"),  # which a compatibility form of Unicode would write th
        ("[[t͡ʃˈaʊ]]", "tʃˈaʊ"),
    ],
)
def test_ipa_is_spoken_as_it_stands(block: str, ipa: str) -> None:
    encoded = FRONTEND.encode(f"Say {block}, now.")
    assert encoded.phonemes == f"sˈeɪ {ipa}, nˈaʊ." and encoded.dropped == ()
    assert len(encoded.words) == 3


def test_the_written_word_is_the_word() -> None:
    text = "Dr. [Nguyễn Văn](/wˈɪn vˈan/) met “[Kokoro](/kˈoʊkəɹoʊ/)”."
    for frontend in (FRONTEND, MISAKI):
        words = frontend.encode(text).words
        assert [word.text for word in words] == ["Dr.", "Nguyễn Văn", "met", "Kokoro"]
        assert all(text[word.start : word.end] == word.text for word in words)
    assert "kˈOkəɹO" in MISAKI.encode(text).phonemes
    assert written(text) == "Dr. Nguyễn Văn met “Kokoro”."
    assert "Kokoro”." in srt([Cue(written(text), 0, 1)])


def test_a_lexicon_and_numbers_go_on_beside_phonemes() -> None:
    frontend = PhonemeFrontend(PhonemeConfig(lexicon={"eloi": "ˈiːlɔɪ"}))
    assert frontend.encode("12 Eloi [ate](/ˈɛt/) £3.").phonemes == (
        frontend.encode("Twelve Eloi").phonemes + " ˈɛt " + frontend.encode("three pounds.").phonemes
    )


def test_symbols_that_a_voice_lacks_are_told() -> None:
    assert FRONTEND.encode("Say [[wˈʌ7]] now").dropped == ("7",)


@pytest.mark.parametrize(
    "frontend",
    [
        CharacterFrontend(CharacterConfig()),
        ByteFrontend(ByteConfig()),
        PhonemeFrontend(PhonemeConfig(phonemizer="letters")),
    ],
    ids=["characters", "bytes", "letters"],
)
def test_voices_of_letters_refuse(frontend) -> None:
    with pytest.raises(TextError, match="reads letters"):
        frontend.encode("Say [hello](/həlˈoʊ/).")
    assert plan_text(SynthesisRequest(text="Good. Say [[həlˈoʊ]]."), frontend).dropped == ("Say [[həlˈoʊ]].",)


def test_no_sentence_ends_within_phonemes() -> None:
    text = "I saw [Mr. Ng. He](/ˈɪŋ! Hɪ. A/) there. [[həlˈoʊ. Wˈɜːld]] is it."
    assert [sentence.text for sentence in split_sentences(text)] == [
        "I saw [Mr. Ng. He](/ˈɪŋ! Hɪ. A/) there.",
        "[[həlˈoʊ. Wˈɜːld]] is it.",
    ]


def test_no_part_of_a_long_sentence_ends_within_phonemes() -> None:
    text = "and so [on, and on, and on](/ˌɑn ənd ˈɑn, ənd ˈɑn/) " * 40
    plan = plan_text(SynthesisRequest(text=text), FRONTEND)
    parts = [text[u.start : u.end] for u in plan.utterances]
    assert len(parts) > 2 and all(part.count("[") == part.count("/)") for part in parts)
    spoken = " ".join(u.encoded.phonemes for u in plan.utterances if u.encoded)
    assert spoken.count("ˌɑn ənd ˈɑn") == 40 and plan.dropped == ()


def test_a_voice_tells_when_the_written_word_is_spoken(tmp_path: Path) -> None:
    text = "I met [Kokoro](/kˈoʊkəɹoʊ/) there. It was late."
    [speech] = open_voice("heart", threads=1).synthesize([SynthesisRequest(text=text)])
    assert isinstance(speech, Speech) and speech.words is not None
    assert [word.word for word in speech.words] == "I met Kokoro there It was late".split()
    assert 0.2 < speech.words[2].end_s - speech.words[2].start_s < 1.0
