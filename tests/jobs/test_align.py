"""Aligning recordings: words and phones where a voice spoke them, forms that other programs read, bad clips set aside."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowtts_core.engines.base import Speech
from flowtts_core.engines.phone_alignment import AlignedWord, Alignment, Phone, PhoneAligner
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice import open_voice
from jobs import align as job
from jobs.cli import main
from jobs.corpus.tiers import ctm, textgrid
from tests.voices import make_voice

TEXTS = [
    "The rain has stopped, and nobody was at home.",
    "Why should a judge leave the door open, when everyone goes out?",
    "Is it, as he said, a rather different kind of chair?",
]


@pytest.fixture(scope="module")
def spoken() -> list[Speech]:
    """Another voice than the one that aligns; its own durations are the truth."""
    results = open_voice("heart", threads=1).synthesize([SynthesisRequest(text=text) for text in TEXTS])
    return [speech for speech in results if isinstance(speech, Speech)]


@pytest.fixture(scope="module")
def aligner() -> PhoneAligner:
    return PhoneAligner()


@pytest.fixture
def in_process(monkeypatch):
    """Align here instead of in Ray's workers."""

    def run(work, tasks, address, workers):
        worker = work()
        return reversed([worker(task) for task in tasks])  # results come in any order

    monkeypatch.setattr(job, "_run", run)


@pytest.fixture
def corpus(tmp_path: Path, spoken: list[Speech]) -> Path:
    """Three good clips and bad ones, as a JSONL list."""
    rows = [{"id": f"said {i}", "audio": f"{i}.wav", "text": text} for i, text in enumerate(TEXTS)]
    for i, speech in enumerate(spoken):
        soundfile.write(tmp_path / f"{i}.wav", speech.waveform, speech.sample_rate)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "short.wav", spoken[0].waveform[:2000], spoken[0].sample_rate)
    soundfile.write(tmp_path / "long.wav", np.tile(spoken[0].waveform, 30), spoken[0].sample_rate)
    for name in ("silent", "short", "long", "missing"):
        rows.append({"id": name, "audio": f"{name}.wav", "text": TEXTS[0]})
    rows.append({"id": "wordless", "audio": "0.wav", "text": " "})
    rows.append({"id": "german", "audio": "0.wav", "text": "Guten Abend.", "language": "de"})
    rows.append({"id": "../../out", "audio": "0.wav", "text": TEXTS[0] + " ∮", "language": "en-GB"})
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "clips.jsonl"


def test_words_are_found_where_they_are_spoken(aligner: PhoneAligner, spoken: list[Speech]) -> None:
    off = []
    for text, speech in zip(TEXTS, spoken, strict=True):
        found = aligner.align(text, speech.waveform, speech.sample_rate)
        assert [word.word for word in found.words] == [word.word for word in speech.words or ()]
        assert all(text[word.start : word.end] == word.word for word in found.words)
        off += [word.start_s - own.start_s for word, own in zip(found.words, speech.words or (), strict=True)]
    assert np.median(np.abs(off)) < 0.025 and np.percentile(np.abs(off), 95) < 0.06


def test_phones_are_ipa_and_fill_their_word(aligner: PhoneAligner, spoken: list[Speech]) -> None:
    found = aligner.align(TEXTS[1], spoken[1].waveform, spoken[1].sample_rate)
    said = {word.word: [phone.phone for phone in word.phones] for word in found.words}
    assert said["judge"] == ["dʒ", "ʌ", "dʒ"] and said["goes"] == ["ɡ", "oʊ", "z"] and said["out"] == ["aʊ", "t"]
    for word in found.words:
        assert all(a.end_s == b.start_s for a, b in pairwise(word.phones))
        assert all(phone.start_s < phone.end_s and 0 <= phone.fit <= 1 for phone in word.phones)
    assert all(a.end_s <= b.start_s for a, b in pairwise(found.words)) and found.words[-1].end_s <= found.seconds


def test_a_voice_on_plain_ipa_has_whole_diphthongs_too(tmp_path: Path, spoken: list[Speech]) -> None:
    aligner = PhoneAligner(str(make_voice(tmp_path / "voice")), {"goes": "ɡˈeɪʃ"})
    found = aligner.align(TEXTS[1], spoken[1].waveform, spoken[1].sample_rate)
    said = {word.word: [phone.phone for phone in word.phones] for word in found.words}
    assert said["judge"] == ["dʒ", "ʌ", "dʒ"] and said["out"] == ["aʊ", "t"] and said["goes"] == ["ɡ", "eɪ", "ʃ"]


def test_another_text_fits_less(aligner: PhoneAligner, spoken: list[Speech]) -> None:
    own, other = (aligner.align(text, spoken[0].waveform, spoken[0].sample_rate).fit for text in TEXTS[:2])
    assert own > 0.85 > 0.8 > other


# --- forms ---------------------------------------------------------------------------------------------------------------

WORDS = Alignment(
    (
        AlignedWord('say "a"', 0, 7, (Phone("s", 0.1, 0.2, 0.5), Phone("eɪ", 0.2, 0.4, 1.0))),
        AlignedWord("b", 8, 9, (Phone("b", 0.4, 0.6, 0.25),)),
        AlignedWord("c", 10, 11, (Phone("k", 1 / 3 + 0.6, 1.0000004, 0.25),)),
    ),
    1.0,
)


def parse(grid: str) -> dict[str, list[tuple[float, float, str]]]:
    """Read Praat's long text form strictly: each tier's intervals, which must fill it."""
    head = re.match(
        r'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = (\S+)\ntiers\? <exists>\n'
        r"size = (\d+)\nitem \[\]:\n",
        grid,
    )
    assert head
    items = re.split(r"    item \[\d+\]:\n", grid[head.end() :])[1:]
    assert len(items) == int(head[2])
    found = {}
    for item in items:
        top = re.match(
            r' {8}class = "IntervalTier"\n {8}name = "(\w+)"\n {8}xmin = 0\n {8}xmax = (\S+)\n'
            r" {8}intervals: size = (\d+)\n",
            item,
        )
        assert top and top[2] == head[1]
        body = r' {8}intervals \[(\d+)\]:\n {12}xmin = (\S+)\n {12}xmax = (\S+)\n {12}text = "((?:[^"\n]|"")*)"\n'
        intervals = re.findall(body, item)
        assert re.sub(body, "", item[top.end() :]) == "" and len(intervals) == int(top[3])
        assert [int(i) for i, *_ in intervals] == list(range(1, len(intervals) + 1))
        assert intervals[0][1] == "0" and intervals[-1][2] == head[1]
        assert all(a[2] == b[1] for a, b in pairwise(intervals))
        assert all(float(left) < float(right) for _, left, right, _ in intervals)
        found[top[1]] = [(float(left), float(right), text.replace('""', '"')) for _, left, right, text in intervals]
    return found


def test_a_textgrid_has_no_gaps() -> None:
    found = parse(textgrid(WORDS))
    assert [text for *_, text in found["words"]] == ["", 'say "a"', "b", "", "c"]
    assert found["words"][1] == (0.1, 0.4, 'say "a"') and found["words"][-1] == (0.933333, 1.0, "c")
    assert [text for *_, text in found["phones"]] == ["", "s", "eɪ", "b", "", "k"]


def test_a_ctm_has_six_columns() -> None:
    lines = ctm("chapter 1", WORDS)
    assert lines["words"].splitlines()[:2] == ['chapter_1 1 0.100 0.300 say_"a" 0.83', "chapter_1 1 0.400 0.200 b 0.25"]
    assert lines["phones"].splitlines()[1] == "chapter_1 1 0.200 0.200 eɪ 1.00"


# --- the command ---------------------------------------------------------------------------------------------------------


def test_bad_clips_are_set_aside(corpus: Path, tmp_path: Path, in_process, monkeypatch, capsys) -> None:
    monkeypatch.setattr(job, "CLIPS_PER_TASK", 2)
    out = tmp_path / "out"
    assert main(["align", str(corpus), "-o", str(out), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["clips"], told["set_aside"], told["not_read"]) == (4, 6, 1)
    assert sorted(p.name for p in out.rglob("*.TextGrid")) == [
        "out.TextGrid", "said 0.TextGrid", "said 1.TextGrid", "said 2.TextGrid",
    ]  # fmt: skip
    found = parse((out / "said 1.TextGrid").read_text("utf-8"))
    assert [text for *_, text in found["words"] if text] == re.findall(r"\w+", TEXTS[1])
    reasons = {row["id"]: row["reason"] for row in map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())}
    assert reasons["silent"] == "silent" and "too short for 9 words" in reasons["short"]
    assert "too long" in reasons["long"] and "--max-seconds 60" in reasons["long"]
    assert "missing.wav" in reasons["missing"] and reasons["wordless"] == "empty text"
    assert reasons["german"] == "language de: voice natural reads en-us"
    assert json.loads((out / "not_read.jsonl").read_text()) == {"id": "../../out", "not_read": ["∮"]}


def test_one_ctm_holds_all_clips_in_order(corpus: Path, tmp_path: Path, in_process, monkeypatch) -> None:
    monkeypatch.setattr(job, "CLIPS_PER_TASK", 1)
    assert main(["align", str(corpus), "-o", str(tmp_path / "out"), "--format", "ctm"]) == 3
    rows = [line.split(" ") for line in (tmp_path / "out/words.ctm").read_text("utf-8").splitlines()]
    assert list(dict.fromkeys(row[0] for row in rows)) == ["said_0", "said_1", "said_2", "untitled/untitled/out"]
    assert all(len(row) == 6 and float(row[2]) >= 0 and float(row[3]) > 0 and 0 <= float(row[5]) <= 1 for row in rows)


def test_json_has_the_places_of_words(corpus: Path, tmp_path: Path, in_process) -> None:
    assert main(["align", str(corpus), "-o", str(tmp_path / "out"), "--format", "json"]) == 3
    found = json.loads((tmp_path / "out/said 0.json").read_text("utf-8"))
    assert [TEXTS[0][w["start"] : w["end"]] for w in found["words"]] == [w["word"] for w in found["words"]]
    assert found["words"][0]["phones"][0]["start_s"] == found["words"][0]["start_s"] < 0.4


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--voice", "heart"], 2, "only flow voices can be used for alignment"),
        (["--workers", "0"], 2, "--workers 0"),
        (["--max-seconds", "6000"], 2, "cut longer recordings"),
        (["--lexicon", "{}/none.tsv"], 1, "none.tsv"),
        (["-o", "{}"], 1, "has files already"),
    ],
)
def test_wrong_use_is_told(more: list[str], code: int, said: str, corpus: Path, tmp_path: Path, capsys) -> None:
    words = [word.format(tmp_path) for word in more]
    assert main(["align", str(corpus), "-o", str(tmp_path / "out"), *words]) == code
    assert said in capsys.readouterr().err


def test_where_no_clip_can_be_aligned_the_command_fails(tmp_path: Path, in_process, capsys) -> None:
    (tmp_path / "clips.jsonl").write_text('{"audio": "none.wav", "text": "Hello."}\n')
    assert main(["align", str(tmp_path / "clips.jsonl"), "-o", str(tmp_path / "out")]) == 1
    assert "no clip can be aligned: none: " in capsys.readouterr().err
