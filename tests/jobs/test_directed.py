"""Books and rows as a job plans them: pauses, notes, voices and speakers of a cast; voices of other sample rates in one book."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import encode
from flowtts_core.errors import ConfigError
from flowtts_core.text.cast import Cast
from flowtts_core.text.marks import Manner
from jobs.cli import build_parser, main
from jobs.request_options import cast_of
from jobs.synthesis.audiobook import Spool, chapter_audio
from jobs.synthesis.engine import Voices
from jobs.synthesis.input import ReadingOptions, parse_pauses, read_plan
from jobs.synthesis.plan import Book
from jobs.synthesis.settings import Speaking
from jobs.synthesis.timeline import timeline_of
from jobs.synthesis.units import Unit
from tests.fake_engine import TONE

CAST = Cast({"anna": Manner(1.0, "bell"), "bob": Manner(1.2, "@low")}, Manner(1.0, "tone"))


def units(path: Path, reading: ReadingOptions, **settings: object) -> tuple[Unit, ...]:
    return read_plan([str(path)], reading, Speaking(settings)).units


def test_a_book_takes_pauses_voices_and_speeds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("# Title\n\nOne. Two.\n\n[Anna] Three. [pause:2s] [Bob] Four.\n")
    reading = ReadingOptions(pauses="sentence=0.1, paragraph=0.2, heading=3", cast=CAST)
    found = units(path, reading, speed=1.5)
    assert [(u.text, u.voice, u.pause_s, u.settings.get("speed")) for u in found] == [
        ("Title", "tone", 3.0, None), ("One.", "tone", 0.1, None), ("Two.", "tone", 0.2, None),
        ("Three.", "bell", 2.0, None), ("Four.", "@low", 0.2, 1.8),
    ]  # fmt: skip
    plain = read_plan([str(path)], ReadingOptions(), Speaking())
    assert plain.sources != read_plan([str(path)], reading, Speaking()).sources  # another job than the plain one


@pytest.mark.parametrize("text", ["sentence", "sentence=x", "sentence=-1", "word=1", "sentence=100"])
def test_a_pause_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--pause"):
        parse_pauses(text)


@pytest.mark.parametrize(
    ("notes", "texts"),
    [
        ("skip", ["One.", "Two."]),
        ("read", ["One.", "[Footnote 1: A note.]", "Two."]),
        ("end", ["One.", "Two.", "Notes", "[Footnote 1: A note.]"]),
    ],
)
def test_notes_are_skipped_read_or_put_at_the_end(tmp_path: Path, notes: str, texts: list[str]) -> None:
    path = tmp_path / "a.txt"
    start, end = "*** START OF THE PROJECT GUTENBERG EBOOK A ***", "*** END OF THE PROJECT GUTENBERG EBOOK A ***"
    path.write_text(f"Title: A\n\n{start}\n\nOne.\n\n[Footnote 1: A note.]\n\nTwo.\n\n{end}\n")
    assert [u.text for u in units(path, ReadingOptions(notes=notes))] == texts


def test_ssml_files_and_rows(tmp_path: Path) -> None:
    book, rows = tmp_path / "a.ssml", tmp_path / "rows.csv"
    book.write_text("<speak><p>One.<break time='1s'/> Two.</p></speak>")
    rows.write_text("id,text,input_type\na,<speak>One.</speak>,ssml\nb,Two.,\nc,Three.,html\n")
    assert [(u.text, u.pause_s) for u in units(book, ReadingOptions())] == [("One.", 1.0), ("Two.", 0.7)]
    text = book.rename(tmp_path / "a.txt")
    assert [u.settings["input_type"] for u in units(text, ReadingOptions(), input_type="ssml")] == ["text", "text"]
    a, b, c = units(rows, ReadingOptions())
    assert a.settings["input_type"] == "ssml" and "input_type" not in b.settings and "html" in c.error


def test_a_voice_may_be_a_speaker_or_name_one() -> None:
    voices = Voices(replace(TONE, speakers=("low", "high")))

    def cast(voice: str | None, **settings: object) -> tuple[str | None, object, str]:
        unit = voices.cast(Unit("a", "One.", voice=voice, settings=settings))
        return unit.voice, unit.settings.get("speaker"), unit.error

    assert cast("low") == (None, "low", "") == cast("@low")
    assert cast("bell@x") == ("bell", "x", "") and cast("bell") == ("bell", None, "") and cast(None) == (None, None, "")
    assert "another speaker" in cast("bell@x", speaker="y")[2]


def test_the_command_line_names_a_cast(tmp_path: Path) -> None:
    path = tmp_path / "cast.json"
    path.write_text('{"Anna": "heart"}')
    words = ["synthesize", "a.txt", "-o", "b", "--cast", str(path), "--dialogue", "@low"]
    args = build_parser("synthesize").parse_args(words)
    assert cast_of(args) == Cast({"anna": Manner(1.0, "heart")}, dialogue=Manner(1.0, "@low"))


@pytest.mark.parametrize(
    ("voice", "reason"),
    [
        ("zork", "cast's anna asks for voice zork"),
        ("natural@nobody", "voice natural has: heart, michael"),
        ("@x", "none"),
    ],
)
def test_a_cast_without_its_voices_is_refused_before_any_sound(
    voice: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("[Anna] One.")
    (tmp_path / "cast.json").write_text(json.dumps({"Anna": voice}))
    words = ["synthesize", str(tmp_path / "a.txt"), "-o", str(tmp_path / "out"), "--cast", str(tmp_path / "cast.json")]
    assert main([*words, "--voice", "heart"]) == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_book_joins_voices_of_several_sample_rates(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One. Two.")
    plan = read_plan([str(path)], ReadingOptions(), Speaking())
    book = next(item for item in plan.items() if isinstance(item, Book))
    rates = (16_000, 22_050)
    rows = [
        (unit, {"audio": "shards/0.parquet#0", "status": "ok", "num_samples": rate, "sample_rate": rate, "words": None})
        for unit, rate in zip(plan.units, rates, strict=True)
    ]
    timeline = timeline_of(book, rows)
    assert timeline.sample_rate == 22_050 and timeline.seconds == pytest.approx(1 + 0.35 + 1 + 0.7, abs=1e-3)

    class Held(Spool):
        def __init__(self) -> None:
            self.rates = iter(rates)

        def read(self, place: str) -> bytes:
            rate = next(self.rates)
            return encode(np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) / 2, rate, ".flac")

    first, _, second, _ = chapter_audio(Held(), timeline.chapters[0], timeline.sample_rate)
    assert len(first) == len(second) == 22_050
    np.testing.assert_allclose(first[1000:-1000], second[1000:-1000], atol=0.01)  # the same second of the same tone
