"""What every front end of the table must hold, and what those without phonemes do."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.config import spec_of
from flowtts_core.engines.kokoro import read_vocab
from flowtts_core.errors import ConfigError, DependencyError, TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends import FRONTENDS, Frontend, PhonemeFrontend, build, in_language
from flowtts_core.text.frontends.characters import LATIN
from flowtts_core.text.frontends.vocabulary import symbol_bytes
from flowtts_core.voice.card import load_card
from tests.flowtts_core.test_frontend import SENTENCES, check
from tests.onnx_graphs import LETTERS

SYMBOLS = [" ", *map(chr, range(33, 127)), "é", "ß", "，", "。"]  # as a vocab.txt has them
SPECS: dict[str, dict[str, Any]] = {
    "phonemes": {"name": "phonemes"},
    "phonemes without blanks": {"name": "phonemes", "add_blank": False},
    "characters": {"name": "characters"},
    "characters of Greek": {"name": "characters", "characters": "αβγδεζηθικλμνξοπρσςτυφχψω. ", "language": "el"},
    "bytes": {"name": "bytes"},
    "bytes of any language": {"name": "bytes", "language": "ja"},
    "letters in a table": {
        "name": "phonemes",
        "phonemizer": "letters",
        "table": {symbol: token for token, symbol in enumerate("_^$" + LETTERS)},
        "begin": "^",
        "end": "$",
    },
    "kokoro": {"name": "kokoro", "table": read_vocab(None)},
    "vocabulary": {"name": "vocabulary", "symbols": SYMBOLS},
    "vocabulary as it stands": {"name": "vocabulary", "symbols": SYMBOLS, "write_out": False},
    "emilia": {"name": "emilia", "table": read_vocab(None)},
    "letters of a published table": {
        "name": "letters",
        "table": {c: i for i, c in enumerate("_ '-,.;:!?" + LETTERS.upper())},
    },
}
MADE = {name: build(spec) for name, spec in SPECS.items()}


def test_every_front_end_is_tried() -> None:
    assert {spec["name"] for spec in SPECS.values()} == set(FRONTENDS)


@pytest.fixture(params=SPECS)
def frontend(request: pytest.FixtureRequest) -> Frontend:
    return MADE[request.param]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40) | st.text("aA1 .,'-日αé\n", max_size=30), name=st.sampled_from(sorted(MADE)))
def test_any_text_is_encoded_or_refused(text: str, name: str) -> None:
    try:
        encoded = MADE[name].encode(text)
    except TextError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    except DependencyError:
        assert name == "emilia" and any("\u4e00" <= character <= "\u9fff" for character in text)
        return
    check(text, encoded, MADE[name].n_symbols)


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_are_encoded_the_same_each_time(frontend: Frontend, text: str) -> None:
    try:
        encoded = frontend.encode(text)
    except TextError:
        pytest.skip("of another script")
    except DependencyError:
        pytest.skip("the packages of Chinese are not here")
    check(text, encoded, frontend.n_symbols)
    assert frontend.encode(text) == encoded == pickle.loads(pickle.dumps(frontend)).encode(text)
    assert encoded.phonemes


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "...", "-- --", "\x00", "\ud800"])
def test_nothing_to_say_is_a_text_error(frontend: Frontend, text: str) -> None:
    with pytest.raises(TextError):
        frontend.encode(text)


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_makes_the_same_again(name: str) -> None:
    config: Any = MADE[name].config  # type: ignore[attr-defined]
    again = build(spec_of(SPECS[name]["name"], config))
    assert again.n_symbols == MADE[name].n_symbols and again.config == config  # type: ignore[attr-defined]
    again.load()


def test_a_spec_without_a_name_is_of_phonemes_and_an_unknown_one_is_refused() -> None:
    assert isinstance(build({}), PhonemeFrontend)
    for spec in ({"name": "runes"}, {"name": "bytes", "colour": 1}, {"name": "characters", "characters": "aa"}):
        with pytest.raises(ConfigError):
            build(spec)


def test_characters_are_counted_from_one_in_their_order() -> None:
    encoded = MADE["characters"].encode("Dr. No's zebra!")
    assert encoded.phonemes == "doctor No's zebra!"
    assert encoded.tokens == tuple(LATIN.index(c) + 1 for c in encoded.phonemes.lower())
    assert MADE["characters"].n_symbols == len(LATIN) + 1
    assert [w.text for w in encoded.words] == ["Dr.", "No's", "zebra"]


def test_characters_without_a_token_are_dropped_and_told() -> None:
    greek = MADE["characters of Greek"].encode("καλημερα 東 x")
    assert greek.phonemes.startswith("καλημερα") and {"東", "x"} <= set(greek.dropped)
    assert [w.text for w in greek.words] == ["καλημερα"]
    with pytest.raises(TextError, match="CJK UNIFIED IDEOGRAPH-6771"):
        MADE["characters of Greek"].encode("東")


@pytest.mark.parametrize("name", ["characters", "letters in a table"])
def test_letters_without_a_token_lose_their_accents_or_are_spelled_otherwise(name: str) -> None:
    encoded = MADE[name].encode("Café∮, straße in Hawaiʻi")
    assert encoded.tokens == MADE[name].encode("cafe, strasse in hawaii").tokens
    assert "∮" in encoded.dropped and not {"é", "ß", "ʻ"} & set(encoded.dropped)


@pytest.mark.parametrize("name", ["characters", "bytes"])
def test_words_that_one_written_word_is_read_as_stand_apart(name: str) -> None:
    encoded = MADE[name].encode("It cost $3, twenty-one.")
    assert encoded.phonemes == "It cost three dollars, twenty one."
    assert encoded.tokens == MADE[name].encode("It cost three dollars, twenty one.").tokens
    assert [w.text for w in encoded.words] == ["It", "cost", "$3", "twenty-one"]


def test_bytes_are_those_of_utf_8() -> None:
    encoded = MADE["bytes of any language"].encode("日本")
    assert encoded.tokens == tuple(b + 1 for b in "日本".encode())
    assert [w.text for w in encoded.words] == ["日本"]
    english = MADE["bytes"].encode("I have 2.")
    assert bytes(token - 1 for token in english.tokens).decode().lower() == "i have two."


def spelled(frontend: Frontend, text: str) -> str:
    return "".join(SYMBOLS[token - 1] for token in frontend.encode(text).tokens)


def test_a_vocabulary_reads_characters_in_their_case() -> None:
    out, plain = MADE["vocabulary"], MADE["vocabulary as it stands"]
    assert spelled(out, "Dr. No paid $3 (twice).") == "doctor No paid three dollars , twice,."
    assert [w.text for w in out.encode("Dr. No paid $3.").words] == ["Dr.", "No", "paid", "$3"]
    assert spelled(plain, "Dr. No paid $3 (twice); “Café”.") == 'Dr. No paid $3 ( twice), "Café".'
    # blanks where the published text has them, which its segmentation puts before words that follow a mark
    assert spelled(plain, "Wait...what? No,never, twenty-one.") == "Wait ... what? No, never, twenty-one."
    assert plain.encode("a b").tokens == (SYMBOLS.index("a") + 1, 1, SYMBOLS.index("b") + 1)


def test_what_a_vocabulary_lacks_is_told_and_takes_the_blanks_place() -> None:
    plain = MADE["vocabulary as it stands"]
    encoded = plain.encode("Wörter ∮ und жук☃.")
    assert encoded.dropped == ("∮", "☃")
    # the blank in the first word is the published text's too: its segmentation cuts words at letters with marks
    assert spelled(plain, "Wörter ∮ und жук☃.") == "Wo rter   und zhuk ."
    with pytest.raises(TextError, match="can be spoken"):
        plain.encode("☃ ∮")


def test_a_vocabulary_begins_with_the_blank() -> None:
    for symbols in (["a", " "], [" ", "a", "a"], []):
        with pytest.raises(ConfigError):
            build({"name": "vocabulary", "symbols": symbols})


def test_a_request_names_the_language_that_a_vocabulary_is_read_in() -> None:
    german = MADE["vocabulary"].of(SynthesisRequest(text="", language="de"))
    assert spelled(german, "Ich habe 2.") == "Ich habe zwei."
    assert MADE["vocabulary"].of(SynthesisRequest(text="")) is MADE["vocabulary"]


def test_bytes_of_symbols_are_those_of_the_text() -> None:
    assert symbol_bytes([" ", "a", "é", "，", "ni3", "nü3"]) == (0, 1, 1, 2, 3, 2, 2)


def test_chinese_is_read_by_syllables_where_they_are_in_the_vocabulary() -> None:
    symbols = [*SYMBOLS, "ni3", "ni2", "hao3", "hang2", "yin2", "zhang3"]
    frontend = build({"name": "vocabulary", "symbols": symbols})
    if find_spec("pypinyin") is None or find_spec("rjieba") is None:
        with pytest.raises(DependencyError, match="flowtts.chinese"):
            frontend.encode("你好")
        return
    encoded = frontend.encode("I say 2 你好，银行行长。")
    said = [symbols[token - 1] for token in encoded.tokens]
    assert "".join(said) == "I say two  ni2 hao3， yin2 hang2 hang2 zhang3。"
    assert [w.text for w in encoded.words] == ["I", "say", "2", *"你好银行行长"]
    assert encoded.dropped == ()


def test_a_voices_front_end_reads_another_language_with_the_same_tokens() -> None:
    english = load_card("natural").parts["frontend"]
    german = in_language(english, "de")
    assert (german["language"], german["phonemizer"], german["alphabet"]) == ("de", "gruut", "misaki")
    assert english["table"].items() <= german["table"].items()
    assert len(set(german["table"].values())) == len(german["table"]) and "ʏ" in german["table"]
    encoded = build(german).encode("Die hübschen Bücher.")
    assert encoded.dropped == () and german["table"]["ʏ"] in encoded.tokens
    assert in_language(english, "en-gb")["table"] == english["table"]
    with pytest.raises(ConfigError, match="no language 'xx'"):
        in_language({"name": "phonemes"}, "xx")
