"""What every front end of the table must hold, and what those without phonemes do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.config import spec_of
from flowtts_core.engines.kokoro import read_vocab
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.frontends import FRONTENDS, Frontend, PhonemeFrontend, build, in_language
from flowtts_core.text.frontends.characters import LATIN
from flowtts_core.voice.card import load_card
from tests.flowtts_core.test_frontend import SENTENCES, check
from tests.onnx_graphs import LETTERS

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
    check(text, encoded, MADE[name].n_symbols)


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_are_encoded_the_same_each_time(frontend: Frontend, text: str) -> None:
    try:
        encoded = frontend.encode(text)
    except TextError:
        pytest.skip("of another script")
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


def test_bytes_are_those_of_utf_8() -> None:
    encoded = MADE["bytes of any language"].encode("日本")
    assert encoded.tokens == tuple(b + 1 for b in "日本".encode())
    assert [w.text for w in encoded.words] == ["日本"]
    english = MADE["bytes"].encode("I have 2.")
    assert bytes(token - 1 for token in english.tokens).decode().lower() == "i have two."


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
