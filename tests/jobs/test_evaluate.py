"""Evaluation: every way clips can lie, bad clips set aside, exit codes, resume, and a page that holds its sound."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from cluster.storage import Storage
from flowtts_core.audio.files import encode, write_audio
from flowtts_core.errors import AudioError, ConfigError, FlowTTSError, OutputError, TextError
from flowtts_core.metrics.judges import JUDGES, Clip, Panel, PanelConfig, Verdict
from flowtts_core.text.document import TextRow
from jobs import cli
from jobs.evaluation import run as evaluation
from jobs.evaluation.input import find_items, read_clip
from jobs.evaluation.output import write_outputs
from jobs.evaluation.result import Evaluation, compare, judged_otherwise, load
from jobs.evaluation.run import EvaluationOptions, chosen_judges, evaluate, requirement_of
from jobs.evaluation.worker import PartJudge, read_part
from jobs.synthesis import manifest
from jobs.synthesis.plan import plan_corpus
from jobs.synthesis.settings import Speaking
from tests.cluster.test_storage import s3_root  # noqa: F401 - a fixture
from tests.fake_engine import MakeTone, speak_here
from tests.speech_like import buzz

RATE = 16000


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return buzz(round(seconds * RATE), 90 + 7 * seed, RATE)


def write_clips(folder: Path, n: int, gain: float = 0.5, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        write_audio(folder / f"c{i:02d}.wav", gain * sound(i), RATE)
        (folder / f"c{i:02d}.txt").write_text(f"Clip number {i}.\n", encoding="utf-8")
    return folder


def test_clips_of_a_folder_and_of_ljspeech(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "loose", 2)
    items = find_items(str(folder))
    assert [(item.id, item.text, item.place) for item in items] == [
        ("c00", "Clip number 0.", "c00.wav"),
        ("c01", "Clip number 1.", "c01.wav"),
    ]
    (folder / "metadata.csv").write_text("c00|Raw 0|Read 0\nc07|Raw 7|Read 7\n", encoding="utf-8")
    there, lost = find_items(str(folder))
    assert (there.text, there.error) == ("Read 0", "")
    assert "c07" in lost.error
    (folder / "metadata.csv").write_text("c00|0|Read\u20280\nc01|0|Read 1\n", encoding="utf-8")
    assert [item.text for item in find_items(str(folder))] == ["Read\u20280", "Read 1"]


def test_clips_of_librispeech_and_equal_names(tmp_path: Path) -> None:
    for speaker in ("12", "13"):
        write_clips(tmp_path / speaker, 1)
        (tmp_path / speaker / "c00.txt").unlink()
    (tmp_path / "12" / "12.trans.txt").write_text("c00 WHAT WAS SAID\n", encoding="utf-8")
    assert [item.id for item in find_items(str(tmp_path))] == ["12/c00", "13/c00"]
    assert find_items(str(tmp_path / "12"))[0].text == "WHAT WAS SAID"


@pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "datasets"])
def test_clips_of_parquet(wrapped: bool, tmp_path: Path) -> None:
    data = encode(0.5 * sound(1), RATE, ".flac")
    audio = {"bytes": data, "path": "x.flac"} if wrapped else data
    pq.write_table(pa.Table.from_pylist([{"audio": audio, "text": "One.", "id": "one"}]), tmp_path / "a.parquet")
    for root in (tmp_path / "a.parquet", tmp_path):
        (item,) = find_items(str(root))
        assert (item.id, item.text) == ("one", "One.")
        waveform, rate = read_clip(str(root), item.place)
        assert (rate, len(waveform)) == (RATE, RATE // 2)
    pq.write_table(pa.Table.from_pylist([{"text": "no sound"}]), tmp_path / "a.parquet")
    with pytest.raises(TextError, match="no column of audio"):
        find_items(str(tmp_path / "a.parquet"))


def test_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="holds no clips"):
        find_items(str(tmp_path))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(TextError, match=r"broken\.parquet|cannot be read"):
        find_items(str(tmp_path))
    with pytest.raises(AudioError, match="no such file"):
        read_clip(str(tmp_path), "gone.wav")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten good and three bad clips, judged against ten others by the command."""
    base = tmp_path_factory.mktemp("evaluation")
    folder = write_clips(base / "made", 10)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound", encoding="utf-8")
    (folder / "cut.flac").write_bytes(encode(sound(1), RATE, ".flac")[:50])
    write_clips(base / "real", 10, first=20)
    command = ["evaluate", str(folder), "--reference", str(base / "real"), "--judges", "shape,series", "--no-progress"]
    code = cli.main([*command, "-o", str(base / "out"), "--require", "clipped<0.5", "--workers", "2"])
    assert code == 3  # judged, but not all of it
    return base


def test_bad_clips_are_counted_and_cost_no_other(judged: Path) -> None:
    summary = json.loads((judged / "out/scores.json").read_text(encoding="utf-8"))
    assert (summary["clips"], summary["failed"]) == (13, 3)
    assert summary["scores"]["seconds"]["value"] == pytest.approx(0.5)
    assert (summary["scores"]["seconds"]["n"], summary["scores"]["seconds"]["failed"]) == (10, 3)
    assert any("text.wav" in reason for reason in summary["reasons"])
    assert summary["requirements"] == [{"required": "clipped < 0.5", "found": 0.0, "met": True}]
    assert {name: found["n_reference"] for name, found in summary["distances"].items()} == {
        "kad.mel": 10, "fad.mel": 10, "ckad.mel": 10, "tkad.mel": 10
    }  # fmt: skip
    assert summary["distances"]["kad.mel"]["unit"] == "gaussian kernel, bandwidth of the reference"
    assert summary["scores"]["fad_clip"]["n"] == 10
    assert summary["unpaired"] == 10  # the reference's clips have other ids
    clips = pq.read_table(judged / "out/clips.parquet").to_pylist()
    assert sum(row["status"] == "failed" for row in clips) == 3
    assert (judged / "out/clips.csv").read_text(encoding="utf-8").count("\n") == 14


def test_the_page_holds_its_sound(judged: Path) -> None:
    page = (judged / "out/report.html").read_text(encoding="utf-8")
    assert "3 of 13 clips could not be judged" in page
    assert page.count("data:audio/mpeg;base64,") == 10
    assert "http" not in page.replace("http-equiv", "")


def test_a_finished_evaluation_is_not_done_again(judged: Path) -> None:
    parts = {path: path.stat().st_mtime_ns for path in (judged / "out").rglob("parts/*.parquet")}
    seen: list[tuple[int, int]] = []
    found = evaluate(
        str(judged / "made"),
        str(judged / "real"),
        str(judged / "out"),
        EvaluationOptions(PanelConfig(("shape", "series"))),
        lambda a, b: seen.append((a, b)),
    )
    assert seen == [(23, 23)]
    assert found.parts_resumed == 1
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert load(str(judged / "out")).scores == found.scores
    assert all(difference["value"] == 0 for difference in compare(found, load(str(judged / "out"))).values())
    with pytest.raises(OutputError, match="another evaluation"):
        evaluate(
            str(judged / "made"),
            None,
            str(judged / "out"),
            EvaluationOptions(PanelConfig(("shape",))),
            lambda a, b: None,
        )


def test_an_unmet_requirement_sets_the_exit_code(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "evaluate",
        str(judged / "made"),
        "--reference",
        str(judged / "real"),
        "--judges",
        "shape,series",
        "--json",
    ]
    code = cli.main([*command, "-o", str(judged / "out"), "--require", "seconds>2", "--against", str(judged / "out")])
    assert code == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed["requirements"][0]["met"] is False
    assert printed["differences"][str(judged / "out")]["seconds"]["value"] == 0


@pytest.mark.parametrize("text", ["wer", "wer=0.3", "wer<=0.3", "taste<1", "wer<", "0.3>wer"])
def test_requirements_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="wer|taste"):
        requirement_of(text, PanelConfig())


def test_requirements() -> None:
    assert requirement_of(" wer < 0.3", PanelConfig()).met(0.2)
    assert not requirement_of("wer<0.3", PanelConfig()).met(0.3)
    assert not requirement_of("kad.mel<1", PanelConfig()).met(None)  # what was not measured is not met
    with pytest.raises(ConfigError, match="no judge 'taste'"):
        PanelConfig(("taste",))


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 1)
    shutil.copy(folder / "c00.txt", tmp_path / "made-notes.txt")
    with pytest.raises(OutputError, match="not empty"):
        evaluate(str(folder), None, str(tmp_path), EvaluationOptions(PanelConfig(("shape",))), lambda a, b: None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge in this process: the same job without Ray's seconds."""

    def judge(parts: dict, worker_args: dict, *_: object) -> Iterator[int]:
        work = PartJudge(**worker_args)
        for which, planned in parts.items():
            for index, items in planned.items():
                task = {"which": which, "part": index, "items": [(asdict(item), place) for item, place in items]}
                yield work(json.loads(json.dumps(task)))["clips"]

    monkeypatch.setattr(evaluation, "judge_parts", judge)


def judge(generated: Path, reference: Path | None, output: Path, *judges: str, **options: object) -> Evaluation:
    chosen = EvaluationOptions(PanelConfig(judges), **options)
    return evaluate(str(generated), str(reference) if reference else None, str(output), chosen, lambda a, b: None)


def test_sounds_that_are_not_numbers_fail_their_own_clip(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 3)
    soundfile.write(folder / "c01.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    found = judge(folder, None, tmp_path / "out", "shape")
    assert (found.clips, found.failed, found.scores["seconds"].n) == (3, 1, 2)
    assert "not numbers" in found.rows[1]["reason"]


def test_too_few_clips_for_a_distance_are_said_to_be(inline: None, tmp_path: Path) -> None:
    found = judge(write_clips(tmp_path / "a", 9), write_clips(tmp_path / "b", 3), tmp_path / "out", "shape", "warp")
    assert found.distances["kad.mel"]["value"] is None
    assert "3 of the reference have embeddings; each side needs 8" in found.distances["kad.mel"]["why"]
    assert found.unpaired == 6
    assert found.scores["mcd"].n == 3
    assert found.scores["mcd"].value == 0  # the three are the same in both
    assert not requirement_of("kad.mel<1", PanelConfig()).met(found.value("kad.mel"))


def test_swapped_texts_are_seen_by_the_conditional_distance_alone(inline: None, tmp_path: Path) -> None:
    """Both sets hold the same sounds and the same texts, but in one they do not belong together."""
    words = ["north wind", "big brown dog", "seven apples", "late trains"]
    for name, turn in (("real", 0), ("fair", 0), ("swapped", 1)):
        folder = write_clips(tmp_path / name, 24, first=0)
        for i in range(24):
            write_audio(folder / f"c{i:02d}.wav", 0.3 * (1 + i % 4) * sound(40 * (i % 4) + i // 4), RATE)
            (folder / f"c{i:02d}.txt").write_text(words[(i + turn) % 4], encoding="utf-8")
    fair, swapped = (
        judge(tmp_path / name, tmp_path / "real", tmp_path / f"{name}-out", "shape").distances
        for name in ("fair", "swapped")
    )
    assert fair["kad.mel"]["value"] == pytest.approx(swapped["kad.mel"]["value"], abs=1e-9)
    # of a set against itself the unbiased estimate lies below 0
    assert swapped["ckad.mel"]["value"] > 0.02 > 0 > fair["ckad.mel"]["value"]


def test_other_order_in_time_is_seen_by_the_temporal_distance_alone(inline: None, tmp_path: Path) -> None:
    """A clip that rises and falls slowly, and one of the same frames shuffled: the log-mel's statistics are equal."""
    rng, tone = np.random.default_rng(0), sound(3, 4.0)
    for name, shuffled in (("real", False), ("fair", False), ("shuffled", True)):
        (tmp_path / name).mkdir()
        for i in range(10):
            gain = 0.5 + 0.4 * np.sin(2 * np.pi * (np.arange(40) / 20 + i / 10))
            gain = rng.permutation(gain) if shuffled else gain
            write_audio(tmp_path / name / f"c{i}.wav", tone * np.repeat(gain, len(tone) // 40), RATE)
    fair, mixed = (
        judge(tmp_path / name, tmp_path / "real", tmp_path / f"{name}-out", "shape", "series").distances
        for name in ("fair", "shuffled")
    )
    assert mixed["tkad.mel"]["value"] > 10 * max(abs(fair["tkad.mel"]["value"]), 1e-3)


def test_speed_is_read_where_it_was_noted(inline: None, tmp_path: Path) -> None:
    data = encode(0.5 * sound(1, 2.0), RATE, ".flac")
    rows = [{"audio": data, "id": f"r{i:02d}", "compute_s": 0.1 + 0.01 * i, "latency_s": 0.05 * i} for i in range(21)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = judge(tmp_path / "a.parquet", None, tmp_path / "out", "speed").scores
    assert found["rtf"].value == pytest.approx(0.2 / 2.0)
    assert [found[f"latency_p{q}"].value for q in (50, 95, 99)] == pytest.approx([0.5, 0.95, 0.99])
    assert found["latency_p50"].low < 0.5 < found["latency_p50"].high


def test_models_that_users_bring_judge(inline: None, tmp_path: Path) -> None:
    """Each by its folder: a recogniser, a speaker encoder, embedders of sounds, one of which reads the texts too."""
    models = pytest.importorskip(
        "tests.pretrained_models", reason="needs pip install 'flowtts[hub]'", exc_type=ImportError
    )
    asr, voices, wavlm, clap = (tmp_path / name for name in ("asr", "voices", "wavlm", "clap"))
    models.save_letters(models.save_raw(asr, "HubertForCTC"))
    models.save_raw(voices, "WavLMForXVector")
    models.save_raw(wavlm, "WavLMModel")
    models.save_clap(clap)
    panel = PanelConfig(
        ("words", "speaker", "shape"), f"ctc:{asr}", f"xvector:{voices}", embedders=(f"wavlm:{wavlm}", f"clap:{clap}")
    )
    made, real = write_clips(tmp_path / "made", 8), write_clips(tmp_path / "real", 8, gain=0.2)
    found = evaluate(str(made), str(real), str(tmp_path / "out"), EvaluationOptions(panel), lambda a, b: None)
    assert found.failed == 0, found.reasons
    assert {name.partition(".")[2] for name in found.distances} == {"mel", "speaker", "wavlm", "clap"}
    assert -1 <= found.scores["clap_score"].value <= 1
    assert found.scores["secs"].n == found.scores["wer"].n == 8
    assert found.rows[0]["embeddings"]["speaker"].shape == (12,)  # the x-vector's, not Resemblyzer's
    assert requirement_of("kad.wavlm<1", panel).metric == "kad.wavlm"


def test_a_model_that_does_not_load_ends_the_job_with_the_reason(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 2)
    panel = PanelConfig(("words",), asr=f"whisper:{tmp_path / 'nothing'}")
    with pytest.raises(FlowTTSError, match="nothing"):
        evaluate(str(folder), None, str(tmp_path / "out"), EvaluationOptions(panel), lambda a, b: None)
    assert judge(folder, None, tmp_path / "out", "shape").failed == 0  # it held nothing: the folder is free
    with pytest.raises(ConfigError, match="add words to --judges"):
        requirement_of("wer<1", PanelConfig(("shape",)))


def test_one_speaker_can_be_the_target_of_all(inline: None, tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("resemblyzer", reason="needs resemblyzer")
    one, other = (
        sorted(folder.glob("*.flac"))[:2] for folder in sorted((shared_data / "librispeech/test-other").iterdir())[:2]
    )
    (tmp_path / "made").mkdir()
    for name, path in (("same", one[1]), ("other", other[0])):
        shutil.copy(path, tmp_path / "made" / f"{name}.flac")
    panel = PanelConfig(("speaker",), target=str(one[0]))
    found = evaluate(str(tmp_path / "made"), None, str(tmp_path / "out"), EvaluationOptions(panel), lambda a, b: None)
    values = {row["id"]: row["values"]["secs"][0] for row in found.rows}
    assert values["same"] > 0.75 > values["other"]


def test_what_two_recognisers_heard_is_not_compared(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 2)
    one = judge(folder, None, tmp_path / "one", "shape")
    other = replace(one, panel=PanelConfig(("shape",), asr="whisper:small"))
    assert judged_otherwise(one, other) == {"wer", "cer"}
    assert "seconds" in compare(one, other)


def test_judges_by_metric_and_judges_that_have_nothing_to_compare_with(tmp_path: Path) -> None:
    assert chosen_judges(["wer", "mcd", "shape"]) == ("words", "shape", "warp")
    assert chosen_judges(["kad.mel", "tkad.mel", "fad.speaker"]) == ("speaker", "shape", "series")
    with pytest.raises(ConfigError, match="no judge or metric 'taste'"):
        chosen_judges(["taste"])
    with pytest.raises(ConfigError, match="give --reference"):
        judge(write_clips(tmp_path / "made", 2), None, tmp_path / "out", "warp")


def test_a_job_of_ours_says_what_it_cost(inline: None, tmp_path: Path) -> None:
    """The manifest of a synthesis job leads to its shards, which know the computing time."""
    rows = [TextRow(f"r{i}", f"Row number {i}") for i in range(60)]
    stored = speak_here(plan_corpus(rows, Speaking(), "rows"), Storage(str(tmp_path / "job")), MakeTone())
    manifest.finish(Storage(str(tmp_path / "job")), stored)
    items = find_items(str(tmp_path / "job"))
    spent = sum(manifest.shard_stats(Storage(str(tmp_path / "job")), i)["compute_s"] for i in range(2))
    assert sum(item.compute_s for item in items) == pytest.approx(spent)
    assert judge(tmp_path / "job", None, tmp_path / "out", "speed").scores["rtf"].n == 60


def test_the_number_of_a_mark_is_held_against_the_manifest(inline: None, tmp_path: Path) -> None:
    rows = [TextRow(f"r{i}", "Row number " + "one and " * 8) for i in range(3)]
    stored = speak_here(plan_corpus(rows, Speaking(), "rows"), Storage(str(tmp_path / "job")), MakeTone())
    manifest.finish(Storage(str(tmp_path / "job")), stored)
    assert {item.mark for item in find_items(str(tmp_path / "job"))} == {0}
    found = judge(tmp_path / "job", None, tmp_path / "out", "watermark").scores
    assert found["mark_right"].value == found["mark_found"].value > 0  # not all tones are long enough
    other = judge(tmp_path / "job", None, tmp_path / "other", "watermark", watermark_number=8).scores
    assert other["mark_found"] == found["mark_found"] and other["mark_right"].value == 0
    with pytest.raises(OutputError, match="another evaluation"):  # of the same clips
        judge(tmp_path / "job", None, tmp_path / "out", "watermark", watermark_number=8)
    with pytest.raises(ConfigError, match="add watermark to --judges"):
        judge(tmp_path / "job", None, tmp_path / "none", "shape", watermark_number=8)
    key = b"0123456789abcdef"
    keyed = judge(tmp_path / "job", None, tmp_path / "keyed", "watermark", watermark_key=key).scores
    assert keyed["mark_found"] == found["mark_found"] and keyed["mark_own"].value == 0, "they are public marks"
    assert all(key not in path.read_bytes() for path in (tmp_path / "keyed").rglob("*") if path.is_file())
    with pytest.raises(OutputError, match="another evaluation"):
        judge(tmp_path / "job", None, tmp_path / "out", "watermark", watermark_key=key)
    loose = write_clips(tmp_path / "loose", 1)
    assert "mark_right" not in judge(loose, None, tmp_path / "loose-out", "watermark").scores


def test_a_probability_over_time_is_in_the_tables(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 1)
    write_audio(folder / "c00.wav", 0.5 * np.concatenate([sound(1, 1.5), np.zeros(RATE), sound(2, 1.5)]), RATE)
    write_audio(folder / "c01.wav", np.zeros(RATE), RATE)
    found = judge(folder, None, tmp_path / "out", "synthetic")
    assert (found.scores["synthetic"].n, found.scores["synthetic"].failed, found.in_part) == (1, 1, {"synthetic": 1})
    write_outputs(Storage(str(tmp_path / "out")), found, [], [], {})
    told = pq.read_table(tmp_path / "out" / "clips.parquet").to_pylist()
    assert told[1]["synthetic_by_second"] is None
    assert len(told[0]["synthetic_by_second"]) == 4 and None not in told[0]["synthetic_by_second"][:1]
    assert told[0]["synthetic"] == pytest.approx(load(str(tmp_path / "out")).scores["synthetic"].value)
    assert json.dumps(told[0]["synthetic_by_second"])[:12] in (tmp_path / "out" / "clips.csv").read_text()


def test_an_evaluation_on_s3(inline: None, tmp_path: Path, s3_root: str) -> None:  # noqa: F811
    remote = Storage(f"{s3_root}/made")
    folder = write_clips(tmp_path / "made", 9)
    for path in folder.iterdir():
        remote.write(path.name, path.read_bytes())
    chosen = EvaluationOptions(PanelConfig(("shape",)))
    here = evaluate(str(folder), None, str(tmp_path / "out"), chosen, lambda a, b: None)
    there = evaluate(f"{s3_root}/made", None, f"{s3_root}/out", chosen, lambda a, b: None)
    assert there.scores == here.scores
    write_outputs(Storage(f"{s3_root}/out"), there, [], [], {})
    assert {"report.html", "scores.json", "clips.csv", "clips.parquet"} <= set(Storage(f"{s3_root}/out").list())
    assert load(f"{s3_root}/out").scores == here.scores


def test_a_clip_over_which_judges_die_is_set_aside(
    inline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray does, the part is begun again after each death; no such clip may stall the job for ever."""

    class Died(BaseException):
        pass

    def dies(self: Panel, clip: Clip, without: tuple[str, ...] = ()) -> Verdict:
        if clip.text == "Clip number 1.":
            raise Died
        return Verdict(values={"seconds": (1.0, 1.0)})

    monkeypatch.setattr(Panel, "judge", dies)
    folder, output = write_clips(tmp_path / "made", 3), Storage(str(tmp_path / "out"))
    task = {"which": "generated", "part": 0, "items": [(asdict(item), None) for item in find_items(str(folder))]}
    work = PartJudge({"generated": str(folder)}, PanelConfig(("shape",)), output, "run")
    for _ in range(3):
        with pytest.raises(Died):
            work(task)
    assert work(task) == {"clips": 3}
    rows = read_part(Storage(output.path("generated")), 0)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "a judge's process died over it"


def test_names_that_files_have(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    for name in ("take#1.wav", "B.wav", "inner/c.wav"):
        write_audio(folder / name, sound(1), RATE)
    (folder / "B.wav").rename(folder / "B.WAV")
    (folder / "inner" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")  # hides no other file
    items = find_items(str(folder))
    assert [item.id for item in items] == ["B", "c", "take#1"]
    assert all(read_clip(str(folder), item.place)[1] == RATE for item in items)
    (folder / "inner" / "c.wav").rename(folder / "inner" / "caf\udce9.wav")  # a name that is no UTF-8
    with pytest.raises(TextError, match=r"inner/caf.*is not UTF-8"):
        find_items(str(folder))


def test_a_column_of_paths_is_not_followed(tmp_path: Path) -> None:
    """Whoever writes a Parquet file must not choose which other files of this machine are read."""
    write_audio(tmp_path / "private.wav", sound(1), RATE)
    table = pa.table({"id": ["p"], "audio": [str(tmp_path / "private.wav")], "text": [5]})
    pq.write_table(table, tmp_path / "a.parquet")
    (item,) = find_items(str(tmp_path / "a.parquet"))
    assert item.text == "5"
    with pytest.raises(AudioError, match="holds str, not the bytes"):
        read_clip(str(tmp_path / "a.parquet"), item.place)


def test_clips_that_changed_are_another_evaluation(inline: None, tmp_path: Path) -> None:
    """Made anew under the same names, they must not get the scores of the old ones."""
    folder, output = write_clips(tmp_path / "made", 3), tmp_path / "out"
    judge(folder, None, output, "shape")
    write_audio(folder / "c01.wav", 0.25 * sound(1), RATE)
    with pytest.raises(OutputError, match=r"another evaluation \(differs in clips\)"):
        judge(folder, None, output, "shape")
    (output / "scores.json").write_text("{}", encoding="utf-8")
    judge(folder, None, output, "shape", overwrite=True)
    assert not (output / "scores.json").exists()  # it told of the old clips


def test_another_target_speaker_is_another_evaluation(inline: None, tmp_path: Path) -> None:
    folder, target = write_clips(tmp_path / "made", 1), tmp_path / "target.wav"

    def run() -> Evaluation:
        panel = PanelConfig(("shape",), target=str(target))
        return evaluate(str(folder), None, str(tmp_path / "out"), EvaluationOptions(panel), lambda a, b: None)

    with pytest.raises(ConfigError, match="target.wav"):
        run()
    write_audio(target, sound(1), RATE)
    found = run()
    assert judged_otherwise(found, replace(found, panel=PanelConfig(("shape",)))) == {"secs"}
    write_audio(target, sound(2), RATE)
    with pytest.raises(OutputError, match="differs in target"):
        run()


def test_an_unfinished_evaluation_is_not_compared_with(inline: None, tmp_path: Path) -> None:
    judge(write_clips(tmp_path / "made", 30), None, tmp_path / "out", "shape")
    assert load(str(tmp_path / "out")).clips == 30
    (tmp_path / "out/generated/parts/00001.parquet").unlink()  # as if it had been killed before
    with pytest.raises(FlowTTSError, match="only 24 of 30 clips"):
        load(str(tmp_path / "out"))


def test_a_judge_that_can_judge_no_clip_is_not_passed_over(
    inline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deaf(panel: Panel, clip: Clip, verdict: Verdict) -> None:
        raise AudioError("hears nothing")

    monkeypatch.setitem(JUDGES, "words", replace(JUDGES["words"], judge=deaf))
    command = ["evaluate", str(write_clips(tmp_path / "made", 2)), "--judges", "shape, words", "--no-progress"]
    assert cli.main([*command, "-o", str(tmp_path / "out")]) == 3
    assert "2 of 2 clips could not be judged by words" in capsys.readouterr().out.replace("\n", " ")
    assert "2 not by words" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_whose_clip_cannot_be_read_is_said(inline: None, tmp_path: Path) -> None:
    made, real = write_clips(tmp_path / "made", 2), write_clips(tmp_path / "real", 2)
    (real / "c01.wav").write_bytes(b"")
    assert (
        judge(made, real, tmp_path / "out", "shape").rows[1]["reason"].startswith("its clip of the reference: c01.wav")
    )


def test_a_clip_of_a_few_samples_gets_its_page_and_exit_code(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 2)
    write_audio(folder / "c01.wav", sound(1)[:10], RATE)
    code = cli.main(["evaluate", str(folder), "--judges", "shape", "-o", str(tmp_path / "out"), "--workers", "1"])
    assert code == 3
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "no 10 ms of sound" in page


def test_a_silent_clip_has_no_pace_and_is_counted(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 3)
    write_audio(folder / "c01.wav", np.zeros(8050, np.float32), RATE)
    found = judge(folder, None, tmp_path / "out", "shape")
    pace = found.scores["pace"]
    assert (pace.n, pace.failed, found.in_part) == (2, 1, {"shape": 1})
    assert pace.value is not None and pace.value < 50
    assert found.scores["silence"].n == 3  # what can be measured of silence is


def test_a_reference_without_a_common_id_is_refused_by_judges_of_pairs(inline: None, tmp_path: Path) -> None:
    made, real = write_clips(tmp_path / "made", 2), write_clips(tmp_path / "real", 2, first=5)
    with pytest.raises(ConfigError, match=r"copy: .*there are none: .*made has 'c00' and .*real has 'c05'"):
        judge(made, real, tmp_path / "out", "shape", "copy")
    assert not (tmp_path / "out/evaluation.json").exists()
    assert judge(made, real, tmp_path / "out", "shape").unpaired == 2  # distances need no pairs


def test_a_clip_of_hours_and_a_pipe_are_set_aside(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 2)
    write_audio(folder / "long.flac", np.zeros(3 * RATE, np.float32), RATE)
    os.mkfifo(folder / "pipe.wav")
    found = judge(folder, None, tmp_path / "out", "shape", max_minutes=0.04)
    assert (found.clips, found.failed) == (4, 2)
    assert any("long.flac: lasts more than 0.04 minutes" in reason for reason in found.reasons)
    assert any("pipe.wav: cannot be read" in reason and "a pipe" in reason for reason in found.reasons)
    with pytest.raises(OutputError, match="differs in max_minutes"):
        judge(folder, None, tmp_path / "out", "shape")
    with pytest.raises(ConfigError, match="--max-minutes"):
        EvaluationOptions(max_minutes=0)


def test_the_rate_of_si_sdr_stands_beside_it(inline: None, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 2)
    outs = [tmp_path / "native", tmp_path / "narrow"]
    native = judge(folder, folder, outs[0], "copy")
    panel = PanelConfig(("copy",), si_sdr_rate=8000)
    narrow = evaluate(str(folder), str(folder), str(outs[1]), EvaluationOptions(panel), lambda a, b: None)
    assert [found.scores["si_sdr"].unit for found in (native, narrow)] == ["dB at 16 kHz", "dB at 8 kHz"]
    assert judged_otherwise(native, narrow) == {"si_sdr"}
    summary = write_outputs(Storage(str(outs[1])), narrow, [], [], {})
    assert summary["scores"]["si_sdr"]["unit"] == "dB at 8 kHz"
    assert "dB at 8 kHz" in (outs[1] / "report.html").read_text(encoding="utf-8")
    assert pq.read_table(outs[1] / "clips.parquet")["si_sdr_rate"].to_pylist() == [8000, 8000]
    with pytest.raises(ConfigError, match="si_sdr_rate"):
        PanelConfig(si_sdr_rate=16)
