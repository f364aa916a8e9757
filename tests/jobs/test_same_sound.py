"""A row is the same sound whoever speaks it: one worker left alone, or three of whom one is killed now and then."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtts_core.audio.files import read_audio
from flowtts_core.text.sentences import split_sentences
from flowtts_core.voice.card import FLOW_VOICE
from jobs.verify import verify

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "jobs" / "demo" / "alice-chapter-1.txt"
KILLS, KILL_EVERY_S = 5, 5.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes that speak by their names in /proc")


def speak(rows: Path, voice: str, output: Path, workers: int) -> subprocess.Popen[bytes]:
    words = ["synthesize", str(rows), "--lines", "--voice", voice, "-o", str(output), "--no-progress"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words, "--workers", str(workers)], cwd=ROOT, env=environment
    )


def speakers(job: subprocess.Popen[bytes]) -> list[Any]:
    import ray  # noqa: F401 - brings psutil along, at a place of its own
    import psutil  # isort: skip

    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith("ray::MapWorker"):
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@linux
@pytest.mark.parametrize(("voice", "count", "apart"), [(FLOW_VOICE, 400, 1e-4), ("heart", 1500, 0.0)])
def test_three_workers_with_kills_sound_as_one_alone(tmp_path: Path, voice: str, count: int, apart: float) -> None:
    """An ONNX voice speaks utterance by utterance, so its samples are the same; batches of a flow voice differ a little."""
    sentences = [" ".join(sentence.text.split()) for sentence in split_sentences(BOOK.read_text())]
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join((sentences * (count // len(sentences) + 1))[:count]))
    assert speak(rows, voice, tmp_path / "alone", 1).wait() == 0
    job, killed = speak(rows, voice, tmp_path / "killed", 3), 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert job.wait(KILL_EVERY_S) == 0
            break
        if killed < KILLS and (found := speakers(job)):
            found[killed % len(found)].kill()
            killed += 1
    assert killed >= 3
    assert verify(str(tmp_path / "killed")).whole
    clips = {clip.name: clip for clip in (tmp_path / "alone").rglob("*.flac")}
    assert len(clips) == count
    assert clips.keys() == {clip.name for clip in (tmp_path / "killed").rglob("*.flac")}
    for clip in (tmp_path / "killed").rglob("*.flac"):
        np.testing.assert_allclose(
            read_audio(clip)[0], read_audio(clips[clip.name])[0], rtol=0, atol=apart, err_msg=clip.name
        )
