"""Makes a training corpus in LJSpeech's format by letting flite (CMU, free licence) read texts aloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.storage import Storage
from flowtts_core.audio.files import write_audio
from flowtts_core.errors import AudioError, DependencyError, TextError
from jobs.synthesis.plan import safe_name, unique_name


@dataclass(frozen=True)
class Teacher:
    """A flite voice that reads; `sample_rate` is what its audio is resampled to (flite itself makes 16 kHz)."""

    voice: str = "rms"
    sample_rate: int = 22050

    def require(self) -> None:
        """Raise DependencyError unless flite is installed."""
        if shutil.which("flite") is None:
            raise DependencyError("flite is not installed", "apt-get install flite  (or: brew install flite)")

    def read(self, text: str) -> np.ndarray:
        """Read `text` aloud: [S] float32 at `sample_rate`."""
        import soundfile
        import soxr

        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "text.txt"), Path(folder, "speech.wav")
            source.write_text(text + "\n", encoding="utf-8")
            done = subprocess.run(
                ["flite", "-voice", self.voice, "-f", str(source), "-o", str(target)], capture_output=True, text=True
            )
            if done.returncode or not target.exists():
                raise AudioError(f"flite -voice {self.voice} failed: {done.stderr.strip() or 'no audio'}")
            waveform, rate = soundfile.read(target, dtype="float32")
        resampled: np.ndarray = soxr.resample(waveform, rate, self.sample_rate)
        return resampled.clip(-1, 1)


def make_corpus(
    texts: list[tuple[str, str]], output: Path, teacher: Teacher | None = None, workers: int | None = None
) -> int:
    """Write `wavs/ID.wav` (16-bit) and `metadata.csv` (`id|text|text`); clips that exist are kept, so a cut run goes on.

    What the teacher cannot read stands in `quarantine.jsonl` with the reason.

    Args:
        texts: (id, text) pairs; an id that is no file name is made one.
        output: the folder to make.

    Returns:
        The number of clips.

    Raises:
        TextError: when the teacher could read none of the texts.
    """
    teacher = teacher or Teacher()
    teacher.require()
    (output / "wavs").mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    named = [(unique_name(safe_name(key), taken), text) for key, text in texts]
    todo = [(teacher, text, output / "wavs" / f"{name}.wav") for name, text in named]
    from rich.progress import track

    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        reading = pool.map(_read_one, todo, chunksize=8)
        reasons = list(track(reading, total=len(todo), description=f"flite {teacher.voice} reads"))
    rows, aside = [], []
    for (name, text), reason in zip(named, reasons, strict=True):
        line = " ".join(text.replace("|", " ").split())
        rows += [f"{name}|{line}|{line}\n"] if not reason else []
        aside += [json.dumps({"id": name, "text": text, "reason": reason}) + "\n"] if reason else []
    if aside and not rows:
        raise TextError(f"flite {teacher.voice} could read none of {len(aside)} texts", json.loads(aside[0])["reason"])
    storage = Storage(str(output))
    storage.write("quarantine.jsonl", "".join(aside).encode())
    storage.write("metadata.csv", "".join(rows).encode())
    source = {"teacher": f"flite {teacher.voice}", "clips": len(rows)}
    storage.write("source.json", f"{json.dumps(source)}\n".encode())
    return len(rows)


def _read_one(job: tuple[Teacher, str, Path]) -> str:
    """Read one text into its file; returns why it could not be read, empty where it was."""
    teacher, text, path = job
    if path.exists():
        return ""
    try:
        waveform = teacher.read(text)
    except (AudioError, UnicodeError) as error:
        return str(error)
    if len(waveform) == 0:
        return f"flite -voice {teacher.voice} made no sound of it"
    write_audio(path, waveform, teacher.sample_rate)
    return ""
