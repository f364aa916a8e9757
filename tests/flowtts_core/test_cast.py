"""A cast: tags, quotations and marks give sentences their voices; no word is lost, and what is not told apart is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.books.read import read_document
from flowtts_core.text.cast import Cast, direct, directed_row, directed_text, load_cast
from flowtts_core.text.document import Document, Sentence, TextRow
from flowtts_core.text.marks import Manner
from flowtts_core.text.sentences import Pauses

ANNA, BOB, NARRATOR, QUOTED = Manner(1.0, "heart"), Manner(1.25, "@bob"), Manner(1.0, "natural"), Manner(1.0, "joe")
CAST = Cast({"anna": ANNA, "bob": BOB})


def document(text: str) -> Document:
    return read_document(text.encode(), "story.txt")


def sentences(text: str, cast: Cast | None = None) -> list[Sentence]:
    return [s for chapter in direct(document(text), cast).chapters for s in chapter.sentences]


def voiced(text: str, cast: Cast | None = None) -> list[tuple[str | None, str]]:
    return [(s.voice, s.text) for s in sentences(text, cast)]


def test_lines_of_characters_are_spoken_by_their_voices() -> None:
    text = "It began.\n\n[Anna] Hello there. How are you?\n[BOB]: Well, thanks.\n\nThey went [sic] home. [1] Then"
    assert voiced(text, CAST) == [
        (None, "It began."),
        ("heart", "Hello there."),
        ("heart", "How are you?"),
        ("@bob", "Well, thanks."),
        (None, "They went [sic] home."),
        (None, "[1] Then"),
    ]
    assert [s.rate for s in sentences(text, CAST)] == [1, 1, 1, 1.25, 1, 1]


def test_without_a_cast_and_marks_a_document_comes_back_as_it_is() -> None:
    read = document("[Anna] Hello. [sic] “Well,” he said.\n\n[Pause: she sits.] The end.")
    assert direct(read) is not None and direct(read) == read


def test_marks_may_name_a_character_and_hold_over_paragraphs() -> None:
    text = "One. [voice:Anna]Two.\n\nThree.[/voice] [pause:2s] Four [rate:0.8]five[/rate]."
    assert voiced(text, CAST) == [
        (None, "One."), ("heart", "Two."), ("heart", "Three."), (None, "Four"), (None, "five.")
    ]  # fmt: skip
    assert [s.pause_s for s in sentences(text, CAST)] == [0.35, 0.7, 2.0, 0.0, 0.7]
    assert [s.rate for s in sentences(text, CAST)] == [1, 1, 1, 1, 0.8]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("“I know,” said he. “Go!”", ["“I know,”", "“Go!”"]),
        ('"I know," said he, "so go!"', ['"I know,"', '"so go!"']),
        ("‘I don’t know,’ said he, ‘but go!’", ["‘I don’t know,’", "‘but go!’"]),
        ("He spoke.\n\n“It began\n\n“and it ended.” Yes.", ["“It began", "“and it ended.”"]),
        ('His “so-called” friends’ house, the 6" pipe and the dogs’ tails.', []),
        ("„Ich gehe“, sagte er. «Oui», dit-il.", ["„Ich gehe“", "«Oui»"]),
        ("An “unclosed quotation, and more. Then he left.", []),
    ],
)
def test_what_is_said_is_told_from_what_is_quoted(text: str, quoted: list[str]) -> None:
    cast = Cast(narrator=NARRATOR, dialogue=QUOTED)
    found = sentences(text, cast)
    assert [s.text.rstrip(",") if s.text[0] in "„«" else s.text for s in found if s.voice == "joe"] == quoted
    letters = [c for c in text if c.isalnum()]
    assert [c for s in found for c in s.text if c.isalnum()] == letters


def test_a_tag_goes_before_quotation_marks_and_headings_are_the_narrators() -> None:
    text = "# “A Title.”\n\n[Anna] “I know,” I said.\n\n“Go!”"
    cast = Cast({"anna": ANNA}, NARRATOR, QUOTED)
    assert voiced(text, cast) == [("natural", "“A Title.”"), ("heart", "“I know,” I said."), ("joe", "“Go!”")]


def test_names_that_the_cast_lacks_are_told() -> None:
    directed = direct(document("[Anna] One.\n\n[Carl] Two.\n\n[Carl] Three.\n\n[sic] four"), CAST)
    assert directed.warnings == ("[Carl] begins 2 paragraphs and is not in the cast: read as it stands",)
    assert "[Carl] Two." in [s.text for s in directed.chapters[0].sentences]


def test_a_mark_that_cannot_be_followed_names_chapter_and_line() -> None:
    with pytest.raises(TextError, match=r"chapter 'story', line 3: \[pause:2\]"):
        direct(document("One.\n\nTwo. [pause:2] Three."))


def test_a_cast_file_is_json_or_toml(tmp_path: Path) -> None:
    (tmp_path / "cast.toml").write_text(
        'narrator = "natural"\ndialogue = "@b"\n[Anna]\nvoice = "x"\nspeaker = "y"\nspeed = 1.5\n'
    )
    (tmp_path / "cast.json").write_text(
        json.dumps({"Narrator": "natural", "dialogue": {"speaker": "b"}, "anna": {"voice": "x@y", "speed": 1.5}})
    )
    one, other = load_cast(str(tmp_path / "cast.toml")), load_cast(str(tmp_path / "cast.json"))
    assert one == other == Cast({"anna": Manner(1.5, "x@y")}, Manner(1.0, "natural"), Manner(1.0, "@b"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "nobody"),
        ("{}", "nobody"),
        ("{", "cannot be read"),
        ('{"Anna": 3}', "'Anna': 3"),
        ('{"Anna": {"pitch": 2}}', "'Anna'"),
        ('{"Anna": {"voice": "x", "speed": 9}}', "speed 9"),
        ('{"Anna": "x", "ANNA": "y"}', "'ANNA' is there twice"),
    ],
)
def test_a_bad_cast_file_is_named_with_its_entry(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "cast.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_cast(str(path))
    assert named in error.value.message and str(path) in error.value.message
    with pytest.raises(ConfigError):
        load_cast(str(tmp_path / "none.json"))


def test_rows_of_one_character_take_its_voice_and_others_have_marks() -> None:
    assert directed_row(TextRow("a", "[Bob] Hello."), CAST) == TextRow("a", "Hello.", "@bob", {"speed": 1.25})
    assert directed_row(TextRow("a", "Hello."), CAST) == TextRow("a", "Hello.")
    assert directed_row(TextRow("a", "[Bob] Hello.", "amy"), CAST).voice == "amy"
    assert directed_row(TextRow("a", "[Anna] Hi. [pause:1s] Bye. Well."), CAST).text == (
        "[voice:heart]Hi. [pause:1s] Bye. Well.[/voice]"
    )
    assert directed_text("So: [Anna] Hi. [Bob] Bye.", CAST) == (
        "So: [voice:heart]Hi.[/voice] [voice:@bob][rate:1.25]Bye.[/rate][/voice]"
    )


def test_who_speaks_in_a_cue_has_the_voice_of_the_cast() -> None:
    anna, zoe = TextRow("a", "Hi.", character="ANNA"), TextRow("a", "Hi.", character="Zoe")
    assert directed_row(anna, CAST) == TextRow("a", "Hi.", "heart")
    assert directed_row(zoe, CAST) == TextRow("a", "Hi.")
    assert directed_row(zoe, Cast({"anna": ANNA}, NARRATOR)) == TextRow("a", "Hi.", "natural")


def test_names_are_found_whatever_their_apostrophes_and_accents() -> None:
    cast = Cast({"o'neil": ANNA, "zo\u00e9": BOB})
    assert [voice for voice, _ in voiced("[O\u2019Neil] Hi.\n\n[ZOE\u0301] Ho.", cast)] == ["heart", "@bob"]


def test_straight_single_quotes_are_speech_where_they_are_no_apostrophes() -> None:
    text = "'Come,' he said. 'Twas night; the boys' cat slept. 'It's so!' The '90s 'friend' left."
    assert [said for voice, said in voiced(text, Cast({}, dialogue=QUOTED)) if voice == "joe"] == [
        "'Come,'",
        "'It's so!'",
    ]


def test_an_ssml_file_is_a_document_with_pauses_rates_and_voices() -> None:
    ssml = (
        "<?xml version='1.0'?>\n<speak>\n<p>One <sub alias='doctor'>Dr</sub>.<break time='2s'/></p>"
        "<voice name='Anna'><p>Two.</p><p><prosody rate='slow'>Three.</prosody></p></voice></speak>"
    )
    read = direct(read_document(ssml.encode(), "talk.ssml", pauses=Pauses(paragraph=0.5)), CAST)
    assert [(s.text, s.voice, s.rate, s.pause_s) for s in read.chapters[0].sentences] == [
        ("One [sub:doctor]Dr[/sub].", None, 1.0, 2.0), ("Two.", "heart", 1.0, 0.5), ("Three.", "heart", 0.8, 0.5)
    ]  # fmt: skip
    with pytest.raises(TextError, match="talk.ssml: SSML, line 2: <audio> is not followed"):
        read_document(b"<speak>\n<audio/></speak>", "talk.ssml")
