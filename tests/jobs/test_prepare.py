"""Preparing corpora: good clips become examples, bad ones are set aside with their reason, interruptions cost nothing."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from cluster.storage import Storage
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import ConfigError, OutputError, TextError
from flowtts_core.text.frontends import PhonemeFrontend
from flowtts_core.training.examples import SCHEMA, DatasetMeta, Examples
from flowtts_core.training.prepare import ClipPreparer, Limits, PrepareConfig, clipped_share
from jobs import prepare as job
from jobs.corpus.clips import audio_of, read_clips
from tests.speech_like import buzz

RATE = 22050
GOOD = ("good-b", "good-a", "stereo")


@pytest.fixture(scope="module")
def preparer() -> ClipPreparer:
    return ClipPreparer(PrepareConfig(limits=Limits(max_seconds=5)))


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
        "unspeakable": wav(tone(1.5)),
        "other-rate": wav(tone(1.5, 16000), 16000),
        "too-long": wav(tone(6)),
        "too-short": wav(tone(0.1)),
        "crowded": wav(tone(0.5)),
    }
    texts = dict.fromkeys(audio, "A fine day.") | {
        "no-text": "",
        "unspeakable": "漢字",
        "crowded": "It was a fine day. " * 5,
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
    "too-long": "too long: 5.",
    "too-short": "too short",
    "crowded": "tokens in",
    "missing": "no such file",
    "good-a": "used before",
    "line 16": "not `id|text`",
}


@pytest.fixture
def in_process(monkeypatch):
    """Prepare shards here instead of in Ray's workers; returns the list of shards that were prepared."""
    done: list[int] = []

    def shards(missing, prints, config, storage, address, workers):
        worker = job.ShardPreparer(config, storage)
        for index, clips in missing.items():
            done.append(index)
            yield {"shard": index, **worker.prepare_shard(index, prints[index], clips)}

    monkeypatch.setattr(job, "_prepare_shards", shards)
    return done


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    job.add_parser(parser.add_subparsers())
    return parser.parse_args(["prepare", *words])


def test_a_row_holds_the_clip_that_was_read(preparer):
    waveform = tone(1.37)
    row = preparer.prepare("a", "A fine day.", wav(waveform))
    assert isinstance(row, dict)
    assert set(row) == set(SCHEMA.names)
    frames = len(waveform) // 256
    assert row["n_frames"] == frames
    assert row["tokens"] == list(PhonemeFrontend().encode("A fine day.").tokens)
    audio, rate = soundfile.read(io.BytesIO(row["audio"]))
    assert rate == RATE
    assert len(audio) == frames * 256
    assert np.abs(audio - waveform[: frames * 256]).max() < 1e-4
    mel = np.frombuffer(row["mel"], np.float16).reshape(80, frames).astype(np.float32)
    expected = LogMel(MelConfig())(torch.from_numpy(audio.astype(np.float32))[None])[0].numpy()
    assert np.abs(mel - expected).mean() < 0.01


def test_resampling_keeps_pitch_and_duration():
    preparer = ClipPreparer(PrepareConfig(resample=True))
    row = preparer.prepare("a", "A fine day.", wav(tone(2.0, 16000), 16000))
    assert isinstance(row, dict)
    audio, rate = soundfile.read(io.BytesIO(row["audio"]))
    assert rate == RATE
    assert len(audio) / rate == pytest.approx(2.0, abs=0.02)
    peak = np.fft.rfftfreq(len(audio), 1 / rate)[np.abs(np.fft.rfft(audio)).argmax()]
    assert peak == pytest.approx(120, abs=1)
    loud = np.clip(8 * tone(2.0, 16000), -1, 1)  # clipped before the filter rounds its corners
    assert "clipped" in preparer.prepare("b", "A fine day.", wav(loud, 16000))


def test_only_runs_at_full_scale_are_clipping():
    waveform = np.zeros(100, np.float32)
    waveform[[5, 20, 21]] = 1.0
    assert clipped_share(waveform, Limits()) == 0.0
    waveform[40:44] = -1.0
    assert clipped_share(waveform, Limits()) == pytest.approx(0.04)


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
    examples = Examples(output, ["id", "tokens", "mel", "audio"])
    assert tuple(examples.key(i) for i in range(3)) == GOOD  # the corpus's own order
    assert examples.meta.mel == MelConfig()
    assert examples.meta.licence == "CC0"
    mels = np.concatenate([examples.mel(i).astype(np.float64).ravel() for i in range(3)])
    statistics = json.loads((output / "statistics.json").read_text())
    assert statistics["mel_mean"] == pytest.approx(mels.mean(), rel=1e-9)
    assert statistics["mel_std"] == pytest.approx(mels.std(), rel=1e-6)
    assert statistics["hours"] * 3600 == pytest.approx(5.0, abs=0.3)


def test_a_second_run_goes_on_and_gives_the_same_files(tmp_path, in_process):
    source = corpus(tmp_path / "corpus")
    config = PrepareConfig()
    job.prepare(source, tmp_path / "whole", config, clips_per_file=4)
    job.prepare(source, tmp_path / "cut", config, clips_per_file=4)
    (tmp_path / "cut" / "clips-00001.parquet").unlink()
    (tmp_path / "cut" / "dataset.json").unlink()
    (tmp_path / "cut" / ".partial-1-clips-00001.parquet").write_bytes(b"half")
    in_process.clear()
    again = job.prepare(source, tmp_path / "cut", config, clips_per_file=4)
    assert in_process == [1]
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cut").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    assert again.clips == len(Examples(tmp_path / "cut", []))


def test_a_damaged_file_is_prepared_again(tmp_path, in_process):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    job.prepare(source, output, PrepareConfig(), clips_per_file=4)
    damaged = output / "clips-00000.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-20])
    in_process.clear()
    job.prepare(source, output, PrepareConfig(), clips_per_file=4)
    assert in_process == [0]
    assert damaged.read_bytes() == whole


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
        job.prepare(source, output, PrepareConfig(limits=Limits(max_seconds=9)))
    assert DatasetMeta.load(output)  # the refusal left it whole
    (source / "wavs" / "good-a.wav").write_bytes(wav(tone(3.0)))
    with pytest.raises(OutputError, match="other clips"):
        job.prepare(source, output, PrepareConfig())
    result = job.prepare(source, output, PrepareConfig(), overwrite=True)
    assert result.hours * 3600 == pytest.approx(12.0, abs=0.4)


def test_an_interrupted_run_is_not_taken_for_a_finished_one(tmp_path, in_process, monkeypatch):
    source, output = corpus(tmp_path / "corpus"), tmp_path / "data"
    real = job.ShardPreparer.prepare_shard

    def fails_late(self, index, print_, clips):
        if index == 2:
            raise KeyboardInterrupt
        return real(self, index, print_, clips)

    monkeypatch.setattr(job.ShardPreparer, "prepare_shard", fails_late)
    with pytest.raises(KeyboardInterrupt):
        job.prepare(source, output, PrepareConfig(), clips_per_file=4)
    assert (output / "clips-00001.parquet").exists()
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
    config = job.config_of(arguments("x", "-o", "y", "--set", "mel.n_mels=40", "--set", "frontend.add_blank=false"))
    assert (config.mel.n_mels, config.frontend.add_blank) == (40, False)


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
    real = ClipPreparer.prepare

    def prepare(self, key, text, audio, speaker=""):
        if key == "good-a":
            raise Killed
        return real(self, key, text, audio, speaker)

    monkeypatch.setattr(ClipPreparer, "prepare", prepare)
    storage = Storage(str(tmp_path / "data"))
    for _ in range(3):  # two before it is careful: a death may be the machine's
        with pytest.raises(Killed):
            job.ShardPreparer(PrepareConfig(), storage).prepare_shard(0, "print", clips)
    note = job.ShardPreparer(PrepareConfig(), storage).prepare_shard(0, "print", clips)
    assert note["clips"] == 2
    assert [(entry["id"], entry["reason"]) for entry in note["set_aside"]] == [
        ("good-a", "its worker died while preparing it")
    ]
    assert list(storage.list()) == ["clips-00000.parquet"]


@pytest.mark.slow
def test_ray_workers_give_the_same_files_as_one_process(tmp_path, monkeypatch, in_process):
    source = corpus(tmp_path / "corpus")
    job.prepare(source, tmp_path / "alone", PrepareConfig(), clips_per_file=5)
    monkeypatch.undo()
    job.prepare(source, tmp_path / "ray", PrepareConfig(), clips_per_file=5, workers=2)
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes(), path.name
