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

from flowtts_core.errors import AudioError, DependencyError

FLITE_RATE = 16000


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

    Args:
        texts: (id, text) pairs.
        output: the folder to make.

    Returns:
        The number of clips.
    """
    teacher = teacher or Teacher()
    teacher.require()
    (output / "wavs").mkdir(parents=True, exist_ok=True)
    todo = [(teacher, text, output / "wavs" / f"{key}.wav") for key, text in texts]
    from rich.progress import track

    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in track(
            pool.map(_read_one, todo, chunksize=8), total=len(todo), description=f"flite {teacher.voice} reads"
        ):
            pass
    rows = "".join(f"{key}|{text}|{text}\n" for key, text in texts)
    (output / "metadata.csv").write_text(rows, encoding="utf-8")
    (output / "source.json").write_text(json.dumps({"teacher": f"flite {teacher.voice}", "clips": len(texts)}) + "\n")
    return len(texts)


def _read_one(job: tuple[Teacher, str, Path]) -> None:
    import soundfile

    teacher, text, path = job
    if path.exists():
        return
    part = path.with_suffix(".part")
    soundfile.write(part, teacher.read(text), teacher.sample_rate, subtype="PCM_16", format="WAV")
    part.replace(path)
