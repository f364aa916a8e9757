"""Checkpoints of a run: written whole or not at all, and read from the newest that is not damaged."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from flowtts_core.errors import FlowTTSError

_DAMAGE = (RuntimeError, EOFError, pickle.UnpicklingError, OSError)  # what torch.load raises for a cut or altered file


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:07d}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a folder by name, if any."""
    found = sorted(folder.glob("checkpoint-*.pt"))
    return found[-1] if found else None


def save_checkpoint(folder: Path, state: dict[str, Any], keep: int) -> Path:
    """Write `state` under its `step`, and drop the oldest checkpoints beyond `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, state["step"])
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
    part.replace(path)
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-keep]:
        old.unlink()
    return path


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint that can be read, on the CPU; None where there never was one.

    Tensors and plain values only: nothing in the file is executed. A damaged file is renamed to `.damaged`.

    Raises:
        FlowTTSError: where there are checkpoints and none can be read; to start anew silently would hide the loss.
    """
    while (path := latest_checkpoint(folder)) is not None:
        try:
            return load_checkpoint(path)
        except _DAMAGE as error:
            logging.getLogger(__name__).warning("%s cannot be read (%s); trying the one before it", path, error)
            path.rename(path.with_suffix(".damaged"))
    if any(folder.glob("checkpoint-*.damaged")):
        raise FlowTTSError(
            f"{folder}: none of the checkpoints can be read", "remove the *.damaged files to start from step 0"
        )
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """On the CPU: the optimisers' and modules' own `load_state_dict` move to the device what belongs there."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
