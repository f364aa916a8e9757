"""Corpora are read right, in each layout, and refused with a question where nothing shows which column is which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from flowtts_core.errors import ConfigError, TextError
from jobs import prepare as job
from jobs.corpus.clips import LAYOUTS, SourceClip, audio_of, read_clips, read_corpus
from jobs.corpus.columns import Reading
from tests.jobs.test_prepare import arguments

SAID = ["Where is the cat?", "It sat on a mat.", "Nobody saw it go.", "They all came home."]
SPEAKERS = ["ann", "bob", "ann", "bob"]
WANTED = list(zip("abcd", SAID, SPEAKERS, strict=True))


def sounds(folder: Path, *names: str) -> Path:
    """Make files that are there; what they hold is not read."""
    for name in names or ("wavs/a.wav", "wavs/b.wav", "wavs/c.wav", "wavs/d.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def lines(file: Path, *rows: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", newline="")
    return file


def read(source: Path, **reading: str) -> list[tuple[str, str, str]]:
    """The stem of the audio, which is there, the text and the speaker of each clip."""
    clips = read_clips(source, Reading(**reading))
    assert [clip.problem for clip in clips] == [""] * len(clips)
    assert all(Path(clip.path).is_file() for clip in clips)
    return [(Path(clip.path).stem, clip.text, clip.speaker) for clip in clips]


@pytest.mark.parametrize(
    ("form", "layout"),
    [
        ("{key}|{text}|{speaker}", "list"),
        ("{key}|{speaker}|{text}", "piper"),
        ("wavs/{key}.wav|{speaker}|{text}", "vits"),
        ("wavs/{key}.wav|{text}|{speaker}", "styletts2"),
        ("{speaker}\twavs/{key}.wav\t{text}", "list"),
        ("{key}|{speaker}|EN|{text}", "list"),
        ("{key}|{speaker}|{text}|{text}", "list"),
    ],
)
@pytest.mark.parametrize("speakers", [SPEAKERS, ["0", "1", "0", "1"]])
def test_the_columns_of_a_list_are_told_by_its_rows(tmp_path, form, layout, speakers):
    sounds(tmp_path)
    rows = [form.format(key=key, text=text, speaker=who) for key, text, who in zip("abcd", SAID, speakers, strict=True)]
    for name in ("metadata.csv", "train.txt", "list.csv"):
        file = lines(tmp_path / name, *rows)
        assert read(tmp_path) == read(file) == list(zip("abcd", SAID, speakers, strict=True))
        assert read_corpus(file).layout == layout
        file.unlink()


def test_lists_without_speakers(tmp_path):
    sounds(tmp_path)
    wanted = [(key, text, "") for key, text in zip("abcd", SAID, strict=True)]
    for form, layout in (("{}|{}", "piper"), ("wavs/{}.wav|{}", "vits"), ("{0}|{1}|{1}", "ljspeech")):
        rows = (form.format(key, text) for key, text in zip("abcd", SAID, strict=True))
        assert read(lines(tmp_path / "metadata.csv", *rows)) == wanted
        assert read_corpus(tmp_path).layout == layout


def test_texts_without_spaces_are_no_speakers(tmp_path):
    said = ["これは猫です。", "犬もいます。", "今日は晴れです。", "明日は雨です。"]
    rows = [f"{key}|{text}|{who}" for key, text, who in zip("abcd", said, SPEAKERS, strict=True)]
    lines(sounds(tmp_path) / "metadata.csv", *rows)
    assert [(text, who) for _, text, who in read(tmp_path)] == list(zip(said, SPEAKERS, strict=True))


@pytest.mark.parametrize(
    "rows",
    [
        ["a|0", "b|1", "c|0", "d|1"],  # no text at all
        ["a|ann", "b|ann"],
        ["a|Where is it?|0", "b|It sat.|1"],  # too few to see that speakers come again
        ["a|Where is it?|2.31", "b|It sat.|1.04", "c|Nobody.|2.2"],  # seconds
        [f"{key}|Where is {key}?|0.5" for key in "abcdefghij"],
        ["a|Where is it?|en", "b|Wo ist es?|de", "c|It sat.|en", "d|Es saß.|de"],  # languages, or initials
        ["a|seven|ann", "b|seven|bob", "c|two|ann", "d|two|bob"],
        ["a|Where is it?|weɹ ɪz ɪt", "b|It sat down.|ɪt sæt daʊn"],
    ],
)
def test_where_rows_do_not_decide_the_user_is_asked(tmp_path, rows):
    lines(sounds(tmp_path) / "metadata.csv", *rows)
    with pytest.raises(TextError, match=r"metadata\.csv: the rows do not show.*\n.*--columns") as refused:
        read_clips(tmp_path)
    for row in rows[:3]:
        assert row.replace("|", " | ") in str(refused.value)


def test_the_user_says_which_column_is_which(tmp_path):
    lines(sounds(tmp_path) / "metadata.csv", "a|seven|ann|x", "b|seven|bob|y")
    assert read(tmp_path, columns=("id", "text", "speaker", "-")) == [("a", "seven", "ann"), ("b", "seven", "bob")]
    with pytest.raises(ConfigError, match="has 4 columns"):
        read_clips(tmp_path, Reading(columns=("id", "text")))
    with pytest.raises(ConfigError, match="unknown column 'who'.*\n.*speaker"):
        Reading(columns=("id", "text", "who"))
    with pytest.raises(ConfigError, match="needs id or audio, and text"):
        Reading(columns=("id", "speaker"))
    with pytest.raises(ConfigError, match="piper has id.text or"):
        read_clips(tmp_path, Reading(layout="piper"))
    with pytest.raises(ConfigError, match="no such layout.*\n.*kaldi"):
        read_clips(tmp_path, Reading(layout="lhotse"))
    with pytest.raises(TextError, match="not of the layout kaldi: wav.scp"):
        read_clips(tmp_path, Reading(layout="kaldi"))
    lines(tmp_path / "metadata.csv", "a|seven|ann", "b|two|bob")
    assert read(tmp_path, layout="styletts2") == [("a", "seven", "ann"), ("b", "two", "bob")]


def test_a_bar_in_a_text_is_told_and_nothing_else_ends_a_line(tmp_path):
    odd = 'He\u2028said\x85\x0b"no" \u2029now'
    lines(sounds(tmp_path) / "metadata.csv", f"a|{odd}|{odd}\r", "b|x|y|z", 'c|"Go!"|"Go!"', "d|Fine.|Fine.")
    a, b, c, d = read_clips(tmp_path)
    assert (a.text, c.text, d.text) == (odd, '"Go!"', "Fine.")
    assert (b.id, b.problem.startswith("metadata.csv, line 2: 4 columns where the list has 3")) == ("b", True)
    lines(tmp_path / "clips.jsonl", *(json.dumps({"audio": "a.wav", "text": odd}, ensure_ascii=False) for _ in "a"))
    assert read_clips(tmp_path / "clips.jsonl")[0].text == odd


def test_audio_is_found_whatever_the_case_of_its_name(tmp_path):
    sounds(tmp_path, "wavs/a.WAV", "wavs/b.Flac", "wavs/C.wav", "wavs/d.wav", "wavs/D.wav", "wavs/e.1.wav")
    lines(tmp_path / "metadata.csv", *(f"{key}|Where is {key}?" for key in ("a", "b", "c.wav", "d", "e.1")))
    found = [Path(clip.path).name for clip in read_clips(tmp_path)]
    assert found == ["a.WAV", "b.Flac", "C.wav", "d.wav", "e.1.wav"]


@pytest.mark.parametrize("speakers", [[0, 1, 2, 0], [0.0, 1.0, 2.0, 0.0], ["0", "1", "2", "0"]])
def test_a_number_is_a_speaker_and_an_id_zero_too(tmp_path, speakers):
    sounds(tmp_path)
    rows = [{"id": i, "audio": f"wavs/{'abcd'[i]}.wav", "text": SAID[i], "speaker": speakers[i]} for i in range(4)]
    pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), tmp_path / "clips.parquet")
    lines(tmp_path / "clips.jsonl", *map(json.dumps, rows))
    for name in ("clips.jsonl", "clips.parquet"):
        assert [(clip.id, clip.speaker) for clip in read_clips(tmp_path / name)] == [*zip("0123", "0120", strict=True)]


def test_a_clip_without_a_speaker_is_set_aside_where_others_have_one(tmp_path):
    sounds(tmp_path)
    rows = [{"audio": f"wavs/{key}.wav", "text": text} for key, text in zip("abc", SAID, strict=False)]
    rows[0] |= {"speaker": 0}
    rows[1] |= {"speaker": None}
    clips = read_clips(lines(tmp_path / "clips.jsonl", *map(json.dumps, rows)))
    assert [clip.problem for clip in clips] == ["", *["no speaker, where other clips have one"] * 2]
    rows[2] |= {"speaker": ["ann"]}
    clips = read_clips(lines(tmp_path / "clips.jsonl", *map(json.dumps, rows)))
    assert clips[2].problem == "clips.jsonl, line 3: \"['ann']\" is no name"
    lines(
        tmp_path / "metadata.csv", *(f"{key}|{who}|{text}" for key, text, who in WANTED[:3]), "d||They all came home."
    )
    assert [bool(clip.problem) for clip in read_clips(tmp_path)] == [False, False, False, True]


def test_lists_with_names_are_read_by_them(tmp_path):
    sounds(tmp_path)
    said = ['He said "no", and left.', "A line\nbreak.", "A | bar.", "Plain."]
    cells = [text.replace('"', '""') for text in said]
    for header, layout in (("file_name,transcription,speaker_id", "audiofolder"), ("path,sentence,client_id", "csv")):
        rows = [f'wavs/{key}.wav,"{cell}",{who}' for key, cell, who in zip("abcd", cells, SPEAKERS, strict=True)]
        lines(tmp_path / "metadata.csv", header, *rows)
        assert read(tmp_path) == list(zip("abcd", said, SPEAKERS, strict=True))
        assert read_corpus(tmp_path).layout == layout
    rows = [f"wavs/{key}.wav|{text}|{who}" for key, text, who in WANTED]
    lines(tmp_path / "metadata.csv", "audio_file|text|speaker_name", *rows, 'wavs/a.wav|"A | bar."|ann')
    assert [(text, who) for _, text, who in WANTED] + [("A | bar.", "ann")] == [
        (clip.text, clip.speaker) for clip in read_clips(tmp_path)
    ]
    assert read_corpus(tmp_path).layout == "coqui"
    lines(tmp_path / "metadata.csv", "file_name,text", 'wavs/a.wav,"never closed', "wavs/b.wav,Fine.")
    with pytest.raises(TextError, match=r"metadata\.csv, line 2: bad CSV"):
        read_clips(tmp_path)


def test_columns_with_other_names_are_named_by_options(tmp_path):
    sounds(tmp_path)
    rows = [{"clip": f"wavs/{key}.wav", "said": text, "who": who} for key, text, who in WANTED]
    lines(tmp_path / "a.jsonl", *map(json.dumps, rows))
    lines(tmp_path / "a.csv", "clip,said,who", *(",".join(row.values()) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for file in ("a.jsonl", "a.csv", "a.parquet"):
        assert read(tmp_path / file, text="said", audio="clip", speaker="who") == WANTED
        with pytest.raises(TextError, match="clip.*said.*who.*\n.*--text-column|name the columns.*--text-column"):
            read_clips(tmp_path / file)
        with pytest.raises(ConfigError, match="spoken"):
            read_clips(tmp_path / file, Reading(text="spoken"))
    with pytest.raises(ConfigError, match="--columns is for lists without names"):
        read_clips(tmp_path / "a.jsonl", Reading(columns=("audio", "text", "speaker")))
    lines(tmp_path / "a.jsonl", json.dumps({"audio": "wavs/a.wav", "transcript": "1", "normalized_text": "one"}))
    with pytest.raises(TextError, match="the text may be transcript or normalized_text.*\n.*--text-column"):
        read_clips(tmp_path / "a.jsonl")


def test_nemo_manifests(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.arange(16000) / 16000, 8000)
    cut = {"audio_filepath": "long.wav", "text": "Where is it?", "duration": 0.5, "offset": 1.0, "speaker": 3}
    manifest = lines(tmp_path / "train_manifest.json", json.dumps(cut), json.dumps(cut | {"offset": -1}))
    for source in (tmp_path, manifest):
        corpus = read_corpus(source)
        assert corpus.layout == "nemo"
        first, second = corpus.clips
        assert (first.text, first.speaker, first.id) == ("Where is it?", "3", "long-1")
        assert "offset -1 and duration 0.5 are no stretch" in second.problem
    (audio,) = audio_of([first])
    (tmp_path / "cut.wav").write_bytes(audio)
    samples, rate = soundfile.read(tmp_path / "cut.wav")
    assert (rate, len(samples), samples[0]) == (8000, 4000, pytest.approx(0.5, abs=1e-4))


def test_kaldi_folders(tmp_path):
    data = tmp_path / "data" / "train"
    sounds(tmp_path)
    lines(data / "wav.scp", *(f"{key} wavs/{key}.wav" for key in "abcd"), "e sox x.wav - |", "f wavs/a.wav")
    lines(data / "text", *(f"{key}\t{text}" for key, text in zip("abcd", SAID, strict=True)), "e Yes.", "g No.")
    lines(data / "utt2spk", *(f"{key} {who}" for key, _, who in WANTED))
    clips = read_clips(data)
    assert [(Path(c.path).stem, c.text, c.speaker) for c in clips[:4]] == WANTED
    assert [(clip.id, clip.problem) for clip in clips[4:]] == [
        ("e", "wav.scp: e: a command, which is not run: convert the audio to files first"),
        ("g", "g has no file in wav.scp"),
        ("f", "f has no line in text"),
    ]
    lines(data / "segments", "a d 0.5 2", "b d 3 1")
    a, b = read_clips(data)[:2]
    assert (Path(a.path).stem, a.start, a.seconds, a.text) == ("d", 0.5, 1.5, SAID[0])
    assert b.problem == "segments: b: from 3 s to 1 s"


def test_folders_of_speakers(tmp_path):
    for key, text, who in WANTED:
        sounds(
            tmp_path, f"vctk/wav48/{who}/{key}.wav", f"flat/{key}.wav", f"by/{who}/{key}.wav", f"parts/train/{key}.wav"
        )
        lines(tmp_path / "vctk" / "txt" / who / f"{key}.txt", text)
        lines(tmp_path / "flat" / f"{key}.txt", text)
        lines(tmp_path / "by" / who / f"{key}.normalized.txt", text)
        lines(tmp_path / "parts" / "train" / f"{key}.lab", text)
    assert sorted(read(tmp_path / "vctk")) == WANTED
    assert sorted(read(tmp_path / "by")) == WANTED
    assert read(tmp_path / "flat") == sorted(read(tmp_path / "parts")) == [(key, text, "") for key, text, _ in WANTED]
    sounds(tmp_path, "parts/test/e.wav", "flat/e.wav")
    assert read_clips(tmp_path / "flat")[4].problem == "no e.txt beside it"
    with pytest.raises(TextError, match="test is no speaker.*\n.*give one folder"):
        read_clips(tmp_path / "parts")


def test_audio_in_parquet_may_be_a_path(tmp_path):
    sounds(tmp_path)
    structs = [{"bytes": None, "path": "wavs/a.wav"}, {"bytes": b"b", "path": "elsewhere/b.wav"}]
    pq.write_table(pa.table({"audio": structs, "transcription": SAID[:2]}), tmp_path / "structs.parquet")
    assert list(audio_of(read_clips(tmp_path / "structs.parquet"))) == [str(tmp_path / "wavs/a.wav"), b"b"]
    pq.write_table(pa.table({"audio": [[0.1, 0.2]], "text": ["Yes."]}), tmp_path / "arrays.parquet")
    with pytest.raises(TextError, match="the column audio holds list.*\n.*bytes of WAV"):
        read_clips(tmp_path / "arrays.parquet")


@pytest.mark.parametrize(
    ("spoken", "speakers"),
    [
        ([("kokoro", "heart"), ("kokoro", "michael")], ["heart", "michael"]),
        ([("kokoro", "heart"), ("joe", "")], ["kokoro@heart", "joe"]),
        ([("joe", ""), ("joe", "")], ["", ""]),
    ],
)
def test_the_speakers_of_a_synthesis_job_stay_apart(tmp_path, spoken, speakers):
    sounds(tmp_path, "audio/a.flac", "audio/b.flac")
    lines(tmp_path / "metadata.csv", *(f"{key}|{text}|{text}" for key, text in zip("ab", SAID, strict=False)))
    rows = [
        {"file_name": f"{key}.flac", "voice": voice, "speaker": who}
        for key, (voice, who) in zip("ab", spoken, strict=True)
    ]
    lines(tmp_path / "audio" / "metadata.jsonl", *map(json.dumps, rows))
    assert read(tmp_path) == list(zip("ab", SAID, speakers, strict=False))


def test_lists_that_hold_nothing_to_read_say_so(tmp_path):
    for content, refusal in (
        ("", "lists no clips"),
        ("file_name,text\n", "lists no clips"),
        ("a,b\n", "names no columns"),
    ):
        (sounds(tmp_path) / "list.csv").write_text(content, encoding="utf-8")
        with pytest.raises(TextError, match=refusal):
            read_clips(tmp_path / "list.csv")
    assert "no JSON object" in read_clips(lines(tmp_path / "array.json", '[{"audio": "a.wav"}]'))[0].problem


def test_several_lists_are_not_chosen_from(tmp_path):
    for name in ("train.txt", "val.txt"):
        lines(sounds(tmp_path) / name, "a|Where is it?")
    with pytest.raises(TextError, match=r"several lists: train\.txt, val\.txt"):
        read_clips(tmp_path)


def test_it_is_told_how_a_corpus_was_read(tmp_path, capsys, monkeypatch):
    lines(sounds(tmp_path) / "metadata.csv", *(f"{key}|{text}|{who}" for key, text, who in WANTED))
    assert read_corpus(tmp_path).summary.splitlines() == [
        "metadata.csv: layout list: id | text | speaker (4 clips, 2 speakers)",
        "  a | Where is the cat? | ann",
        "  b | It sat on a mat. | bob",
        "  c | Nobody saw it go. | ann",
    ]
    monkeypatch.setattr(job, "_prepare_shards", lambda tasks, *_: [task["no such key"] for task in tasks])
    with pytest.raises(KeyError, match="no such key"):  # it was told before the work began
        job.run(arguments(str(tmp_path), "-o", str(tmp_path / "data"), "--json"))
    assert "layout list: id | text | speaker" in capsys.readouterr().err
    words = ("--columns", "id,-,text", "--text-column", "x", "--layout", "list")
    assert job.reading_of(arguments("c", "-o", "d", *words)) == Reading("list", ("id", "-", "text"), "x")
    with pytest.raises(ConfigError, match="leave them out"):
        job.reading_of(arguments("d", "-o", "d", "--layout", "list"))
    assert all(len(layout.says) < 80 for layout in LAYOUTS.values())


def test_fields_that_came_later_leave_old_fingerprints_valid():
    assert "column" not in SourceClip("a", "b", "c").to_json()
    assert SourceClip("a", "b", "c", seconds=1.0).to_json()["seconds"] == 1.0


@pytest.mark.parametrize(
    "setting", ["mel.n_mels=-1", "mel.sample_rate=0", "mel.f_min=9000", "mel.log_floor=0", "mel.mel_scale=bark"]
)
def test_a_mel_that_cannot_be_is_refused_before_any_clip_is_read(setting):
    with pytest.raises(ConfigError, match=setting.split("=")[0][4:]):
        job.config_of(arguments("nothing", "-o", "data", "--set", setting))
