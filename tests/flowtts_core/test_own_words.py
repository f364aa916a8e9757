"""The user's words go before all else: words, phrases and patterns, as IPA, respelled or replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtts_core.errors import ConfigError, TextError, VoiceError
from flowtts_core.text.frontends import CharacterConfig, CharacterFrontend, PhonemeConfig, PhonemeFrontend, build
from flowtts_core.text.frontends.lexicon import load_lexicon
from flowtts_core.voice import open_voice
from jobs.cli import main
from tests.standins import make_character_voice

PLAIN = PhonemeFrontend()
LEXICON = """# what is written, and how it is read
MS\tmanuscript
US\tyou ess
Hawaiʻi\thuh-WY-ee
St. Ives\tSaint Ives
Ives\tˈiːvz
Siobhan\tshi-VAWN
Polish\tpˈoʊlɪʃ
polish\t/pɑlɪʃ/
don't\tdo not
C#\tsee sharp
km\tclicks
/\\[\\d+\\]/\t
/(\\d+)pp\\b/\t\\1 pages of Ives
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> PhonemeFrontend:
    file = tmp_path_factory.mktemp("lexicon") / "own.tsv"
    file.write_text(LEXICON, encoding="utf-8")
    return PhonemeFrontend(PhonemeConfig(lexicon=load_lexicon(file)))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("The MS is lost.", "The manuscript is lost."),
        ("The MS's age", "The manuscript's age"),
        ("Ms Smith left us.", "Ms Smith left us."),
        ("the US and us", "the you ess and us"),
        ("Near ST. IVES, near St. Ives.", "Near Saint [[ˈaɪvz]], near Saint [[ˈaɪvz]]."),
        ("Dr. Ives met Ives's men", "Dr. [[ˈiːvz]] met [[ˈiːvzɪz]] men"),
        ("I don’t know", "I do not know"),
        ("C# costs 10 km of 3pp", "see sharp costs ten clicks of three pages of [[ˈiːvz]]"),
        ("It is so.[12] And then", "It is so. And then"),
        ("See www.ms.com or a@US.org", "See www.ms.com or a@US.org"),
        ("the msx and a km-long road", "the msx and a clicks long road"),
    ],
)
def test_what_the_user_writes_is_read(own: PhonemeFrontend, written: str, read: str) -> None:
    assert own.encode(written).phonemes == PLAIN.encode(read).phonemes


def test_respelled_words_are_one_word_with_the_stress_of_its_capitals(own: PhonemeFrontend) -> None:
    encoded = own.encode("From Hawaiʻi, Siobhan's Polish polish.")
    assert encoded.phonemes == "fɹˈʌm həwˈaɪi, ʃivˈɔnz pˈoʊlɪʃ pɑlɪʃ." and not encoded.dropped
    assert [word.text for word in encoded.words] == ["From", "Hawaiʻi", "Siobhan's", "Polish", "polish"]


def test_all_characters_of_a_phrase_belong_to_it(own: PhonemeFrontend) -> None:
    encoded = own.encode("Near St. Ives (3pp).")
    assert [word.text for word in encoded.words] == ["Near", "St. Ives", "3pp"]


def test_letters_take_other_words_and_no_ipa(tmp_path: Path) -> None:
    lexicon = {"MS": '"manuscript"', "Siobhan": '"shi-VAWN"'}
    own, plain = CharacterFrontend(CharacterConfig(lexicon=lexicon)), CharacterFrontend(CharacterConfig())
    assert own.encode("The MS of Siobhan").tokens == plain.encode("The manuscript of shivawn").tokens
    assert (
        build({"name": "bytes", "lexicon": lexicon}).encode("MS").tokens
        == build({"name": "bytes"}).encode("manuscript").tokens
    )
    voice = make_character_voice(tmp_path / "cara")
    assert open_voice(voice, lexicon=lexicon).frontend is not None
    with pytest.raises(VoiceError, match="'Ives' is given in IPA"):
        open_voice(voice, lexicon={**lexicon, "Ives": "ˈiːvz"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("MS\tmanuscript\nMS\tmilliseconds", "line 2: 'MS' stands in line 1 too"),
        ("/(/\tx", r"line 1: /\(/ in the lexicon is no regular expression"),
        ("/a/\t\\2", "line 1: /a/ in the lexicon is no regular expression: invalid group reference 2"),
        ('MS\t""', "line 1: nothing says how 'MS' is read"),
        ("\tx", "line 1: no word before the tab"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "own.tsv"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(TextError, match=message):
        load_lexicon(file)


def test_japanese_refuses_patterns() -> None:
    pytest.importorskip("pyopenjtalk")
    with pytest.raises(ConfigError, match="no patterns"):
        PhonemeFrontend(PhonemeConfig("openjtalk", "ja", lexicon={"/a/": '"b"'}))


def test_say_takes_a_lexicon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, place = tmp_path / "own.tsv", tmp_path / "a.wav"
    file.write_text("MS\tmanuscript\n", encoding="utf-8")
    assert main(["say", "The MS.", "-o", str(place), "--lexicon", str(file)]) == 0
    assert main(["say", "The manuscript.", "-o", str(tmp_path / "b.wav")]) == 0
    assert place.read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert main(["say", "The MS.", "-o", str(place), "--lexicon", str(tmp_path / "none")]) == 1
    assert "cannot read the lexicon" in capsys.readouterr().err
