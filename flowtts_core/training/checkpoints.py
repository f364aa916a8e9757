"""Checkpoints of a run: written whole or not at all, beside the training, and read from the newest that is not damaged."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtts_core.errors import FlowTTSError, VoiceError
from flowtts_core.training.files import Files, files_of, patiently, warn

_DAMAGE = (RuntimeError, EOFError, pickle.UnpicklingError)  # what torch.load raises for a cut or altered file
BEST = "best.pt"  # the averaged weights whose validation loss was the lowest, their step and that loss
_NAME = re.compile(r"checkpoint-(\d+)\.pt")


def checkpoint_name(step: int) -> str:
    return f"checkpoint-{step:07d}.pt"


def checkpoint_steps(place: Path | Files) -> list[int]:
    """Return the steps of the complete checkpoints of a run, from the oldest on."""
    files = files_of(place)
    names = patiently(files.list, f"listing {files.path()}")
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def save_checkpoint(place: Path | Files, state: dict[str, Any], keep: int) -> None:
    """Write `state` under its `step`, and drop the oldest checkpoints beyond `keep`."""
    files, buffer = files_of(place), io.BytesIO()
    torch.save(state, buffer)
    files.write(checkpoint_name(state["step"]), buffer.getvalue())
    for old in checkpoint_steps(files)[:-keep]:
        files.delete(checkpoint_name(old))


def load_newest(place: Path | Files) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint that can be read, on the CPU; None where there never was one.

    Tensors and plain values only: nothing in the file is executed. A damaged file is renamed to `.damaged`.

    Raises:
        FlowTTSError: where there are checkpoints and none can be read; to start anew silently would hide the loss.
    """
    files = files_of(place)
    while steps := checkpoint_steps(files):
        name = checkpoint_name(steps[-1])
        try:
            return load_checkpoint(files, steps[-1])
        except _DAMAGE as error:
            warn(f"{files.path(name)} cannot be read ({error}); trying the one before it")
            files.write(name.replace(".pt", ".damaged"), files.read(name))
            files.delete(name)
    if any(name.endswith(".damaged") for name in files.list()):
        raise FlowTTSError(
            f"{files.path()}: none of the checkpoints can be read", "remove the *.damaged files to start from step 0"
        )
    return None


def load_checkpoint(place: Path | Files, step: int) -> dict[str, Any]:
    """Return the state on the CPU; `load_state_dict` of modules and optimisers moves it to the device."""
    files, name = files_of(place), checkpoint_name(step)
    data = patiently(lambda: files.read(name), f"reading {files.path(name)}")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def save_best(place: Path | Files, state: dict[str, Any]) -> None:
    """Write the averaged weights of a state that was validated as the best so far."""
    buffer = io.BytesIO()
    torch.save({"step": state["step"], "loss": state["validated"]["best"], "ema": state["ema"]}, buffer)
    files_of(place).write(BEST, buffer.getvalue())


def load_best(place: Path | Files) -> dict[str, Any]:
    """Return "step", "loss" and "ema" of the best validation.

    Raises:
        VoiceError: where there is none, or it is damaged.
    """
    files = files_of(place)
    try:
        data = patiently(lambda: files.read(BEST), f"reading {files.path(BEST)}")
        best: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (FileNotFoundError, *_DAMAGE) as error:
        raise VoiceError(
            f"{files.path(BEST)} cannot be read: {error}", "--set trainer.patience=0 takes the last checkpoint instead"
        ) from error
    return best


class CheckpointWriter:
    """Writes checkpoints in a thread, so that training goes on meanwhile; at most one is under way.

    What a kill leaves is the last checkpoint that was written to its end.

    Args:
        beside: called after each checkpoint in the same thread; writes what else belongs to the run.
        tell: called with a sentence for each try that failed.
    """

    def __init__(
        self,
        place: Path | Files,
        keep: int,
        beside: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self._files, self._keep, self._beside, self._tell = files_of(place), keep, beside, tell
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._under_way: Future[None] | None = None

    def submit(self, state: dict[str, Any]) -> None:
        """Copy the state to memory and write it; waits only while the one before is not yet written.

        Raises:
            Exception: what the store raised for the one before, after several tries.
        """
        self.wait()
        self._under_way = self._thread.submit(self._write, snapshot(state))

    def wait(self) -> None:
        """Wait until everything is written; raises as `submit` does."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _write(self, state: dict[str, Any]) -> None:
        what = f"writing {self._files.path(checkpoint_name(state['step']))}"
        if (state.get("validated") or {}).get("best_step") == state["step"]:  # before the checkpoint that speaks of it
            patiently(lambda: save_best(self._files, state), f"writing {self._files.path(BEST)}", self._tell)
        patiently(lambda: save_checkpoint(self._files, state, self._keep), what, self._tell)
        try:
            self._beside()
        except Exception as error:  # logs are no reason to end a training
            self._tell(f"writing the logs of {self._files.path()}: {error}")


def snapshot(state: Any) -> Any:
    """Return a copy on the CPU that later steps do not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state
