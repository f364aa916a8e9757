"""Letters, signs, codes, measures, money and abbreviations that English books hold: what is written and how it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.text.books.read import read_document
from flowtts_core.text.normalize import normalize
from flowtts_core.text.sentences import split_sentences
from tests.flowtts_core.test_normalize import KNOWS, read_out

OTHER_LETTERS = [
    ("Aloha from Hawaiʻi to Иван.", "Aloha from Hawaii to Ivan."),
    ("the Qurʾān, Oʻahu", "the Qurān, Oahu"),
    ("an ʿAbbāsid caliph", "an Abbāsid caliph"),
    ("Gogolʹ met Шостакович", "Gogol met Shostakovich"),
    ("He said λόγος.", "He said logos."),
    ("Tokyo 東京 is large", "Tokyo Dong Jing is large"),
    ("type Ж5 and café2", "type Zh five and café two"),
    ("the glyph ③ or Ⅻ", "the glyph three or twelve"),
]
SIGNS = [
    ("the ∑ of it", "the sum of it"),
    ("I write C# and F#.", "I write C sharp and F sharp."),
    ("3·4", "three times four"),
    ("5*6 and 5 * 6", "five times six and five times six"),
    ("F#m7", "F sharp M seven"),
    ("B♭ and F♯", "B flat and F sharp"),
    ("x ∈ A ∪ B", "x in A union B"),
    ("§§ 4–6 and § 9", "sections four to six and section nine"),
]
MEASURES = [
    ("2 µg", "two micrograms"),
    ("4.7 µF", "four point seven microfarads"),
    ("5 kΩ and 1 Ω", "five kilohms and one ohm"),
    ("1.2E6", "one point two times ten to the sixth"),
    ("6.022E23", "six point zero two two times ten to the twenty third"),
    ("1.6e-19", "one point six times ten to the minus nineteenth"),
    ("10^8 m/s", "ten to the power of eight meters per second"),
    ("90 mg/dL, 3 µg/m³", "ninety milligrams per deciliter, three micrograms per cubic meter"),
    ("a 5 kΩ resistor", "a five kilohm resistor"),
    (
        "5 mg/kg/day, 20 fl. oz., 3 kWh",
        "five milligrams per kilogram per day, twenty fluid ounces, three kilowatt hours",
    ),
    ("3 yrs and 1 yr.", "three years and one year."),
    ("2 tbsp. of oil, 1 tsp salt", "two tablespoons of oil, one teaspoon salt"),
    ("20 sq. mi. of 500 sq ft", "twenty square miles of five hundred square feet"),
    ("–40 °C", "minus forty degrees Celsius"),
    ("from –40 to −10", "from minus forty to minus ten"),
    ("26′ 46″ N", "twenty six minutes forty six seconds north"),
    (
        "51° 26′ 46″ N, 0° 7′ W",
        "fifty one degrees twenty six minutes forty six seconds north, zero degrees seven minutes west",
    ),
    ("40°N", "forty degrees north"),
]
MONEY = [
    ("₩5,000", "five thousand won"),
    ("₽300 or 300 ₽", "three hundred rubles or three hundred rubles"),
    ("₺1 and ₪20", "one lira and twenty shekels"),
    ("R$50", "fifty reais"),
    ("R$1", "one real"),
    ("A$10", "ten Australian dollars"),
    ("a C$5 bill, NZ$3.50", "a five Canadian dollar bill, three New Zealand dollars and fifty cents"),
    ("10 000 €", "ten thousand euros"),
    (
        "€1.234,56",
        "one thousand two hundred and thirty four euros and fifty six cents",
    ),
    ("3,50 €", "three euros and fifty cents"),
    ("₹1,00,000, 25 000 USD", "one hundred thousand rupees, twenty five thousand U S dollars"),
    ("R$2.000,50 for $4.50/share", "two thousand reais and fifty centavos for four dollars and fifty cents per share"),
    ("tickets at 2/6", "tickets at two and six"),
    ("10/6 and 2/- each", "ten and six and two shillings each"),
    ("The hat cost 10/6.", "The hat cost ten and six."),
    ("£1/2/6", "one pound two and six"),
    ("10/6 of them", "ten sixths of them"),
]
CODES = [
    ("ISBN 978-0-13-468599-1", "I S B N nine seven eight, zero, one three, four six eight five nine nine, one"),
    ("NY 10001-1234", "N Y one zero zero zero one, one two three four"),
    ("call 0800 555 019", "call zero eight zero zero, five five five, zero one nine"),
    ("zip 90210", "zip nine zero two one zero"),
    ("Albany, NY 12207", "Albany, N Y one two two zero seven"),
    ("the 747-400 and a 737-800", "the seven forty seven four hundred and a seven thirty seven eight hundred"),
    ("1-800-555-0199", "one, eight zero zero, five five five, zero one nine nine"),
    ("078-05-1120", "zero seven eight, zero five, one one two zero"),
    ("a 4-4-2 line-up", "a four four two line up"),
    ("12-25-1999", "December twenty fifth nineteen ninety nine"),
    ("pages 321-25", "pages three hundred and twenty one to twenty five"),
    ("won 110-105", "won one hundred and ten to one hundred and five"),
]
FORMS = [
    ("the mid-1990s", "the mid nineteen nineties"),
    ("in Oct 1890", "in October eighteen ninety"),
    ("on Mon 5 Nov 2020", "on Monday the fifth of November twenty twenty"),
    ("5. Nov 2020", "the fifth of November twenty twenty"),
    ("the 2d Regiment", "the second Regiment"),
    ("the 22d of June and Aug. 3d, 1862", "the twenty second of June and August third, eighteen sixty two"),
    ("May 2d and June 1st–3rd", "May second and June first to third"),
    ("1990–1 and 1905–6", "nineteen ninety to ninety one and nineteen oh five to six"),
    ("Louis XIV–XVI", "Louis the fourteenth to the sixteenth"),
    ("Chapters IV–VI", "Chapters four to six"),
    ("the XIV–XVI centuries", "the fourteenth to sixteenth centuries"),
    ("pages iv–ix, pp. xii–xv", "pages four to nine, pages twelve to fifteen"),
    ("Vols. I–III", "volumes one to three"),
    ("at 7.45 by the 4.15", "at seven forty five by the four fifteen"),
    ("The 7.05 train leaves at 8.00.", "The seven oh five train leaves at eight o'clock."),
    ("at 7.45 percent by train", "at seven point four five percent by train"),
    ("sold at 7.45", "sold at seven point four five"),
    ("Chapter 01", "Chapter one"),
    ("Track 007, agent 007", "Track seven, agent zero zero seven"),
    ("on Feb. 14th", "on February fourteenth"),
    ("ed. 3", "edition three"),
    ("1 Sam. 3:4", "first Samuel three four"),
    ("the 3rd Inf. Div. came", "the third infantry division came"),
]


def _named(*tables: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [row for table in tables for row in table]


ALL = _named(OTHER_LETTERS, SIGNS, MEASURES, MONEY, CODES, FORMS)


@pytest.mark.parametrize(("written", "read"), ALL, ids=[written for written, _ in ALL])
def test_what_books_write_is_read(written: str, read: str) -> None:
    assert read_out(written, KNOWS) == read


@pytest.mark.parametrize(
    "sentences",
    [
        ["We met on Feb. 14th.", "It snowed."],
        ["See Smith, ed. 3, 1990.", "It is there."],
        ["See ed. 3 of it.", "Then go."],
        ["He read 1 Sam. 3:4 aloud.", "We slept."],
        ["The 3rd Inf. Div. marched.", "It rained."],
        ["Am 5. Nov 2020 kam er.", "Er ging."],
        ["It was 5. Nov 2020 then.", "He left."],
        ["He came in Oct. 1890.", "She came in Nov.", "The rest came later."],
        ["Add 2 tbsp. of oil.", "Stir."],
        ["See sec. 3 of it.", "It took 5 sec.", "3 men came."],
        ["It was £3 6s. 8d. in all.", "He paid."],
        ["It was room 5.", "May I come in?", "He had 5.", "November came."],
    ],
)
def test_abbreviations_end_no_sentence_before_what_belongs_to_them(sentences: list[str]) -> None:
    assert [s.text for s in split_sentences(" ".join(sentences))] == sentences


def lost(text: str) -> str:
    """Return the letters and digits of a text that are neither spoken nor listed as not spoken."""
    told = {
        i for piece in normalize(text, "en-us", KNOWS) if piece.kind != "mark" for i in range(piece.start, piece.end)
    }
    return "".join(c for i, c in enumerate(text) if c.isalnum() and i not in told)


def test_each_letter_and_digit_of_whole_books_is_spoken_or_listed(shared_data: Path) -> None:
    for name in ("alice-in-wonderland.txt", "the-time-machine.epub"):
        chapters = read_document(shared_data / "books" / name).chapters
        sentences = [sentence.text for chapter in chapters for sentence in chapter.sentences]
        assert len(sentences) > 1000
        assert {text: gone for text in sentences if (gone := lost(text))} == {}


@pytest.mark.parametrize(
    "text", [*(written for written, _ in ALL), "the treaty² was", "5₽ ∮ кг5 5кг ²", "x~9 <5> #", "𐀀5"]
)
def test_each_letter_and_digit_is_spoken_or_listed(text: str) -> None:
    assert lost(text) == ""


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.text("Aaé5٣²Ⅳ日йʻ'-–.,/ €₽°#\n", max_size=30))
def test_each_letter_and_digit_of_any_text_is_spoken_or_listed(text: str) -> None:
    assert lost(text) == ""


def test_signs_with_a_meaning_are_listed_and_ornaments_are_not() -> None:
    pieces = normalize("a ∮ b ¤5 😀 \ufffd and ★ • © | _ * ok", "en-us", KNOWS)
    assert [piece.text for piece in pieces if piece.kind == "skip"] == ["∮", "¤", "😀", "\ufffd"]
