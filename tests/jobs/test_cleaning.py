"""What `flowtts prepare` cleans, what it sets aside by comparing the clips, and the page on which both are heard."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from cluster.storage import Storage
from flowtts_core.audio.loudness import loudness_of
from flowtts_core.errors import OutputError
from flowtts_core.training.corpus_checks import ClipMeasures, kind_of, unlike_the_rest
from flowtts_core.training.examples import DatasetMeta, Examples
from flowtts_core.training.prepare import Cleaning, ClipLimits, PrepareConfig
from jobs import prepare as job
from jobs.corpus.columns import Reading
from jobs.corpus.outlier_page import outlier_page
from jobs.corpus.prepare_worker import DEADLY
from tests.jobs.test_prepare import RATE, arguments, in_process, tone, wav

__all__ = ["in_process"]  # a fixture
TEXT = "It was a fine day in May."


def corpus(folder: Path, clips: dict[str, tuple[str, np.ndarray]], **columns: dict[str, str]) -> Path:
    """Write a JSONL corpus of id -> (text, [S]); `columns` give further values by id. Returns the list."""
    folder.mkdir()
    rows = []
    for key, (text, waveform) in clips.items():
        (folder / f"{key}.wav").write_bytes(wav(waveform))
        more = {name: values[key] for name, values in columns.items() if key in values}
        rows.append({"id": key, "audio": f"{key}.wav", "text": text, **more})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "clips.jsonl"


def kept(output: Path) -> dict[str, np.ndarray]:
    """The audio of a prepared folder, [S] by id."""
    rows = [row for file in sorted(output.glob("audio/*.parquet")) for row in pq.read_table(file).to_pylist()]
    return {row["id"]: soundfile.read(io.BytesIO(row["audio"]), dtype="float32")[0] for row in rows}


def aside(output: Path) -> dict[str, str]:
    lines = (output / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


SPEECH = tone(2.0)
NOISE = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
SPOILT = {
    "plain": (TEXT, SPEECH),
    "silence": (TEXT, np.concatenate([np.zeros(3 * RATE, np.float32), tone(2.1), np.zeros(3 * RATE, np.float32)])),
    "noise": (TEXT, np.concatenate([NOISE, tone(2.2), NOISE])),
    "offset": (TEXT, tone(2.3) + np.float32(0.2)),
    "offset and silence": (TEXT, np.concatenate([NOISE, tone(2.4), NOISE]) + np.float32(0.2)),
    "soft": (TEXT, 0.1 * tone(2.5)),
}


def test_silence_offset_and_loudness_are_mended(tmp_path, in_process):
    result = job.prepare(corpus(tmp_path / "corpus", SPOILT), tmp_path / "data", PrepareConfig())
    assert result.set_aside == 0
    seconds = {"plain": 2.0, "silence": 2.4, "noise": 2.5, "offset": 2.3, "offset and silence": 2.7, "soft": 2.5}
    for key, waveform in kept(tmp_path / "data").items():
        assert len(waveform) / RATE == pytest.approx(seconds[key], abs=0.03), key  # 0.15 s of silence stay on each side
        assert abs(waveform.mean()) < 1e-4, key
        assert loudness_of(waveform, RATE) == pytest.approx(-23, abs=0.2), key
        assert np.abs(waveform).max() < 0.9, key


def test_each_cleaning_can_be_left_out(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus", SPOILT), tmp_path / "data"
    words = ["--no-trim", "--no-loudness", "--set", "cleaning.offset=false"]
    args = arguments(str(source), "-o", str(output), *words)
    assert args.run(args) == 0
    for key, waveform in kept(output).items():
        assert np.abs(waveform - SPOILT[key][1]).max() < 1e-4, key
    config = job.config_of(arguments("x", "-o", "y", "--no-trim", "--set", "cleaning.lufs=-20"))
    assert config.cleaning == Cleaning(trim=False, lufs=-20)


def test_a_clip_that_is_long_for_its_silence_alone_is_kept(tmp_path, in_process):
    silence = np.zeros(10 * RATE, np.float32)
    clips = {
        "long": (TEXT, np.concatenate([silence, SPEECH, silence])),
        "click": ("Oh.", np.concatenate([silence, tone(0.1)])),
    }
    limits = ClipLimits(min_seconds=0.3, max_seconds=5)
    job.prepare(corpus(tmp_path / "corpus", clips), tmp_path / "data", PrepareConfig(limits=limits))
    assert aside(tmp_path / "data") == {"click": "too short: 0.25 s (at least 0.3 s)"}


def test_one_recording_under_several_texts_is_set_aside_with_the_names_of_the_others(tmp_path, in_process):
    clips = {
        "a": (TEXT, SPEECH),
        "b": ("Nobody was at home.", SPEECH),
        "c": ("it was a FINE day, in May!", SPEECH),
        "unspeakable": ("?!", SPEECH),
        "d": (TEXT, tone(2.1)),
        "twice": (TEXT, tone(2.1)),  # the same text: nothing is wrong with it
    }
    output = tmp_path / "data"
    made = job.prepare(corpus(tmp_path / "corpus", clips), output, PrepareConfig(), clips_per_file=2)
    reason = "same audio under different texts: also "
    reasons = aside(output)
    assert reasons.pop("unspeakable").startswith("nothing in the text can be spoken")  # it is told once
    assert reasons == {
        "a": f"{reason}b, unspeakable",
        "b": f"{reason}a, c, unspeakable",
        "c": f"{reason}b, unspeakable",
    }
    assert made.set_aside == 4
    assert len(Examples(output, [])) == 2


def clip(key: str, letters: int, seconds: float, language: str = "") -> ClipMeasures:
    return ClipMeasures(key, language, key, letters, seconds, key, -23.0, 0.0, 0.0)


def even(count: int, rate: float, language: str = "") -> list[ClipMeasures]:
    """Clips read at about one rate, 10 % more or less."""
    factors = np.exp(0.1 * np.random.default_rng(0).standard_normal(count))
    return [clip(f"{language}{i}", 40, 40 / (rate * f), language) for i, f in enumerate(factors)]


def test_texts_that_do_not_fit_their_clips_are_found_by_the_rate_of_the_others():
    odd = [clip("long", 90, 3.0), clip("short", 9, 3.0), clip("Ah, indeed.", 8, 1.67)]
    reasons = unlike_the_rest([*even(200, 13), *odd], ClipLimits())
    assert reasons.keys() == {"long", "short"}  # a short clip may take its time
    assert reasons["long"].startswith("text too long for its clip: 30.0 letters per second (accepted: ")
    assert reasons["short"].startswith("text too short for its clip: 3.0 ")
    assert unlike_the_rest([*even(200, 13), *odd], ClipLimits(rate_spread=0)) == {}
    assert unlike_the_rest([*even(10, 13), *odd], ClipLimits()) == {}  # too few to know what is usual
    limits = ClipLimits(max_chars_per_s=25, min_chars_per_s=4)
    assert unlike_the_rest(odd, limits).keys() == {"long", "short"}


def test_each_language_has_its_own_rate_and_an_even_corpus_loses_nothing():
    both = [*even(60, 14, "de"), *even(40, 4.5, "zh")]  # characters of Chinese are syllables
    assert unlike_the_rest(both, ClipLimits()) == {}
    same = [clip(str(i), 40, 3.0) for i in range(100)]
    assert unlike_the_rest([*same, clip("faster", 70, 3.0)], ClipLimits()) == {}
    assert unlike_the_rest([*same, clip("fastest", 90, 3.0)], ClipLimits()).keys() == {"fastest"}


def test_what_the_corpus_shows_holds_for_features_that_are_added_later(tmp_path, in_process):
    clips = {"a": (TEXT, SPEECH), "b": (TEXT * 9, tone(2.1)), "c": (TEXT, tone(2.2))}
    output = tmp_path / "data"
    limits = ClipLimits(max_chars_per_s=60)
    made = job.prepare(corpus(tmp_path / "corpus", clips), output, PrepareConfig(limits=limits))
    assert (made.clips, made.reasons) == (2, {"text too long for its clip": 1})
    args = arguments(str(output), "-o", str(output), "--set", "mel.n_mels=40", "--json")
    assert args.run(args) == 3
    assert len(Examples(output, ["mel"], mel={"n_mels": 40})) == 2
    assert "1.0 to 60.0" in aside(output)["b"]  # the folder's own limits, not the defaults


def test_a_folder_that_was_cleaned_otherwise_is_refused_and_an_older_one_keeps_its_audio(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus", SPOILT), tmp_path / "data"
    job.prepare(source, output, PrepareConfig())
    for other in (Cleaning(trim=False), Cleaning(lufs=-20)):
        with pytest.raises(OutputError, match="with other settings.*\n.*--overwrite"):
            job.prepare(source, output, PrepareConfig(cleaning=other))
    meta = DatasetMeta.load(output)
    assert meta.audio["cleaning"]["lufs"] == -23
    (output / "dataset.json").write_bytes(replace(meta, audio={}).to_bytes())  # as an earlier version wrote it
    before = kept(output)
    job.prepare(output, output, PrepareConfig(mel=replace(meta.mel, n_mels=40)))
    assert len(Examples(output, [], mel={"n_mels": 40})) == len(before) == len(SPOILT)


def test_the_page_and_the_terminal_tell_what_was_set_aside(tmp_path, in_process, capsys):
    clips = {**SPOILT, "a": ("One of them.", tone(1.0)), "b": ("Another <one>.", tone(1.0)), "mute": (TEXT, 0 * SPEECH)}
    source, output = corpus(tmp_path / "corpus", clips), tmp_path / "data"
    with source.open("a") as file:
        file.write(json.dumps({"id": "gone", "audio": "gone.wav", "text": TEXT}) + "\n")
    args = arguments(str(source), "-o", str(output))
    assert args.run(args) == 3
    said = capsys.readouterr()
    assert re.search(r"2  same audio under different texts\n\s+1  \w", said.out)
    assert f"hear them, and the most extreme of the others: {output}/outliers.html" in said.out
    page = (output / "outliers.html").read_text(encoding="utf-8")
    assert "Another &lt;one&gt;." in page and "gone.wav: no such file" in page
    assert 'aria-label="mute" src="data:audio/mpeg' in page  # its audio was not kept: it is read where it lies
    assert all(f'aria-label="{key}" src="data:audio/mpeg' in page for key in (*SPOILT, "a", "b"))
    assert "largest offset" in page and "cleaning.lufs=-23.0" in page
    lines = [json.loads(line) for line in (output / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["id"]: line["text"] for line in lines}["b"] == "Another <one>."


def test_the_page_is_made_without_the_corpus_and_opens_no_clip_that_killed_a_worker(tmp_path, in_process):
    clips = {"plain": (TEXT, SPEECH), "mute": (TEXT, 0 * SPEECH), "deadly": (TEXT, tone(2.2))}
    source, output = corpus(tmp_path / "corpus", clips), tmp_path / "data"
    table = [json.loads(line) | {"audio": (source.parent / f"{key}.wav").read_bytes()}
             for key, line in zip(clips, source.read_text().splitlines(), strict=True)]  # fmt: skip
    table = [{"sound" if name == "audio" else name: value for name, value in row.items()} for row in table]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "corpus.parquet")
    job.prepare(tmp_path / "corpus.parquet", output, PrepareConfig(), reading=Reading(audio="sound"))
    assert 'aria-label="mute" src="data:audio' in (output / "outliers.html").read_text()
    lines = [json.loads(line) for line in (output / "quarantine.jsonl").read_text().splitlines()]
    lines.append({"id": "deadly", "reason": DEADLY, "audio": str(source.parent / "deadly.wav"), "text": TEXT})
    (tmp_path / "corpus.parquet").unlink()
    page = outlier_page(Storage(str(output)), "corpus", [], lines, PrepareConfig())
    assert "FileNotFoundError" in page and "not opened here" in page and "data:audio" not in page


def test_reasons_are_counted_by_what_they_have_in_common():
    assert kind_of("too long: 21.30 s (at most 20 s)") == "too long"
    assert kind_of("12 tokens in 5 frames: more sounds than there is room") == "N tokens in N frames"


def test_rows_of_another_language_are_set_aside_and_the_missing_detector_is_told(tmp_path, in_process, capsys):
    clips = {key: (TEXT, tone(2 + i / 10)) for i, key in enumerate(("plain", "british", "german"))}
    source = corpus(tmp_path / "corpus", clips, language={"british": "en_GB", "german": "de"})
    args = arguments(str(source), "-o", str(tmp_path / "data"), "--json")
    assert args.run(args) == 3
    said = capsys.readouterr()
    assert "pip install py3langid" in said.err and json.loads(said.out)["languages"] == "marked"
    assert aside(tmp_path / "data") == {"german": "another language: its row says 'de', the front end reads 'en-us'"}
    config = PrepareConfig(limits=ClipLimits(language="any"))
    assert job.prepare(source, tmp_path / "any", config).set_aside == 0


def test_german_texts_under_the_english_front_end_are_set_aside(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(job, "detector_is_there", lambda: True)
    clips = {"en": (TEXT, SPEECH), "de": ("Es war ein schöner Tag im Mai.", tone(2.1))}
    source = corpus(tmp_path / "corpus", clips)
    assert job.prepare(source, tmp_path / "data", PrepareConfig()).languages == "detect"
    assert aside(tmp_path / "data") == {"de": "another language: 'de', and the front end reads 'en-us' (--language de)"}
