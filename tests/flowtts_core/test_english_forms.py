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


SHORT = [
    ("the gov't and Gen'l Lee, Capt'n Ahab", "the government and general Lee, captain Ahab"),
    ("open Mon.–Fri., Jan–Mar 2020", "open Monday to Friday, January to March twenty twenty"),
    ("go w/o it, c/o Mrs Bell", "go without it, care of missus Bell"),
    ("open notes.txt and Node.js", "open notes dot T X T and Node dot J S"),
    (
        "12 N. Main St., 9 W. Oak Ave. and W. 42nd St.",
        "twelve north Main street, nine west Oak avenue and west forty second street.",
    ),
    ("N. Dakota, but N. Smith", "north Dakota, but N Smith"),
    ("from A–Z and a-z", "from A to Z and A to Z"),
    ("the XXIst and XVIIIth centuries", "the twenty first and eighteenth centuries"),
    ("an XVIII-century house, Gt. Britain", "an eighteenth century house, great Britain"),
    ("in MDCCLXXVI, © MCMXCIV", "in seventeen seventy six, nineteen ninety four"),
    ("xii, xiii and (iv)", "twelve, thirteen and , four,"),
    ("(i) this (ii) that", ", one, this , two, that"),
    ("(h) this (i) that", ", h, this , i, that"),
    ("Types I and II, errors I or II", "Types one and two, errors one or two"),
    ("Nº 5 and at No 10", "number five and at number ten"),
    ("No 10 men came.", "No ten men came."),
    ("the early 20th c. was", "the early twentieth century was"),
    ("Ivan IV, Umberto I, Harald V", "Ivan the fourth, Umberto the first, Harald the fifth"),
    ("Henry Ford II and Rocky III", "Henry Ford the second and Rocky three"),
    (
        "c.1500, fl. 1320 (b. 1809, d. 1882)",
        "circa fifteen hundred, flourished thirteen twenty , born eighteen oh nine, died eighteen eighty two,",
    ),
    ("Fr. Brown, Sr. Mary, Sammy Davis Sr. sang", "father Brown, sister Mary, Sammy Davis senior sang"),
    ("Apt. 4, Ste. 200, Rte. 66, ext. 12", "apartment four, suite two hundred, route sixty six, extension twelve"),
    ("pp. 45 ff., Matt. 5:3ff.", "pages forty five and following, Matthew five three and following."),
    ("350 degrees F and 20 degrees C.", "three hundred and fifty degrees Fahrenheit and twenty degrees Celsius."),
]
SIZES = [
    ("a 2x4, a 1920x1080 screen", "a two by four, a nineteen twenty by ten eighty screen"),
    ("a 10' x 12' room, 3 m x 4 m", "a ten foot by twelve foot room, three meters by four meters"),
    ('a 12" record, 5/8" thick', "a twelve inch record, five eighths inch thick"),
    ('He said, "I am 12" and left.', 'He said, "I am twelve" and left.'),
    ("8st 6lb and the 21st, 8th", "eight stone six pounds and the twenty first, eighth"),
    ("4 m2, 10 ft/s², 5 kts", "four square meters, ten feet per second squared, five knots"),
    ("7.9bn people, 3 tn stars", "seven point nine billion people, three trillion stars"),
    ("-$50, wait--$5, $5/kg.", "minus fifty dollars, wait, five dollars, five dollars per kilogram."),
    ("$19.99/mo and 500 SEK", "nineteen dollars and ninety nine cents per month and five hundred Swedish kronor"),
    ("a 50-50 chance, 20-20 vision", "a fifty fifty chance, twenty twenty vision"),
    (
        "call 911, a 911 call, a Porsche 911",
        "call nine one one, a nine one one call, a Porsche nine hundred and eleven",
    ),
    (
        "rated 9.5/10, 1:2.5, a scale of 1:50,000",
        "rated nine point five out of ten, one to two point five, a scale of one to fifty thousand",
    ),
    ("5° C and 70 deg. there", "five degrees Celsius and seventy degrees there"),
    ("Rs. 500 crore", "five hundred crore rupees"),
    ("1-800-FLOWERS", "one, eight hundred, FLOWERS"),
]
DATES = [
    ("2021-07-04T09:30:00Z", "July fourth twenty twenty one, nine thirty U T C"),
    ("2023/01/02 and 1-Feb-2023", "January second twenty twenty three and the first of February twenty twenty three"),
    ("3–5 May, May 3–5, Sept. 1-3", "the third to the fifth of May, May third to fifth, September first to third"),
    ("Feb '23", "February twenty three"),
    ("At 0600 hours; by 1830 hrs; 0005 hours", "At oh six hundred hours; by eighteen thirty hours; zero oh five hours"),
    ("he worked 1200 hours", "he worked one thousand two hundred hours"),
]


def _named(*tables: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [row for table in tables for row in table]


ALL = _named(OTHER_LETTERS, SIGNS, MEASURES, MONEY, CODES, FORMS, SHORT, SIZES, DATES)


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
        ["He lives in D.C. in Rm. 5, Bldg. 7, Ext. 9.", "He works for the U.S. Army."],
        ["He is in D.C.", "He works on 5th Ave.", "It is far: 20 min.", "Then he left J. R. Smith."],
        ["So says Smith (1990).", "Brown (1991) says so on x.com.", "It is so."],
        ["1. Eggs.", "2. Milk.", "3. Tea."],
        ["Fredk. Douglass met Ens. Kim at Pt. Reyes.", "He left."],
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
