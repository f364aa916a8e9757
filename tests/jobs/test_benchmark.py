"""The benchmark: a reader held against itself differs by nothing, bars are read from where they stand, texts are found."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch

from cluster.machine import Watch, describe
from flowtts_core.audio.files import write_audio
from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.metrics.judges import Clip, Panel, Verdict
from flowtts_core.request import SynthesisRequest
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig
from flowtts_core.voice.card import load_card
from jobs import cli
from jobs.benchmarks import acoustic_against
from jobs.benchmarks import engine as benchmark_engine
from jobs.benchmarks import quality as benchmark_quality
from jobs.benchmarks import report as benchmark_report
from jobs.benchmarks import scale as benchmark_scale
from jobs.benchmarks import speed as benchmark_speed
from jobs.benchmarks import voices as benchmark_voices
from tests.onnx_graphs import make_kokoro_voice, make_piper_voice
from tests.speech_like import buzz
from tests.voices import make_voice

JUDGES = ("pocketsphinx", "jiwer", "speechmos", "resemblyzer")


class Parrot:
    """A synthesizer that answers each text with the recording of it."""

    fingerprint = "parrot"

    def __init__(self, recordings: dict[str, Path]) -> None:
        self.recordings = recordings
        self.voice = SimpleNamespace(vocoder=GriffinLim(GriffinLimConfig(iterations=8)))

    def synthesize(self, requests: list[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        return [self.answer(request) for request in requests]

    def answer(self, request: SynthesisRequest) -> Speech | SynthesisFailure:
        if request.steps == 10:
            return SynthesisFailure("does not know ten steps")
        waveform, rate = soundfile.read(self.recordings[request.text], dtype="float32")
        return Speech(waveform, rate)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in JUDGES), reason="needs pip install 'flowtts[eval]'"
)
def test_a_reader_is_its_own_equal(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next((shared_data / "ljspeech").rglob("*.wav")).parent
    metadata = next((shared_data / "ljspeech").rglob("metadata.csv")).read_text(encoding="utf-8").splitlines()
    rows = [line.split("|") for line in metadata]
    rows.sort(key=lambda row: (folder / f"{row[0]}.wav").stat().st_size)
    texts = [(row[0], row[2]) for row in rows[:2]]
    parrot = Parrot({text: folder / f"{key}.wav" for key, text in texts})
    monkeypatch.setattr(benchmark_quality.FlowSynthesizer, "load", lambda voice: parrot)
    monkeypatch.setattr(benchmark_quality, "STEPS", (4, 10))
    figures = benchmark_quality.quality(None, texts, n=2, ablation_n=1, teacher=folder, workers=1)
    for name in ("wer", "naturalness", "overall", "p808"):
        assert figures["difference"][name]["value"] == pytest.approx(0, abs=1e-6)
    teacher, voice = figures["systems"]
    assert voice["similarity"]["value"] == pytest.approx(1, abs=1e-5)
    assert voice["wer"] == teacher["wer"]
    assert teacher["overall"]["value"] > 2.5
    four, ten, ours, untrained = figures["ablation"]
    assert (four["failed"], ten["failed"]) == (0, 1)
    assert ten["wer"]["value"] == 1  # what was not said counts as all wrong, not as not measured
    assert (ten["overall"]["value"], ten["similarity"]["value"]) == (1, 0)
    assert ours["system"] == "teacher's mels, this vocoder"
    assert 0.8 < ours["similarity"]["value"] <= untrained["similarity"]["value"] + 0.05


def test_speed_and_readiness_of_a_small_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_speed, "SENTENCES", 3)
    monkeypatch.setattr(benchmark_speed, "COLD_RUNS", 1)
    voice = make_voice(tmp_path / "small")
    file = tmp_path / "figures.json"
    words = ["benchmark", "synthesis", "--voice", str(voice), "--what", "speed,ready", "--json", str(file)]
    assert cli.main(words) == 0
    figures = json.loads(file.read_text())
    speed = figures["speed"]
    assert sum(speed["shares"].values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in speed["shares"].values())
    assert 0 < speed["rtf"]["low"] <= speed["rtf"]["median"] <= speed["rtf"]["high"]
    assert speed["audio_s"] >= 5 * speed["sentences"] > 0
    assert figures["ready"]["cold_s"]["median"] > figures["ready"]["warm_s"]["median"] > 0
    assert [bar["name"] for bar in figures["bars"]] == [bar[0] for bar in benchmark_report.BARS[4:]]
    assert figures["machine"]["versions"]["torch"]
    assert "RTF" in capsys.readouterr().out


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "synthesis", "--what", "taste"]) == 2
    assert "quality,speed,ready" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(benchmark_speed, "read_texts", None)  # would fail if called
    assert cli.main(["benchmark", "synthesis", "--json", str(tmp_path / "file" / "figures.json")]) == 1
    assert "figures.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("One.\n\nTwo.\n", [("texts-00000", "One."), ("texts-00001", "Two.")]),
        ('id\ttext\na\tHe said "no\n', [("a", 'He said "no')]),
        ("\ufeffid\ttext\tnormalized\na\t1\tone\n", [("a", "one")]),
    ],
)
def test_texts_are_read(content: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text(content, encoding="utf-8")
    assert benchmark_speed.read_texts(tmp_path / "texts.tsv") == expected


@pytest.mark.parametrize("content", [b"", b"name\tage\nx\t3\n", b"\xff\xfe\xff"])
def test_what_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_bytes(content)
    with pytest.raises(TextError, match="texts.tsv"):
        benchmark_speed.read_texts(tmp_path / "texts.tsv")


def test_without_texts_the_demo_chapter_is_read() -> None:
    texts = benchmark_speed.read_texts(None)
    assert texts[1][1].startswith("Alice was beginning to get very tired")
    assert len(texts) > 40


def test_bars_hold_in_the_right_direction() -> None:
    interval = {"low": 0.0, "high": 0.0, "n": 2}
    figures = {
        "quality": {
            "systems": [
                {"system": "teacher", "similarity": None},
                {"system": "voice", "similarity": {"value": 0.9} | interval},
            ],
            "difference": {"wer": {"value": 0.04} | interval, "overall": {"value": -0.2} | interval, "p808": None},
        },
        "ready": {"cold_s": {"median": 5.0}, "warm_s": {"median": 0.151}},
    }
    met = {bar["bar"]: bar["met"] for bar in benchmark_report.bars(figures)}
    assert met == {0.03: False, -0.25: True, 0.85: True, 5.0: True, 0.15: False}


def test_the_watch_counts_what_others_do() -> None:
    with Watch() as watch:
        sum(range(2_000_000))
    assert watch.busy.wall_s > 0
    assert watch.busy.others_cores is None or 0 <= watch.busy.others_cores <= 1024
    assert describe()["cores"] >= 1


def test_distances_study_shows_what_it_claims() -> None:
    """KAD of equal sets is about 0 with few samples as with many; FAD is not."""
    from jobs.benchmarks import distances as study

    small, large = ([study.mixture(n, seed) for seed in range(8)] for n in (25, 400))
    reference = study.mixture(1000, seed=99)
    kads = [[study.kad(sample, reference) for sample in samples] for samples in (small, large)]
    fads = [[study.fad(sample, reference) for sample in samples] for samples in (small, large)]
    spread = max(abs(a - b) for a in kads[0] for b in kads[0])
    assert abs(sum(kads[0]) / 8 - sum(kads[1]) / 8) < spread
    assert min(fads[0]) > 3 * max(fads[1])
    shifted = [study.kad(study.mixture(400, seed, 1.0), reference) for seed in range(8)]
    assert min(shifted) > max(kads[1])


def test_an_evaluation_is_held_against_itself_with_more_workers(tmp_path, monkeypatch, capsys):
    """Every clip is judged in each run, and a run that takes half the time is twice as fast."""
    from jobs.benchmarks import evaluation as study
    from jobs.evaluation import run as evaluation
    from jobs.evaluation.worker import PartJudge

    def judge_parts(parts, worker_args, address, workers, gpus):
        work = PartJudge(**worker_args)
        for index, items in parts["generated"].items():
            task = {
                "which": "generated",
                "part": index,
                "items": [(dataclasses.asdict(item), None) for item, _ in items],
            }
            time.sleep(0.2 / workers)
            yield work(task)["clips"]

    monkeypatch.setattr(evaluation, "judge_parts", judge_parts)
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", buzz(8000, 100, 16000), 16000)
    figures = study.scaling(str(tmp_path), 100, [1, 4], ("shape",), lambda step: None)
    assert figures["audio_s"] == pytest.approx(50)
    assert [run["failed"] for run in figures["runs"]] == [0, 0]
    assert figures["runs"][0]["times"] == 1
    assert figures["runs"][1]["times_steady"] > 1
    assert "100 clips" in study.page(figures)
    assert cli.main(["benchmark", "evaluation", "--source", str(tmp_path), "--workers", "1"]) == 2


def test_the_engine_benchmark_measures_jobs_and_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small, and whatever the time is: each run is there, with sound, and the page says each."""
    monkeypatch.setattr(benchmark_engine, "FIRSTS", 2)
    figures = tmp_path / "figures.json"
    command = ["benchmark", "engine", "--voice", str(make_voice(tmp_path / "amy")), "--n", "4", "--tokens", "100,1000"]
    assert cli.main([*command, "--users", "1,2", "--frames", "640", "--seconds", "0.2", "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert [run["tokens"] for run in found["jobs"]["runs"]] == [100, 1000]
    runs = [(run["frames"], run["users"]) for run in found["streams"]["runs"]]
    assert runs == [(1, 2), (640, 1), (640, 2)]
    assert all(run["audio_per_s"] > 0 for run in found["jobs"]["runs"] + found["streams"]["runs"])
    said = capsys.readouterr().out
    assert "4 texts" in said and "1000 tokens together" in said and "2 users, 640 frames together" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("kind", ["engine", "scale"])
def test_a_gpu_that_is_not_there_is_named_at_once(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", kind, "--device", "cuda"]) == 2
    assert "--device cuda: torch sees no GPU" in capsys.readouterr().err


def test_a_voice_that_is_not_there_ends_the_scale_benchmark_before_it_begins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["benchmark", "scale", "--voice", "nobody", "--what", "ray"]) != 0
    assert "nobody" in capsys.readouterr().err


def test_a_steady_state_is_the_time_in_which_all_have_work() -> None:
    one = [(10.0, 1000, 50.0, 1), (20.0, 1000, 50.0, 1), (30.0, 1000, 50.0, 1), (40.0, 1000, 50.0, 1)]
    two = [(15.0, 10, 1.0, 2), (35.0, 2000, 100.0, 2)]  # its first counts for nothing, all of its second
    made = benchmark_scale.steady([*two, *one], workers=2)
    assert made["steady_s"] == pytest.approx(20.0)
    assert made["characters_per_s"] == pytest.approx((500 + 1000 + 500 + 2000) / 20)
    assert made["audio_per_s"] == pytest.approx((25 + 50 + 25 + 100) / 20)
    for events, workers in ((one, 2), ([*one, (5.0, 10, 1.0, 2)], 2), (one[:1], 1)):
        with pytest.raises(ConfigError, match="too few texts"):
            benchmark_scale.steady(events, workers)


def test_a_list_of_numbers_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "engine", "--tokens", "100,many"]) == 2
    assert "--tokens 100,many: not whole numbers" in capsys.readouterr().err


def test_voices_are_compared_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: Panel, clip: Clip, without: tuple[str, ...] = ()) -> Verdict:
        return Verdict(values=dict.fromkeys(("naturalness", "mos_p808", "wer", "cer"), (1.0, 2.0)))

    monkeypatch.setattr(Panel, "judge", judge)
    voices = [str(make_piper_voice(tmp_path / "joe")), f"{make_kokoro_voice(tmp_path / 'kokoro')}@bm_george"]
    figures = benchmark_voices.voices(voices, [("a", "Good evening."), ("b", "Good morning.")], "pocketsphinx", print)
    assert [row["voice"] for row in figures["voices"]] == voices
    for row in figures["voices"]:
        assert row["rtf"]["1"]["low"] <= row["rtf"]["1"]["median"] <= row["rtf"]["1"]["high"]
        assert row["naturalness"]["value"] == 0.5 and row["load_s"] > 0
        if sys.platform == "linux":  # of the voice's own process, which loads no torch
            assert 10 < row["memory_mb"] < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - 50
    assert all(voice in benchmark_voices.page(figures) for voice in voices)
    before = load_card(tmp_path / "joe")
    assert before.naturalness is None
    benchmark_voices.write_cards(figures)
    card = load_card(tmp_path / "joe")
    assert card.naturalness == 0.5 and card.scores["voices"]["texts"] == 2 and card.fingerprint == before.fingerprint
    assert load_card(tmp_path / "kokoro").naturalness is None  # it is that of one speaker
    (tmp_path / "joe" / "model.onnx").write_bytes(b"")
    with pytest.raises(FlowTTSError, match="does not speak"):
        benchmark_voices.voices(voices[:1], [("a", "A."), ("b", "B.")], "pocketsphinx", print)


def test_acoustic_models_are_timed_in_turns_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pair(size: str) -> acoustic_against.Pair:
        return acoustic_against.Pair(
            lambda steps: torch.full((5, 2), float(steps)),
            lambda steps: torch.full((5, 2), steps - 0.25),
            lambda steps: torch.full((5, 2), steps + 0.25),
            "torch",
            3_000_000,
            2.0,
        )

    monkeypatch.setitem(acoustic_against.REFERENCES, "tiny", pair)
    words = ["benchmark", "acoustic", "--against", "tiny", "--steps", "3", "--turns", "2"]
    assert cli.main([*words, "--json", str(tmp_path / "x.json")]) == 0
    [row] = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["rows"]
    assert row["apart"] == 0.25 and row["apart_bf16"] == 0.5 and row["times_as_fast"] > 0 and row["ours_rtf"] > 0
    assert "| tiny | base, 3 M |" in capsys.readouterr().out
    assert cli.main(["benchmark", "acoustic", "--against", "nobody"]) == 2
    assert cli.main([*words, "--turns", "0"]) == 2
