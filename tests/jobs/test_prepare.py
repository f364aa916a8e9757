"""Preparing corpora: good clips become examples, bad ones are set aside with their reason, interruptions cost nothing."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from cluster.storage import Storage
from flowtts_core.audio.mel import VOCOS_24K, LogMel, MelConfig
from flowtts_core.errors import ConfigError, OutputError, TextError
from flowtts_core.text.frontends import CharacterConfig, CharacterFrontend, PhonemeConfig, PhonemeFrontend
from flowtts_core.training.example_files import AUDIO
from flowtts_core.training.examples import DatasetMeta, Examples
from flowtts_core.training.features import mel_set
from flowtts_core.training.prepare import (
    AS_RECORDED,
    CleanClip,
    ClipLimits,
    PrepareConfig,
    clipped_share,
    prepare_audio,
)
from jobs import prepare as job
from jobs.corpus import prepare_worker
from jobs.corpus.clips import audio_of, read_clips
from jobs.training.recipes import matcha_debug
from jobs.training.run import open_run
from tests.speech_like import buzz

RATE = 22050
MARKED = PrepareConfig(limits=ClipLimits(language="marked"))
GOOD = ("good-b", "good-a", "stereo")


def wav(waveform: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return buzz(int(seconds * rate), 120, rate)


def corpus(folder: Path) -> Path:
    """LJSpeech's format with three good clips and one of each kind of bad clip."""
    (folder / "wavs").mkdir(parents=True)
    audio = {
        "good-b": wav(tone(1.5)),
        "good-a": wav(tone(2.0)),
        "stereo": wav(np.stack([tone(1.5), 0.5 * tone(1.5)], axis=1)),
        "corrupt": b"RIFF" + bytes(range(200)),
        "cut": b"",
        "silent": wav(np.zeros(RATE, np.float32)),
        "clipped": wav(np.clip(8 * tone(1.5), -1, 1)),
        "no-text": wav(tone(1.5)),
        "unspeakable": wav(tone(1.6)),
        "other-rate": wav(tone(1.5, 16000), 16000),
        "too-long": wav(tone(6)),
        "too-short": wav(tone(0.1)),
        "crowded": wav(tone(0.5)),
    }
    texts = dict.fromkeys(audio, "A fine day.") | {
        "no-text": "",
        "unspeakable": "漢字",
        "crowded": "1999, 1999, 1999.",
    }
    for name, data in audio.items():
        (folder / "wavs" / f"{name}.wav").write_bytes(data)
    lines = [f"{name}|{text}|{text}" for name, text in texts.items()]
    lines += ["missing|Where is it?|Where is it?", "good-a|Again.|Again.", "no columns"]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


REASONS = {
    "corrupt": "unreadable",
    "cut": "unreadable",
    "silent": "silent",
    "clipped": "clipped",
    "no-text": "empty text",
    "unspeakable": "nothing in the text can be spoken",
    "other-rate": "sample rate 16000 Hz instead of 22050 Hz",
    "too-long": "too long: 6.",
    "too-short": "too short",
    "crowded": "tokens in",
    "missing": "no such file",
    "good-a": "used before",
    "line 16": "not `id|text`",
}


@pytest.fixture
def in_process(monkeypatch):
    """Prepare shards here instead of in Ray's workers; returns the list of (shard, kinds) that were prepared."""
    done: list[tuple[int, list[str]]] = []

    def shards(tasks, config, storage, address, workers):
        worker = job.ShardPreparer(config, storage)
        for task in tasks:
            done.append((task["shard"], task["missing"]))
            yield worker(task)

    monkeypatch.setattr(job, "_prepare_shards", shards)
    monkeypatch.setattr(job, "detector_is_there", lambda: False)  # or what is installed would decide
    return done


EVERYTHING = ["audio", "mel", "tokens"]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    job.add_parser(parser.add_subparsers())
    return parser.parse_args(["prepare", *words])


def test_a_folder_holds_the_clip_that_was_read(tmp_path, in_process):
    source = tmp_path / "corpus"
    (source / "wavs").mkdir(parents=True)
    waveform = tone(1.37)
    (source / "wavs" / "a.wav").write_bytes(wav(waveform))
    (source / "metadata.csv").write_text("a|A fine day.\n")
    job.prepare(source, tmp_path / "data", PrepareConfig(cleaning=AS_RECORDED))
    (row,) = pq.read_table(tmp_path / "data" / "audio" / "clips-00000.parquet").to_pylist()
    audio, rate = soundfile.read(io.BytesIO(row["audio"]), dtype="float32")
    assert (row["id"], row["text"], row["samples"], rate) == ("a", "A fine day.", len(waveform), RATE)
    assert np.abs(audio - waveform).max() < 1e-4
    examples, frames = Examples(tmp_path / "data", ["mel", "tokens", "audio"]), len(waveform) // 256
    assert examples.frames.tolist() == [frames]
    assert examples.tokens(0).tolist() == list(PhonemeFrontend().encode("A fine day.").tokens)
    expected = LogMel(MelConfig())(torch.from_numpy(audio[: frames * 256])[None])[0].numpy()
    assert np.array_equal(examples.mel(0), expected.astype(np.float16))
    assert np.array_equal(examples.audio(0, 300, 500), audio[300:800])


def test_resampling_keeps_pitch_and_duration():
    config = PrepareConfig(resample=True)
    clip = prepare_audio(wav(tone(2.0, 16000), 16000), config)
    assert isinstance(clip, CleanClip)
    audio = clip.waveform
    assert len(audio) / RATE == pytest.approx(2.0, abs=0.02)
    peak = np.fft.rfftfreq(len(audio), 1 / RATE)[np.abs(np.fft.rfft(audio)).argmax()]
    assert peak == pytest.approx(120, abs=1)
    loud = np.clip(8 * tone(2.0, 16000), -1, 1)  # clipped before the filter rounds its corners
    assert "clipped" in prepare_audio(wav(loud, 16000), config)


def test_only_runs_at_full_scale_are_clipping():
    waveform = np.zeros(100, np.float32)
    waveform[[5, 20, 21]] = 1.0
    assert clipped_share(waveform, ClipLimits()) == 0.0
    waveform[40:44] = -1.0
    assert clipped_share(waveform, ClipLimits()) == pytest.approx(0.04)


def test_good_clips_are_prepared_and_bad_ones_set_aside_with_their_reason(tmp_path, in_process, capsys):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    args = arguments(
        str(source), "-o", str(output), "--max-seconds", "5", "--clips-per-file", "5", "--json", "--licence", "CC0"
    )
    assert args.run(args) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["clips"], summary["set_aside"]) == (3, len(REASONS))
    aside = [json.loads(line) for line in (output / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {entry["id"]: REASONS[entry["id"]] in entry["reason"] for entry in aside} == dict.fromkeys(REASONS, True)
    examples = Examples(output, ["tokens", "mel", "audio"])
    kept = [row["id"] for file in sorted(output.glob("audio/*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert kept == [*GOOD, "unspeakable", "crowded"]  # in the corpus's own order; the last two have audio, but no use
    assert len(examples) == 3
    assert examples.meta.mel == MelConfig()
    assert examples.meta.licence == "CC0"
    mels = np.concatenate([examples.mel(i).astype(np.float64).ravel() for i in range(3)])
    assert summary["hours"] * 3600 == pytest.approx(5.0, abs=0.3)
    known = json.loads((output / mel_set(MelConfig()).folder / "features.json").read_text())
    assert (known["mean"], known["std"]) == (summary["mel_mean"], summary["mel_std"])
    files = sorted((output / mel_set(MelConfig()).folder).glob("*.parquet"))
    every = [value for file in files for value in pq.read_table(file)["value"].to_pylist()]
    values = np.frombuffer(b"".join(every), np.float16).astype(np.float64)
    assert summary["mel_mean"] == pytest.approx(values.mean(), rel=1e-9)
    assert summary["mel_std"] == pytest.approx(values.std(), rel=1e-6)
    assert len(values) >= len(mels)  # of clips too whose text cannot be used with these tokens


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_second_run_goes_on_and_gives_the_same_files(tmp_path, in_process):
    source = corpus(tmp_path / "corpus")
    config = PrepareConfig()
    job.prepare(source, tmp_path / "whole", config, clips_per_file=4)
    job.prepare(source, tmp_path / "cut", config, clips_per_file=4)
    (tmp_path / "cut" / "audio" / "clips-00001.parquet").unlink()
    (tmp_path / "cut" / mel_set(config.mel).folder / "clips-00002.parquet").unlink()
    (tmp_path / "cut" / "dataset.json").unlink()
    (tmp_path / "cut" / "audio" / ".partial-1-clips-00001.parquet").write_bytes(b"half")
    in_process.clear()
    again = job.prepare(source, tmp_path / "cut", config, clips_per_file=4)
    assert in_process == [(1, EVERYTHING), (2, ["mel"])]
    names = files_of(tmp_path / "whole")
    assert names == files_of(tmp_path / "cut")
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    assert again.clips == len(Examples(tmp_path / "cut", []))


def test_a_damaged_file_is_prepared_again(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig(), clips_per_file=4)
    for folder, remade in (("audio", EVERYTHING), (mel_set(MelConfig()).folder, ["mel"])):
        damaged = output / folder / "clips-00000.parquet"
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-20])
        in_process.clear()
        job.prepare(source, output, PrepareConfig(), clips_per_file=4)
        assert in_process == [(0, remade)]
        assert damaged.read_bytes() == whole


def test_other_features_are_made_of_the_audio_that_is_there(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig(), clips_per_file=6)
    at_once = tmp_path / "at once"
    job.prepare(source, at_once, PrepareConfig(mel=MelConfig(n_mels=40)), clips_per_file=6)
    (source / "metadata.csv").unlink()  # the corpus is gone
    before = (output / "dataset.json").read_bytes()
    in_process.clear()
    args = arguments(str(output), "-o", str(output), "--set", "mel.n_mels=40", "--json")
    assert args.run(args) == 3
    assert [missing for _, missing in in_process] == [["mel"]] * 3
    assert (output / "dataset.json").read_bytes() == before  # the first features stay the default
    first, second = Examples(output, ["mel"]), Examples(output, ["mel"], mel={"n_mels": 40})
    assert (len(first), first.mel(0).shape[0], second.mel(0).shape[0]) == (len(second), 80, 40)
    folder = mel_set(MelConfig(n_mels=40)).folder
    for name in files_of(output / folder):
        assert (output / folder / name).read_bytes() == (at_once / folder / name).read_bytes(), name
    in_process.clear()
    args = arguments(str(output), "-o", str(output), "--set", "frontend.name=characters")
    args.run(args)
    assert [missing for _, missing in in_process] == [["tokens"]] * 3
    characters = Examples(output, ["tokens"], frontend={"name": "characters"})
    frontend = CharacterFrontend(CharacterConfig())
    assert characters.tokens(0).tolist() == list(frontend.encode("A fine day.").tokens)
    recipe = replace(matcha_debug(), mel={"n_mels": 40}, frontend={"name": "characters"})
    fitted = open_run(tmp_path / "runs", output, recipe).recipe
    assert (fitted.model.mel.n_mels, fitted.model.n_symbols) == (40, frontend.n_symbols)


def test_features_that_are_not_there_are_named_with_the_command_that_makes_them(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig())
    command = rf"flowtts prepare {output} -o {output} --set mel.n_mels=40"
    with pytest.raises(TextError, match=f"no mel of this configuration\n.*{command}"):
        Examples(output, [], mel={"n_mels": 40})
    with pytest.raises(TextError, match='no tokens of this .*\n.*--set frontend.name="bytes"'):
        Examples(output, [], frontend={"name": "bytes"})
    with pytest.raises(ConfigError, match="sample_rate = 24000: the audio was prepared at 22050 Hz"):
        Examples(output, [], mel={"sample_rate": 24000})
    for words in (["--max-seconds", "3"], ["--resample"], ["--set", "mel.sample_rate=24000"]):
        with pytest.raises(ConfigError, match="decide about the audio"):
            job.config_of(arguments(str(output), "-o", str(output), *words))


def test_a_folder_of_the_first_version_is_refused_with_what_to_do(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    output.mkdir()
    (output / "clips-00000.parquet").write_bytes(b"of the first version")
    (output / "dataset.json").write_text(json.dumps({"mel": {}, "frontend": {}}))
    with pytest.raises(TextError, match="another version.*\n.*flowtts prepare"):
        DatasetMeta.load(output)
    with pytest.raises(OutputError, match="another version.*\n.*--overwrite"):
        job.prepare(source, output, PrepareConfig())
    assert job.prepare(source, output, PrepareConfig(), overwrite=True).clips == len(Examples(output, []))


def test_a_list_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("a|Hello.\nb|Café.\n".encode("latin-1"))
    with pytest.raises(TextError, match=r"metadata\.csv, line 2: not UTF-8"):
        read_clips(tmp_path)


def test_two_runs_at_once_are_refused(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    with Storage(str(output)).lock(), pytest.raises(OutputError, match="another run"):
        job.prepare(source, output, PrepareConfig())


def test_other_settings_or_audio_never_mix_with_what_stands_there(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig())
    with pytest.raises(OutputError, match="--overwrite"):
        job.prepare(source, output, PrepareConfig(limits=ClipLimits(max_seconds=9)))
    assert DatasetMeta.load(output)  # the refusal left it whole
    (source / "wavs" / "good-a.wav").write_bytes(wav(tone(3.0)))
    with pytest.raises(OutputError, match="other clips"):
        job.prepare(source, output, PrepareConfig())
    result = job.prepare(source, output, PrepareConfig(), overwrite=True)
    assert result.hours * 3600 == pytest.approx(12.0, abs=0.4)


def test_an_interrupted_run_is_not_taken_for_a_finished_one(tmp_path, in_process, monkeypatch):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    real = job.ShardPreparer.prepare_shard

    def fails_late(self, index, print_, missing, clips):
        if index == 2:
            raise KeyboardInterrupt
        return real(self, index, print_, missing, clips)

    monkeypatch.setattr(job.ShardPreparer, "prepare_shard", fails_late)
    with pytest.raises(KeyboardInterrupt):
        job.prepare(source, output, PrepareConfig(), clips_per_file=4)
    assert (output / "audio" / "clips-00001.parquet").exists()
    with pytest.raises(TextError, match="flowtts prepare"):
        Examples(output, [])


def test_the_three_forms_of_a_corpus_give_the_same_clips(tmp_path):
    folder = tmp_path / "lj"
    (folder / "wavs").mkdir(parents=True)
    data = {"a": wav(tone(1.0)), "b": wav(tone(1.2))}
    for key, audio in data.items():
        (folder / "wavs" / f"{key}.wav").write_bytes(audio)
    (folder / "metadata.csv").write_text("a|Mr. A|mister a\nb|B\n", encoding="utf-8")
    rows = [
        {"id": "a", "audio": "lj/wavs/a.wav", "text": "mister a"},
        {"id": "b", "audio": "lj/wavs/b.wav", "text": "B"},
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = {"id": ["a", "b"], "text": ["mister a", "B"], "audio": [data["a"], data["b"]]}
    pq.write_table(pa.table(table), tmp_path / "bytes.parquet", row_group_size=1)
    structs = [{"bytes": audio, "path": "x.wav"} for audio in data.values()]
    pq.write_table(pa.table({**table, "audio": structs}), tmp_path / "structs.parquet")
    for source in (folder, tmp_path / "clips.jsonl", tmp_path / "bytes.parquet", tmp_path / "structs.parquet"):
        clips = read_clips(source)
        assert [(clip.id, clip.text, clip.problem) for clip in clips] == [("a", "mister a", ""), ("b", "B", "")]
        audio = [item if isinstance(item, bytes) else Path(item).read_bytes() for item in audio_of(clips)]
        assert audio == list(data.values())


def test_speakers_are_numbered_by_name(tmp_path, in_process):
    (tmp_path / "a.wav").write_bytes(wav(tone(1.5)))
    rows = [
        {"id": str(i), "audio": "a.wav", "text": "A fine day.", "speaker": name}
        for i, name in enumerate(["zoe", "ann"])
    ]
    (tmp_path / "clips.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + "not json\n", encoding="utf-8"
    )
    result = job.prepare(tmp_path / "clips.jsonl", tmp_path / "data", PrepareConfig())
    assert (result.clips, result.set_aside, result.speakers) == (2, 1, 2)
    examples = Examples(tmp_path / "data", [])
    assert examples.meta.speakers == ("ann", "zoe")
    assert examples.speaker_ids.tolist() == [1, 0]


def test_wrong_usage_is_named_before_any_work(tmp_path):
    with pytest.raises(TextError, match="no such file"):
        read_clips(tmp_path / "nothing")
    with pytest.raises(TextError, match="not a corpus"):
        read_clips(tmp_path)
    with pytest.raises(ConfigError, match="no field 'n_melz'.*\n.*n_mels"):
        job.config_of(arguments("x", "-o", "y", "--set", "mel.n_melz=3"))
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        job.config_of(arguments("x", "-o", "y", "--set", "mel.n_mels"))
    assert job.config_of(arguments("x", "-o", "y", "--mel", "vocos", "--set", "mel.pitch=true")).mel == replace(
        VOCOS_24K, pitch=True
    )
    config = job.config_of(arguments("x", "-o", "y", "--set", "mel.n_mels=40", "--set", "frontend.add_blank=false"))
    assert (config.mel.n_mels, config.frontend["add_blank"]) == (40, False)
    with pytest.raises(ConfigError, match="no language 'fr'"):
        job.config_of(arguments("x", "-o", "y", "--language", "fr"))
    with pytest.raises(ConfigError, match="no field nonsense"):
        job.config_of(arguments("x", "-o", "y", "--set", "frontend.nonsense=1"))


def test_a_corpus_is_read_in_its_language(tmp_path, in_process):
    pytest.importorskip("gruut_lang_de")
    (tmp_path / "corpus" / "wavs").mkdir(parents=True)
    (tmp_path / "corpus" / "wavs" / "a.wav").write_bytes(wav(tone(1.37)))
    (tmp_path / "corpus" / "metadata.csv").write_text("a|Schöne Straße Nr. 3.\n", encoding="utf-8")
    config = job.config_of(arguments("x", "-o", "y", "--language", "de"))
    job.prepare(tmp_path / "corpus", tmp_path / "data", config)
    spoken = PhonemeFrontend(PhonemeConfig(language="de")).encode("Schöne Straße Nummer drei.")
    assert Examples(tmp_path / "data", ["tokens"]).tokens(0).tolist() == list(spoken.tokens)


def test_a_corpus_without_one_usable_clip_is_an_error(tmp_path, in_process):
    (tmp_path / "corpus" / "wavs").mkdir(parents=True)
    (tmp_path / "corpus" / "metadata.csv").write_text("a|Hello.\n", encoding="utf-8")
    with pytest.raises(TextError, match="no clip can be trained on"):
        job.prepare(tmp_path / "corpus", tmp_path / "data", PrepareConfig())
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_a_clip_that_kills_its_worker_is_found_and_set_aside(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for the death of the process."""

    source = corpus(tmp_path / "corpus")
    clips = [clip for clip in read_clips(source) if clip.id in GOOD and not clip.problem]
    real = prepare_worker.prepare_audio

    def prepare(audio, config):
        if "good-a" in str(audio):
            raise Killed
        return real(audio, config)

    monkeypatch.setattr(prepare_worker, "prepare_audio", prepare)
    storage = Storage(str(tmp_path / "data"))
    for _ in range(3):  # two before it is careful: a death may be the machine's
        with pytest.raises(Killed):
            job.ShardPreparer(MARKED, storage).prepare_shard(0, "print", EVERYTHING, clips)
    note = job.ShardPreparer(MARKED, storage).prepare_shard(0, "print", EVERYTHING, clips)
    assert len(note[AUDIO]["index"]) == len(note["mel"]["index"]) == 2
    assert [(entry["id"], entry["reason"]) for entry in note[AUDIO]["set_aside"]] == [
        ("good-a", "its worker died while preparing it")
    ]
    assert list(storage.list()) == ["audio", "features"]


def test_a_clip_that_kills_the_maker_of_features_is_left_without_them(tmp_path, monkeypatch, in_process):
    class Killed(BaseException):
        """Stands for the death of the process."""

    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig())
    real = prepare_worker.MAKERS["tokens"]

    class Deadly(real):
        def make(self, text, waveform):
            if text.startswith("1999"):
                raise Killed
            return super().make(text, waveform)

    monkeypatch.setitem(prepare_worker.MAKERS, "tokens", Deadly)
    config = replace(MARKED, frontend={"name": "bytes"})
    for _ in range(3):
        with pytest.raises(Killed):
            job.ShardPreparer(config, Storage(str(output))).prepare_shard(0, "print", ["tokens"], [])
    note = job.ShardPreparer(config, Storage(str(output))).prepare_shard(0, "print", ["tokens"], [])["tokens"]
    reasons = {entry["id"]: entry["reason"] for entry in note["set_aside"]}
    assert reasons.keys() == {"crowded", "unspeakable"}
    assert reasons["crowded"] == "its worker died while preparing it"
    assert note["index"].count(0) == 2


@pytest.mark.slow
def test_ray_workers_give_the_same_files_as_one_process(tmp_path, monkeypatch, in_process):
    source = corpus(tmp_path / "corpus")
    job.prepare(source, tmp_path / "alone", PrepareConfig(), clips_per_file=5)
    monkeypatch.undo()
    job.prepare(source, tmp_path / "ray", PrepareConfig(), clips_per_file=5, workers=2)
    for name in files_of(tmp_path / "alone"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes(), name
