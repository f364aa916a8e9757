"""A field of a request is written down once: with one line more, tables, jobs, the server and the command line have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "    language: str | None = "
FIELD = '    emphasis: float | None = _ask(None, "how strongly words are stressed", 0.0, 1.0)\n'

SCRIPT = """
import json
from unittest import mock

from cluster.storage import Storage
from deploy.requests import TtsBody
from jobs.cli import build_parser
from jobs.synthesis import job
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import Speaking
from jobs.synthesize import synthesize
from tests import fake_engine

heard = []


class Listening(fake_engine.ToneSynthesizer):
    def _one(self, request):
        heard.append(request.emphasis)
        return super()._one(request)


def run(output, speaking):
    with mock.patch.object(job, "speak_shards", fake_engine.speak_inline):
        synthesize(["rows.csv"], output, speaking=speaking, engine=fake_engine.Engine("tone", "tone-1", Listening))
    rows = read_manifest(Storage(output)).to_pylist()
    identity = json.loads(Storage(output).read("job.json"))
    return {row["id"]: (row["emphasis"], row["fingerprint"]) for row in rows}, identity["settings"]


plain, stressed = run("plain", Speaking(watermark=None)), run("stressed", Speaking({"emphasis": 0.9}, watermark=None))
print(json.dumps({
    "heard": heard,
    "plain": plain,
    "stressed": stressed,
    "body": TtsBody.model_json_schema()["properties"]["emphasis"],
    "option": vars(build_parser("say").parse_args(["say", "Hello.", "--emphasis", "0.25"]))["emphasis"],
}))
"""


def test_a_new_field_is_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in ("flowtts_core", "cluster", "jobs", "deploy", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    request = copy / "flowtts_core" / "request.py"
    source = request.read_text()
    assert source.count(BEFORE) == 1
    request.write_text(source.replace(BEFORE, FIELD + BEFORE))
    (tmp_path / "rows.csv").write_text("id,text,emphasis\na,One.,0.5\nb,Two.,\nc,Three.,7\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found["heard"], key=str) == [0.5, 0.5, 0.9, None]  # two rows, twice; the third is out of range
    (plain, settings), (stressed, other_settings) = found["plain"], found["stressed"]
    assert (plain["a"][0], plain["b"][0], stressed["a"][0], stressed["b"][0]) == (0.5, None, 0.5, 0.9)
    assert (settings, other_settings) == ({}, {"emphasis": 0.9})  # the job's identity
    assert plain["a"][1] == stressed["a"][1] and plain["b"][1] != stressed["b"][1]  # what a resume keeps
    assert found["option"] == 0.25
    assert found["body"]["description"] == "How strongly words are stressed."
