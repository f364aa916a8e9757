"""A corpus that a job made reads back, sample for sample, with the libraries that train on it, by the lines its card shows."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import Storage
from flowtts_core.errors import AudioError, TextError
from flowtts_core.metrics.judges import PanelConfig
from flowtts_core.text.document import TextRow
from jobs.evaluation import input as evaluation_input
from jobs.evaluation import run as evaluation
from jobs.evaluation.input import find_items, read_clip
from jobs.evaluation.run import EvaluationOptions, evaluate
from jobs.evaluation.worker import PartJudge
from jobs.synthesis import job as synthesis_job
from jobs.synthesis import manifest, webdataset
from jobs.synthesis.dataset_card import CARD
from jobs.synthesis.job import run_job
from jobs.synthesis.plan import Plan, plan_corpus
from jobs.synthesis.settings import Speaking
from jobs.synthesis.webdataset import TarReader, key_of, place_of, split_place, tar_name, tar_of
from tests.cluster.test_storage import s3_root  # noqa: F401 - a fixture
from tests.fake_engine import TONE, speak_inline

FORMS = ("files", "parquet", "webdataset")
ROWS = 60
IDS = ["a.b", "__main__", "50%", "naïve café", "take#1", "x" * 100]  # each awkward in some tar, key or place
needs_libraries = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("datasets", "webdataset")),
    reason="needs datasets and webdataset: pip install -e '.[dev]'",
)
has_torchcodec = importlib.util.find_spec("torchcodec") is not None
needs_torchcodec = pytest.mark.skipif(not has_torchcodec, reason="needs torchcodec, which needs FFmpeg's libraries")


def read_member(storage: Storage, place: str) -> bytes:
    """The bytes at a place; FileNotFoundError where the tar or its member is absent, OSError where the tar is damaged."""
    name, member = split_place(place)
    with storage.open(name) as file:
        return TarReader(file).read(member)


def plan() -> Plan:
    ids = [*IDS, *(f"r{i:02d}" for i in range(len(IDS), ROWS))]
    texts = [f"Row number {i} says <this> & “that”." for i in range(ROWS)]
    texts[9] = "UNSPEAKABLE"
    return plan_corpus([TextRow(id, text) for id, text in zip(ids, texts, strict=True)], Speaking(), "A trial")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same corpus in each form, made by the job, each with its card."""
    base = tmp_path_factory.mktemp("corpora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis_job, "speak_shards", speak_inline)
        for form in FORMS:
            run_job(plan(), str(base / form), TONE, Speaking(), synthesis_job.Options(rows=form))
    return {form: base / form for form in FORMS}


def digest(samples: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, "<i2").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def spoken(corpora: dict[str, Path]) -> list[str]:
    """The digest of the samples of each spoken row, sorted; the bytes are those that the manifest vouches for."""
    found = []
    for row in manifest.read_manifest(Storage(str(corpora["files"]))).to_pylist():
        if row["status"] == "ok":
            data = (corpora["files"] / row["audio"]).read_bytes()
            assert manifest.sha256(data) == row["sha256"]
            samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
            assert (len(samples), rate) == (row["num_samples"], row["sample_rate"])
            found.append(digest(samples))
    assert len(set(found)) == ROWS - 1
    return sorted(found)


# -- tars ---------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_a_key_is_undone_to_its_file_and_ends_at_no_dot(name: str) -> None:
    key = key_of(name)
    assert "." not in key and not key.startswith("__")
    assert unquote(key, errors="strict") == name  # so two files never share a key


@given(st.lists(st.sampled_from([".", "%", "2", "e", "E", "_", "5", "f", "F"]), min_size=1), st.data())
def test_names_that_differ_by_more_than_case_have_keys_that_do(name: list[str], data: st.DataObject) -> None:
    other = data.draw(st.permutations(name))
    ours, theirs = "".join(name), "".join(other)
    assert (ours.lower() == theirs.lower()) == (key_of(ours).lower() == key_of(theirs).lower())


def test_a_tar_has_the_same_bytes_whatever_the_order(corpora: dict[str, Path]) -> None:
    folder = corpora["webdataset"]
    data = (folder / tar_name(0)).read_bytes()
    rows = []
    for row in manifest.read_shard(Storage(str(folder)), 0).to_pylist():
        flac = read_member(Storage(str(folder)), row["audio"]) if row["audio"] else None
        rows.append({**row, "flac": flac})
    assert tar_of(rows) == data == tar_of(reversed(rows))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert len(members) == 2 * sum(row["flac"] is not None for row in rows)


def test_a_sample_describes_itself(corpora: dict[str, Path]) -> None:
    tars = [TarReader(io.BytesIO(path.read_bytes())) for path in (corpora["webdataset"] / webdataset.TARS).iterdir()]
    reader = next(tar for tar in tars if "a%2Eb.json" in tar.names)
    described = json.loads(reader.read("a%2Eb.json"))
    table = pa.Table.from_pylist([described], schema=webdataset.sample_schema())
    assert table.to_pylist() == [described]  # every field, each of its type, and no other
    assert (described["id"], described["text"]) == ("a.b", "Row number 0 says <this> & “that”.")
    assert described["provenance"]["model"] == "tone-1"
    assert described["words"][0] == {
        "word": "Row",
        "start": 0,
        "end": 3,
        "start_s": 0.0,
        "end_s": described["words"][0]["end_s"],
    }


def test_what_a_gate_and_the_job_said_goes_into_the_sample() -> None:
    row = {
        "id": "a",
        "text": "t",
        "voice": "v",
        "speaker": None,
        "seed": 1,
        "sample_rate": 8000,
        "duration": 1.0,
        "flac": b"f",
    }
    row |= {"audio": place_of("x.tar", "a"), "licence": "MIT", "job": "j", "verified": True}
    for scores in ({"wer": 0.5}, [("wer", 0.5)], [{"name": "wer", "value": 0.5}]):  # a dict, Arrow's map, Arrow's list
        described = json.loads(TarReader(io.BytesIO(tar_of([{**row, "scores": scores}]))).read("a.json"))
        assert (
            described["provenance"].items()
            >= {"licence": "MIT", "job": "j", "verified": True, "scores": {"wer": 0.5}}.items()
        )
        assert pa.Table.from_pylist([described], schema=webdataset.sample_schema(["wer"])).to_pylist() == [described]


def test_a_damaged_tar_is_an_error_of_reading(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    row = {
        "id": "a",
        "seed": 1,
        "sample_rate": 8000,
        "duration": 1.0,
        "flac": b"f" * 2000,
        "audio": place_of("x.tar", "a"),
    }
    whole = tar_of([row])
    storage.write("x.tar", whole)
    assert read_member(storage, "x.tar#a.flac") == row["flac"]
    with pytest.raises(FileNotFoundError):
        read_member(storage, "x.tar#b.flac")
    for cut in (1000, 100):
        storage.write("x.tar", whole[:cut])
        with pytest.raises(OSError, match="tar"):
            read_member(storage, "x.tar#a.flac")


# -- flowtts evaluate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_evaluate_finds_and_reads_every_form(form: str, corpora: dict[str, Path], spoken: list[str]) -> None:
    root = str(corpora[form])
    items = find_items(root)
    assert len(items) == ROWS
    assert [item.id for item in items if item.error] == ["r09"]
    assert all(item.compute_s is not None for item in items)  # whatever the order of manifest and shards
    clips = [read_clip(root, item.place) for item in items if not item.error]
    assert sorted(digest(np.rint(waveform * 32768)) for waveform, _ in clips) == spoken


def test_each_row_has_its_part_of_what_its_own_shard_took(corpora: dict[str, Path]) -> None:
    root = str(corpora["webdataset"])
    costs = {item.id: item.compute_s for item in find_items(root)}
    for index in manifest.shard_indexes(Storage(root)):
        spent = manifest.shard_stats(Storage(root), index)["compute_s"]
        ids = manifest.read_shard(Storage(root), index, ("id",)).column("id").to_pylist()
        assert sum(costs[id] or 0.0 for id in ids) == pytest.approx(spent)


def test_tars_alone_and_one_tar_are_read(corpora: dict[str, Path], tmp_path: Path) -> None:
    folder = corpora["webdataset"] / webdataset.TARS
    items = find_items(str(folder))
    assert len(items) == ROWS - 1
    assert {item.id for item in items} > set(IDS)
    one = find_items(f"{folder}/00001.tar")
    status = manifest.read_shard(Storage(str(corpora["webdataset"])), 1, ("status",)).column("status").to_pylist()
    assert len(one) == status.count("ok")
    assert read_clip(f"{folder}/00001.tar", one[0].place)[1] == 16000
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(TextError, match="cannot be read"):
        find_items(str(tmp_path))


def test_a_foreign_tar_with_texts_in_files_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("d/one.wav", wav()), ("d/one.txt", b"One.\n"), ("d/two.wav", wav()), ("d/notes.md", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert [(item.id, item.text) for item in find_items(str(tmp_path))] == [("d/one", "One."), ("d/two", None)]
    assert read_clip(str(tmp_path), "a.tar#d/two.wav")[1] == 8000
    with pytest.raises(AudioError, match="no such file"):
        read_clip(str(tmp_path), "a.tar#d/three.wav")
    (tmp_path / "a.tar#b.wav").write_bytes(wav())  # a file may have such a name
    assert read_clip(str(tmp_path), "a.tar#b.wav")[1] == 8000


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(80, 0.1), 8000, format="WAV")
    return buffer.getvalue()


def test_a_tar_of_many_clips_is_opened_once(
    corpora: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the ids, in whose order clips are listed, lead back and forth between the tars."""
    opened: list[str] = []
    read = Storage.open

    def counted(self: Storage, name: str) -> Any:
        opened.append(name)
        return read(self, name)

    monkeypatch.setattr(Storage, "open", counted)
    monkeypatch.setattr(evaluation, "judge_parts", judge_here)
    evaluation_input._tar.cache_clear()
    chosen = EvaluationOptions(PanelConfig(("shape",)))
    judged = evaluate(str(corpora["webdataset"]), None, str(tmp_path / "out"), chosen, lambda a, b: None)
    assert (judged.clips, judged.failed) == (ROWS, 1)
    assert [row["id"] for row in judged.rows] == sorted(unit.id for unit in plan().units)
    assert [name for name in opened if name.endswith(".tar")] == ["00000.tar", "00001.tar"]


def judge_here(parts: dict, arguments: dict, *_: object) -> Any:
    work = PartJudge(**arguments)
    for which, planned in parts.items():
        for index, items in planned.items():
            task = {"which": which, "part": index, "items": [(asdict(item), place) for item, place in items]}
            yield work(task)["clips"]


def test_tars_on_s3(corpora: dict[str, Path], s3_root: str) -> None:  # noqa: F811
    folder, remote = corpora["webdataset"], Storage(f"{s3_root}/tars")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            remote.write(str(path.relative_to(folder)), path.read_bytes())
    items, here = find_items(remote.root), find_items(str(folder))
    assert [(item.id, item.place, item.stamp) for item in items] == [(item.id, item.place, item.stamp) for item in here]
    place = next(item.place for item in items if item.id == "a.b")
    assert np.array_equal(read_clip(remote.root, place)[0], read_clip(str(folder), place)[0])
    assert read_member(remote, place) == read_member(Storage(str(folder)), place)


# -- the libraries of others --------------------------------------------------------------------------------------------

_RECORD = """
import hashlib, json, sys
import numpy, soundfile
heard, read = [], soundfile.read
def recorded(*arguments, **options):
    samples, rate = read(*arguments, **options)
    heard.append(hashlib.sha256(numpy.ascontiguousarray(samples, "<i2").tobytes()).hexdigest())
    return samples, rate
soundfile.read = recorded
"""


def run_python(code: str, home: Path) -> str:
    """Run code that can reach no hub; returns what it printed."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def snippets(folder: Path) -> list[str]:
    """The Python of a folder's card."""
    card = (folder / CARD).read_text(encoding="utf-8").replace("FOLDER", str(folder))
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


CASES = [
    ("files", 0),
    ("files", 1),
    ("parquet", 0),
    ("parquet", 1),
    ("webdataset", 0),
]


@needs_libraries
@pytest.mark.parametrize(("form", "which"), CASES)
def test_the_lines_of_the_card_read_every_sample(
    form: str, which: int, corpora: dict[str, Path], spoken: list[str], tmp_path: Path
) -> None:
    code = snippets(corpora[form])[which]
    assert json.loads(run_python(f"{_RECORD}\n{code}\nprint(json.dumps(sorted(heard)))", tmp_path)) == spoken


_COUNT = """
from datasets import Audio, load_dataset
rows = load_dataset({folder!r}, split="train")
column = "audio" if "audio" in rows.features and "flac" not in rows.features else "flac"
print(len(rows), rows.features[column])
"""


@needs_libraries
def test_the_card_gives_the_library_its_columns(corpora: dict[str, Path], tmp_path: Path) -> None:
    """Of the Parquet form, which it reads without decoding."""
    code = _COUNT.format(folder=str(corpora["parquet"]))
    assert run_python(code, tmp_path).startswith(f"{ROWS - 1} Audio(")


@needs_libraries
@needs_torchcodec
@pytest.mark.parametrize("form", FORMS)
def test_the_library_decodes_what_the_card_names(form: str, corpora: dict[str, Path], tmp_path: Path) -> None:
    code = _COUNT.format(folder=str(corpora[form])) + "print(rows[0][column].get_all_samples().sample_rate)"
    counted, rate = run_python(code, tmp_path).splitlines()
    assert counted.startswith(f"{ROWS - 1} Audio(") and rate == "16000"


@needs_torchcodec
def test_torchaudio_reads_the_files(corpora: dict[str, Path]) -> None:
    from flowtts_core.audio.torchaudio_import import torchaudio

    for path in sorted((corpora["files"] / "audio").glob("*.flac"))[:3]:
        waveform, rate = torchaudio.load(str(path))
        assert rate == 16000
        assert np.array_equal(waveform[0].numpy(), soundfile.read(path, dtype="float32")[0])
