"""What a training logs: scalars, sounds and pictures, in a folder whose lines end where its checkpoints do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.files import write_whole
from flowtts_core.training.files import Files

LOG = "log.jsonl"


class TrainingLog:
    """Scalars to `log.jsonl` and TensorBoard, sounds and pictures to TensorBoard and `samples/`."""

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._mirrored = folder, dict[str, tuple[int, int]]()
        self.path = folder / LOG
        _drop_later_lines(self.path, resume_step)
        # TensorBoard hides what was logged at the purge step, too
        # tensorboard's writer has no types
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step; those that are not finite are null in `log.jsonl`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite(values)}, allow_nan=False) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def audio(self, step: int, name: str, waveform: Tensor, sample_rate: int) -> None:
        """Log a waveform [S]."""
        import soundfile

        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        soundfile.write(samples / f"{step:07d}-{name}.wav", waveform.float().cpu().numpy(), sample_rate)
        self.writer.add_audio(name, waveform[None], step, sample_rate)

    def mel(self, step: int, name: str, mel: Tensor) -> None:
        """Log a mel [M, T] as a picture with low bands at the bottom."""
        low, high = float(mel.min()), float(mel.max())
        picture = ((mel - low) / max(high - low, 1e-6)).flip(0).float().cpu()
        self.writer.add_image(name, picture[None], step)

    def mirror(self, files: Files) -> None:
        """Copy what is new or has grown to another place, an object store say, which cannot be appended to."""
        self.writer.flush()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            stat, name = path.stat(), path.relative_to(self.folder).as_posix()
            seen = (stat.st_size, stat.st_mtime_ns)
            if self._mirrored.get(name) != seen:
                files.write(name, path.read_bytes())
                self._mirrored[name] = seen

    def close(self) -> None:
        self.writer.close()


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return scalars as JSON can hold them: what is not finite becomes None."""
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}


def _drop_later_lines(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that a run resumes from: it will be logged again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        write_whole(path, "".join(line + "\n" for line in lines if _step_of(line) <= step).encode())


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinite for a line that was cut, as by a full disk or a power cut."""
    try:
        step: int = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf
    return step
