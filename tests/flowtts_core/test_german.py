"""German: what is written and how it is read, its sounds, and where its sentences end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.errors import DependencyError
from flowtts_core.metrics.languages import normalizer_of
from flowtts_core.metrics.wer import alignment, errors_of
from flowtts_core.text import frontends
from flowtts_core.text.chunking import speakable_chunks
from flowtts_core.text.normalize import normalize
from flowtts_core.text.sentences import split_sentences

READINGS = [
    # numbers
    ("3 Männer", "drei Männer"),
    ("1 Mann und 1 Frau", "ein Mann und eine Frau"),
    ("Platz 1", "Platz eins"),
    ("1.234.567", "eine Million zweihundertvierunddreißigtausendfünfhundertsiebenundsechzig"),
    ("10 000 Menschen", "zehntausend Menschen"),
    ("3,14", "drei Komma eins vier"),
    ("-5 Grad", "minus fünf Grad"),
    ("007", "null null sieben"),
    ("Version 2.0.1", "Version zwei Punkt null Punkt eins"),
    ("2,5 Mio. Menschen", "zwei Komma fünf Millionen Menschen"),
    ("1/2 Liter, 3/4 und 2½", "ein halb Liter, drei viertel und zwei und ein halb"),
    ("10–20 Leute", "zehn bis zwanzig Leute"),
    ("Es stand 3:2.", "Es stand drei zu zwei."),
    # years
    ("Er wurde 1984 geboren.", "Er wurde neunzehnhundertvierundachtzig geboren."),
    ("1066", "eintausendsechsundsechzig"),
    ("1905 und 2024", "neunzehnhundertfünf und zweitausendvierundzwanzig"),
    ("1914–1918", "neunzehnhundertvierzehn bis neunzehnhundertachtzehn"),
    ("die 80er Jahre, die 1960er", "die achtziger Jahre, die neunzehnhundertsechziger"),
    ("300 v. Chr.", "dreihundert vor Christus."),
    # dates, ordinals and times
    ("am 3. Oktober 1990", "am dritten Oktober neunzehnhundertneunzig"),
    ("Der 3. Oktober", "Der dritte Oktober"),
    ("3. Oktober 1990", "dritter Oktober neunzehnhundertneunzig"),
    ("am 03.10.1990", "am dritten Oktober neunzehnhundertneunzig"),
    ("bis 24.12.", "bis vierundzwanzigsten zwölften"),
    ("vom 1. bis 3. Mai", "vom ersten bis dritten Mai"),
    ("im 19. Jahrhundert", "im neunzehnten Jahrhundert"),
    ("3. Kapitel", "drittes Kapitel"),
    ("in der 2. Runde", "in der zweiten Runde"),
    ("Der 2. Weltkrieg", "Der zweite Weltkrieg"),
    ("Er wurde 30.", "Er wurde dreißig."),
    ("um 14:30 Uhr", "um vierzehn Uhr dreißig"),
    ("um 8.05 Uhr", "um acht Uhr fünf"),
    ("um 1 Uhr", "um ein Uhr"),
    ("1990-10-03", "dritter Oktober neunzehnhundertneunzig"),
    # money, percent, measures
    ("3,50 €", "drei Euro fünfzig"),
    ("€ 1,00", "ein Euro"),
    ("0,99 €", "neunundneunzig Cent"),
    ("5 Mrd. Euro", "fünf Milliarden Euro"),
    ("20 $ und $20", "zwanzig Dollar und zwanzig Dollar"),
    ("12,5 %", "zwölf Komma fünf Prozent"),
    ("1 km, 2 kg, 1 t, 3 t", "ein Kilometer, zwei Kilogramm, eine Tonne, drei Tonnen"),
    ("-3 °C bei 120 km/h", "minus drei Grad Celsius bei einhundertzwanzig Kilometer pro Stunde"),
    ("50 m² in 2 h", "fünfzig Quadratmeter in zwei Stunden"),
    # abbreviations
    ("z. B. Obst, d.h. Äpfel", "zum Beispiel Obst, das heißt Äpfel"),
    ("Äpfel usw.", "Äpfel und so weiter."),
    ("Dr. Müller bzw. Prof. Maier", "Doktor Müller beziehungsweise Professor Maier"),
    ("ca. 30, Nr. 5, S. 7", "circa dreißig, Nummer fünf, Seite sieben"),
    ("Hauptstr. 5", "Hauptstraße fünf"),
    ("St. Gallen", "Sankt Gallen"),
    # letters and symbols
    ("ARD und USA", "A R D und U S A"),
    ("die NATO", "die NATO"),
    ("eine GmbH & Co.", "eine G M B H und Co."),
    ("USB-Kabel, CO2", "U S B Kabel, C O zwei"),
    ("J. S. Bach", "J S Bach"),
    ("2 + 2 = 4, § 5", "zwei plus zwei gleich vier, Paragraph fünf"),
    ("Ludwig XIV. kam", "Ludwig der vierzehnte kam"),
    ("von Ludwig XIV. und Kapitel IV", "von Ludwig dem vierzehnten und Kapitel vier"),
    ("info@example.de", "info at example Punkt D E"),
    ("0151 2345678", "null eins fünf eins, zwei drei vier fünf sechs sieben acht"),
]


def read(text: str) -> str:
    """Words with blanks between, letters in capitals, marks on the word before."""
    out = ""
    for piece in normalize(text, "de"):
        if piece.kind in ("word", "letter"):
            out += f" {piece.text.upper() if piece.kind == 'letter' else piece.text}"
        elif piece.kind == "mark":
            out += piece.text
    return out.strip()


@pytest.mark.parametrize(("written", "spoken"), READINGS)
def test_what_is_written_is_read(written: str, spoken: str) -> None:
    assert read(written) == spoken


PARTS = [*"0123456789.,:-–/ %€$§²½AÄmhkIVXab\n'\"", "km", "Uhr", "z. B.", " Mio. ", "Str.", "II."]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_any_text_is_read_in_order(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = normalize(text, "de")
    assert all(0 <= piece.start <= piece.end <= len(text) for piece in pieces)
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


def test_numbers_of_any_length_are_read() -> None:
    for digits in (13, 30, 40, 80):
        assert read("9" * digits) == " ".join(["neun"] * digits)
        assert read(f"{'9' * digits},5").startswith("neun")


SOUNDS = {
    "ich": "ˈɪç", "ach": "ˈax", "Straße": "ʃtʁˈaːsə", "Strasse": "ʃtʁˈasə", "schön": "ʃˈøːn", "Buch": "bˈuːx",
    "Mädchen": "mˈɛːtçən", "Chor": "kˈoːɐ", "Journal": "ʒʊʁnˈaːl", "über": "ˈyːbɐ", "Pferd": "pfˈeːɐt", "heute": "hˈɔʏtə",
    "zwölf": "tsvˈœlf", "geht's": "ɡˈeːts", "Sprachsynthese": "ʃpʁˈaːxzˌʏntəsə", "Nebenstraße": "nˌeːbənʃtʁˌaːsə",
    "zweiundvierzig": "tsvˈaɪʊndvˌiːɐtsɪç", "Purkersdorf": "pˈʊɐkɐsdˌɔʁf",
}  # fmt: skip


@pytest.fixture(scope="module")
def german() -> frontends.Frontend:
    """The German front end (skips where the extra is not installed)."""
    try:
        return frontends.build({"name": "phonemes", "language": "de"})
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("word", "ipa"), SOUNDS.items())
def test_how_a_word_sounds(german: frontends.Frontend, word: str, ipa: str) -> None:
    assert german.encode(word).phonemes == ipa


def test_letters_are_named_and_a_plural_has_its_s(german: frontends.Frontend) -> None:
    assert german.encode("Y, ZDF und Lkws").phonemes == "ˈʏpsilɔn, tsˈɛt dˈeː ˈɛf ʊnt ˈɛl kˈaː vˈeːs"


def test_every_sound_of_the_corpus_has_a_symbol(german: frontends.Frontend, shared_data: Path) -> None:
    rows = (shared_data / "kerstin" / "metadata.csv").read_text(encoding="utf-8").splitlines()
    dropped = {row: found for row in rows if (found := german.encode(row.split("|")[-1]).dropped)}
    assert len(rows) == 420 and dropped == {}


def test_what_cannot_be_spoken_is_told(german: frontends.Frontend) -> None:
    assert german.encode("Das Wort Иван ∮ bleibt.").dropped == ("∮",)


def test_without_its_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"flowtts\[german\]"):
        frontends.build({"name": "phonemes", "language": "de"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Am 3. Oktober 1990 um 14:30 Uhr.", "am dritten Oktober neunzehnhundertneunzig um vierzehn Uhr dreißig"),
        ("Das kostet 3,50 €, d. h. 5 % mehr.", "Das kostet drei Euro fünfzig, das heißt fünf Prozent mehr"),
        ("Die USA und die Straße", "die U.S.A. und die Strasse"),
        ("Weißenburg-Gunzenhausen", "weißenburg gunzenhausen!"),
    ],
)
def test_texts_that_sound_alike_have_no_word_errors(one: str, other: str) -> None:
    assert errors_of(one, other, normalizer=normalizer_of("de"))[0] == 0


def test_other_words_are_errors() -> None:
    assert errors_of("Er kam um 14 Uhr.", "Er kam um 15 Uhr.", normalizer=normalizer_of("de")) == (1, 5)
    assert alignment("Schöne Grüße", "schöne Füße", normalizer_of("de"))[1] == ("substitute", "grüsse", "füsse")


@pytest.mark.parametrize(
    "sentences",
    [
        ["Er kam am 3. Oktober nach Berlin.", "Dann ging er."],
        ["Vom 1. bis 3. August war er hier.", "Montag, 3. April, ging er."],
        ["Im 19. Jahrhundert war das so.", "Der 2. Weltkrieg endete 1945.", "Danach kam Frieden."],
        ["Das ist z. B. Obst.", "Auch Gemüse, Brot usw.", "Dann kam er."],
        ["Dr. Müller wohnt in der Hauptstr. 5.", "Er ist 30.", "Sie ist 40."],
        ["Ca. 30 Leute, d. h. alle, kamen.", "Vgl. Kap. 2 und Abs. 3.", "Nr. 5 lebt."],
        ["Um 300 v. Chr. Geburt.", "Es war 300 n. Chr.", "Danach kam Rom."],
        ["I am 30.", "August came.", "He found a gem.", "It was in Nov.", "She came in 3.", "Then I go."],
    ],
)
def test_where_sentences_end(sentences: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(" ".join(sentences))] == sentences


def test_a_long_sentence_is_not_cut_within_a_date(german: frontends.Frontend) -> None:
    text = "Er kam mit seinen Freunden und Nachbarn aus der ganzen Stadt am 3. Oktober in das alte Haus am Fluss zurück"
    chunks = [chunk.text for chunk in speakable_chunks(text, german, 170)]
    assert len(chunks) > 1 and not any(chunk.rstrip().endswith("3.") for chunk in chunks)
