"""The text front end: ids, spans, words, errors, user pronunciations."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.errors import ConfigError, DependencyError, TextError
from flowtts_core.text.frontends import EncodedText, PhonemeConfig, PhonemeFrontend
from flowtts_core.text.frontends.lexicon import load_lexicon
from flowtts_core.text.frontends.symbols import MATCHA

FRONTEND = PhonemeFrontend()
HAS_ESPEAK = all(importlib.util.find_spec(name) for name in ("phonemizer", "espeakng_loader"))
SENTENCES = [
    "Hello, world!",
    "The well-known Time Traveller (for so it will be convenient to speak of him) was expounding.",
    "On November 22, 1963, Dr. Smith paid $3.50 -- or was it £2m?",
    "“Don’t,” she said; ‘the dogs’ dinner’ is cold…",
    'He said, "Stop," and she: "No."',
    "The FBI, NASA and the U.S.A. met at 3:45 pm.",
    "Cafe\u0301 naïve ﬁne \u200bok",
    "Say [[həlˈoʊ]] to 日本 and 😀 me.",
]


def check(text: str, encoded: EncodedText, n_symbols: int = len(MATCHA)) -> None:
    """What holds for every encoded text."""
    assert len(encoded.tokens) == len(encoded.spans) > 0
    assert all(0 <= token < n_symbols for token in encoded.tokens)
    assert all(0 <= start <= end <= len(text) for start, end in encoded.spans)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(encoded.spans, encoded.spans[1:], strict=False))
    assert encoded.words
    for word in encoded.words:
        assert word.text == text[word.start : word.end] != ""
        assert 0 <= word.token_start < word.token_end <= len(encoded.tokens)
        assert all(
            span == (word.start, word.end)
            for span in encoded.spans[word.token_start : word.token_end]
            if span[0] != span[1]
        )
    for one, next_one in zip(encoded.words, encoded.words[1:], strict=False):
        assert one.end <= next_one.start
        assert one.token_end <= next_one.token_start


def test_symbol_ids_are_those_of_the_community() -> None:
    assert len(MATCHA) == FRONTEND.n_symbols == 178
    assert [MATCHA.ids[c] for c in "_;,. A"] == [0, 1, 3, 4, 16, 17]
    assert [MATCHA.ids[c] for c in "zɑəˈːᵻ"] == [68, 69, 83, 156, 158, 177]
    assert MATCHA.symbols[174:178] == ("'", "\u0329", "'", "ᵻ")
    assert MATCHA.ids["'"] == 176


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("add_blank", [True, False])
def test_tokens_spans_and_words(text: str, add_blank: bool) -> None:
    frontend = PhonemeFrontend(PhonemeConfig(add_blank=add_blank))
    encoded = frontend.encode(text)
    check(text, encoded)
    plain = encoded.tokens[1::2] if add_blank else encoded.tokens
    assert "".join(MATCHA.symbols[token] for token in plain) == encoded.phonemes
    if add_blank:
        assert len(encoded.tokens) % 2 == 1 and set(encoded.tokens[::2]) == {0}


def test_words_are_the_words_of_the_text() -> None:
    text = "The well-known Dr. Smith paid $3.50, didn't he?"
    words = [word.text for word in FRONTEND.encode(text).words]
    assert words == ["The", "well-known", "Dr.", "Smith", "paid", "$3.50", "didn't", "he"]


def test_phonemes_of_a_sentence() -> None:
    assert FRONTEND.encode("Hello, world!").phonemes == "hɛlˈoʊ, wˈɚld!"
    assert FRONTEND.encode('He said, "the end."').phonemes == 'hˈi sˈɛd, "ðə ˈɛnd."'


@pytest.mark.parametrize(
    ("text", "ipa"),
    [
        ("I used to go.", "jˈust"),
        ("It was used.", "jˈuzd"),
        ("He will record it.", "ɹɪkˈɔɹd"),
        ("the record", "ɹˈɛkɚd"),
        ("to read", "ɹˈid"),
        ("have read", "ɹˈɛd"),
        ("the use of", "jˈus "),
        ("Plan A is", "ˈeɪ"),
        ("boys' and James's", "dʒˈeɪmzɪz"),
        ("the cats' and the Frobnitz's", "ɪz"),
    ],
)
def test_pronunciation_in_context(text: str, ipa: str) -> None:
    assert ipa in FRONTEND.encode(text).phonemes


def test_unknown_words_are_guessed_with_a_stress() -> None:
    assert "ˈ" in FRONTEND.encode("Xylophandrion").phonemes


def test_the_okina_does_not_matter() -> None:
    assert len({FRONTEND.encode(f"Hawai{mark}i").phonemes for mark in ("", "ʻ", "'", "’")}) == 1


def test_case_and_accents_do_not_matter() -> None:
    assert FRONTEND.encode("Über HOUSE").phonemes == FRONTEND.encode("uber house").phonemes


@pytest.mark.parametrize(
    "text", ["日本語です", "Привет, мир", "مرحبا", "😀😀", "\ud800\udc12", "...", "-- --", '"', "\x00\x01", "", "  \n"]
)
def test_nothing_to_say_is_a_text_error(text: str) -> None:
    with pytest.raises(TextError) as caught:
        FRONTEND.encode(text)
    str(caught.value).encode("utf-8", "backslashreplace")


def test_another_script_is_named_with_a_remedy() -> None:
    with pytest.raises(TextError) as caught:
        FRONTEND.encode("Привет")
    assert "CYRILLIC CAPITAL LETTER PE" in str(caught.value) and "espeak" in caught.value.remedy


def test_mixed_text_speaks_other_scripts_and_lists_what_cannot_be_spoken() -> None:
    encoded = FRONTEND.encode("Tokyo 東京 is \ud800large\x00 😀.")
    assert encoded.phonemes == FRONTEND.encode("Tokyo Dong Jing is large.").phonemes
    assert encoded.dropped == ("😀",)


def test_inline_ipa_and_user_lexicon(tmp_path: Path) -> None:
    assert FRONTEND.encode("Say [[wˈʌt|g]] now").phonemes.split()[1] == "wˈʌtɡ"
    table = tmp_path / "names.tsv"
    table.write_text("# names\nEloi\tˈiːlɔɪ\nTraveller\ttɹˈævlɚ\n", encoding="utf-8")
    frontend = PhonemeFrontend(PhonemeConfig(lexicon=load_lexicon(table)))
    assert frontend.encode("The Eloi.").phonemes == "ðə ˈiːlɔɪ."
    assert frontend.encode("the Eloi's").phonemes == "ðə ˈiːlɔɪz"
    as_json = tmp_path / "names.json"
    as_json.write_text(json.dumps({"Eloi": "ˈiːlɔɪ"}), encoding="utf-8")
    assert load_lexicon(as_json) == {"Eloi": "ˈiːlɔɪ"}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.tsv", "one\twˈʌn\ntwo tu\n", "a.tsv, line 2"),
        ("b.tsv", "one\t\n", "b.tsv, line 1"),
        ("c.tsv", "\none\twˈ漢n\n", "c.tsv, line 2"),
        ("d.json", '{\n"a": 1}', "d.json, line 2"),
        ("e.json", "{\n\n", "e.json, line 3"),
        ("f.json", "[]", "f.json, line 1"),
    ],
)
def test_a_wrong_lexicon_names_its_line(tmp_path: Path, name: str, content: str, place: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TextError, match=place):
        load_lexicon(tmp_path / name)


@pytest.mark.parametrize(
    "config",
    [PhonemeConfig(phonemizer="festival"), PhonemeConfig(language="fr"), PhonemeConfig(symbols="arpabet")],
)
def test_unknown_settings_are_refused(config: PhonemeConfig) -> None:
    with pytest.raises(ConfigError):
        PhonemeFrontend(config)


def test_frontend_and_config_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(FRONTEND.config)) == FRONTEND.config
    again = pickle.loads(pickle.dumps(FRONTEND))
    assert again.encode(SENTENCES[1]) == FRONTEND.encode(SENTENCES[1])


def test_a_text_does_not_depend_on_those_before_it() -> None:
    used = PhonemeFrontend()
    for text in SENTENCES * 3:
        used.encode(text)
    assert [used.encode(text) for text in SENTENCES] == [PhonemeFrontend().encode(text) for text in SENTENCES]


_SNIPPETS = [
    "$3.50",
    "1/2",
    "IV",
    "Dr.",
    "U.S.",
    "[[",
    "]]",
    "'",
    '"',
    "--",
    "3:45",
    "5 km",
    "1,0",
    "½",
    "e\u0301",
    "٣",
    "²",
    "x⁻¹²",
    "℃V",
    "②ǅ",
    "№",
    "ﬁ",
    "\ud800",
    "\0",
    " ",
]
_TEXTS = st.one_of(
    st.text(alphabet=st.characters(codec=None), max_size=60),
    st.text(alphabet="aAI1250.,:;/-–$£%'\" xX()[]\n", max_size=40),
    st.lists(st.sampled_from(_SNIPPETS), max_size=12).map("".join),
)


@settings(max_examples=200, deadline=None)
@given(_TEXTS)
def test_any_text_is_encoded_or_refused(text: str) -> None:
    try:
        encoded = FRONTEND.encode(text)
    except TextError:
        return
    check(text, encoded)


@pytest.mark.skipif(HAS_ESPEAK, reason="the espeak extra is installed")
def test_missing_espeak_names_the_extra() -> None:
    with pytest.raises(DependencyError, match=r"flowtts\[espeak\]"):
        PhonemeFrontend(PhonemeConfig(phonemizer="espeak"))


@pytest.mark.skipif(not HAS_ESPEAK, reason="needs the espeak extra (phonemizer, espeakng-loader)")
def test_espeak_reads_as_the_community_voices_were_trained() -> None:
    frontend = PhonemeFrontend(PhonemeConfig(phonemizer="espeak"))
    assert frontend.encode("Hello, world!").phonemes == "həlˈoʊ, wˈɜːld!"
    for text in SENTENCES:
        check(text, frontend.encode(text))
    encoded = frontend.encode("the end of the day")
    assert [word.text for word in encoded.words] == ["the", "end", "of", "the", "day"]
    assert "ʌvðə" in encoded.phonemes
    with pytest.raises(ConfigError, match="no language"):
        PhonemeFrontend(PhonemeConfig(phonemizer="espeak", language="xx"))


@pytest.mark.skipif(not HAS_ESPEAK, reason="needs the espeak extra (phonemizer, espeakng-loader)")
def test_espeak_reads_other_languages() -> None:
    text = "Guten Morgen, ich habe 3,5 Äpfel."
    check(text, PhonemeFrontend(PhonemeConfig(phonemizer="espeak", language="de")).encode(text))
