"""What is written and how it is read: a table of truths."""

from __future__ import annotations

import pytest

from flowtts_core.text.normalize import normalize, read_out
from flowtts_core.text.phonemes import GruutPhonemizer

KNOWS = GruutPhonemizer().knows

READINGS = [
    # numbers
    ("I saw 3 men.", "I saw three men."),
    ("1,234,567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
    ("3.14", "three point one four"),
    (".5", "point five"),
    ("-5 degrees", "minus five degrees"),
    ("agent 007", "agent zero zero seven"),
    ("2.0.1", "two point zero point one"),
    ("1500 men", "fifteen hundred men"),
    ("3000 men", "three thousand men"),
    ("the 21st, 2nd and 103rd", "the twenty first, second and one hundred and third"),
    ("a 5-year-old", "a five year old"),
    # years
    ("born in 1984.", "born in nineteen eighty four."),
    ("in 1066", "in ten sixty six"),
    ("in 1905", "in nineteen oh five"),
    ("by 2024", "by twenty twenty four"),
    ("in 2000", "in two thousand"),
    ("the 1900s", "the nineteen hundreds"),
    ("the 1960s and '70s", "the nineteen sixties and seventies"),
    ("1914–18", "nineteen fourteen to eighteen"),
    ("1914-1918", "nineteen fourteen to nineteen eighteen"),
    ("c. 1850", "circa eighteen fifty"),
    # money
    ("$3.50", "three dollars and fifty cents"),
    ("$1", "one dollar"),
    ("$0.99", "ninety nine cents"),
    ("£2m", "two million pounds"),
    ("$3.5 billion", "three point five billion dollars"),
    ("5¢", "five cents"),
    ("€20 or 20€", "twenty euros or twenty euros"),
    ("£1.01", "one pound and one penny"),
    ("saved $1,500, as", "saved one thousand five hundred dollars, as"),
    ("£4 10s. 6d.", "four pounds ten shillings six pence."),
    ("US$20", "twenty U S dollars"),
    ("$5/kg", "five dollars per kilogram"),
    # times and dates
    ("at 3:45 pm", "at three forty five P M"),
    ("10:00", "ten o'clock"),
    ("at 3:05", "at three oh five"),
    ("at 11:50 a.m. and", "at eleven fifty A M and"),
    ("at 8 p.m.", "at eight P M."),
    ("5 p.m. Then", "five P M. Then"),
    ("13:05:20", "thirteen oh five and twenty seconds"),
    ("on November 22, 1963", "on November twenty second, nineteen sixty three"),
    ("20 March 1915", "the twentieth of March nineteen fifteen"),
    ("the 20 March", "the twentieth of March"),
    ("22nd August", "twenty second August"),
    ("Sept. 11, 2001", "September eleventh, two thousand and one"),
    ("2024-03-15", "March fifteenth twenty twenty four"),
    ("3/15/2024", "March fifteenth twenty twenty four"),
    # fractions, percent, ranges
    ("1/2", "one half"),
    ("3/4 of it", "three quarters of it"),
    ("2 1/2 miles", "two and a half miles"),
    ("1½ miles", "one and a half miles"),
    ("⅔", "two thirds"),
    ("7/8", "seven eighths"),
    ("5/0", "five over zero"),
    ("50%", "fifty percent"),
    ("3–5%", "three to five percent"),
    ("pages 10-12", "pages ten to twelve"),
    ("16:9", "sixteen to nine"),
    ("24/7", "twenty four seven"),
    # digits
    ("call 555-1234", "call five five five, one two three four"),
    ("C2766", "C two seven six six"),
    ("PO Box 2915", "P O Box two nine one five"),
    ("214 Neely Street", "two fourteen Neely Street"),
    (".45 caliber", "forty five caliber"),
    # Roman numerals
    ("Chapter IV", "Chapter four"),
    ("Chapter I", "Chapter one"),
    ("Henry VIII was", "Henry the eighth was"),
    ("World War II", "World War two"),
    ("Pope John Paul II", "Pope John Paul the second"),
    ("Act III, scene ii", "Act three, scene two"),
    ("the XIV century", "the fourteenth century"),
    ("IX", "nine"),
    ("I. Introduction", "one. Introduction"),
    ("I am here, and so am I.", "I am here, and so am I."),
    ("Yes, I did.", "Yes, I did."),
    # abbreviations
    ("Mr. and Mrs. Smith", "mister and missus Smith"),
    ("Mr Smith", "mister Smith"),
    ("Dr. Jones", "doctor Jones"),
    ("Main St. in St. Louis", "Main street in saint Louis"),
    ("King Dr. near", "King drive near"),
    ("e.g. apples, i.e. fruit", "for example apples, that is fruit"),
    ("cats vs. dogs", "cats versus dogs"),
    ("and so on, etc.", "and so on, et cetera."),
    ("No. 7", "number seven"),
    ("No. I said no.", "No. I said no."),
    ("Prof. Lee and Capt. Cook", "professor Lee and captain Cook"),
    ("Smith & Co. Ltd.", "Smith and company limited."),
    ("vol. 2, pp. 10-12", "volume two, pages ten to twelve"),
    ("Edwin A. Walker", "Edwin A Walker"),
    # units
    ("5 km and 10 kg", "five kilometers and ten kilograms"),
    ("1 km", "one kilometer"),
    ("20°C", "twenty degrees Celsius"),
    ("1°", "one degree"),
    ("3 mph", "three miles an hour"),
    ("6 ft. tall", "six feet tall"),
    ("5'10\" tall", "five foot ten tall"),
    ("100 m²", "one hundred square meters"),
    # symbols
    ("you & me", "you and me"),
    ("2 + 2 = 4", "two plus two equals four"),
    ("3 × 4", "three times four"),
    ("3 x 4", "three times four"),
    ("±2", "plus or minus two"),
    ("#1 and #flow", "number one and hashtag flow"),
    ("the α particle", "the alpha particle"),
    # capitals
    ("the FBI said", "the F B I said"),
    ("the U.S.A. and", "the U S A and"),
    ("the U.S. Army", "the U S Army"),
    ("NASA said", "NASA said"),
    ("THE TIME MACHINE", "THE TIME MACHINE"),
    ("it was NOT there", "it was NOT there"),
    ("COVID-19", "COVID nineteen"),
    ("H2O", "H two O"),
    # addresses
    ("me@example.com", "me at example dot com"),
    ("https://www.example.org/news.", "example dot org slash news."),
    # characters
    ("“Don’t,” she said", '"Don\'t," she said'),
    ("the ﬁnal oﬃce", "the final office"),
    ("wait--what", "wait, what"),
    ("wait — what", "wait, what"),
    ("Well... yes…", "Well, yes."),
    ("a\x00b\x07c", "abc"),
    ("Cafe\u0301", "Café"),
    ("non\u00adsense", "nonsense"),
]


@pytest.mark.parametrize(("written", "read"), READINGS, ids=[written for written, _ in READINGS])
def test_readings(written: str, read: str) -> None:
    assert read_out(written, KNOWS) == read


@pytest.mark.parametrize("text", [written for written, _ in READINGS])
def test_pieces_stand_in_order_within_the_text(text: str) -> None:
    pieces = normalize(text, True, KNOWS)
    assert all(0 <= p.start <= p.end <= len(text) for p in pieces)
    assert all(
        a.end <= b.start or (a.start, a.end) == (b.start, b.end) for a, b in zip(pieces, pieces[1:], strict=False)
    )


def test_pieces_know_their_source() -> None:
    text = "It cost $3.50 in the ﬁrst week."
    spans = {p.text: text[p.start : p.end] for p in normalize(text) if p.spoken}
    assert spans["dollars"] == spans["cents"] == "$3.50"
    assert spans["first"] == "ﬁrst"
    assert spans["week"] == "week"


def test_plain_text_is_left_as_it_is() -> None:
    text = "It was a bright cold day in April, and the clocks were striking thirteen."
    pieces = normalize(text)
    assert [p.text for p in pieces if p.spoken] == text.replace(",", "").replace(".", "").split()
