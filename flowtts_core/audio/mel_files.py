"""Mels in files of numpy, torch and safetensors, as other programs write them: one a file, [M, T] or [T, M]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import AudioError

_CHECKED = 4096  # frames looked at together, so that a long file need not fit into memory


def read_mel(path: Path, mel: MelConfig) -> Tensor:
    """Read a mel [M, T] of real numbers; an .npy file stays on the disk, of which parts are read as they are used.

    Which side is time is told by the other, which must be `mel.rows`. Sides of 1 before both are left out.

    Raises:
        AudioError: for a file that cannot be read, holds several arrays, or no such mel.
    """
    try:
        found = _read(path)
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file", "check the path") from None
    except Exception as error:  # each format's library has errors of its own
        raise AudioError(
            f"{path}: cannot be read ({type(error).__name__}: {error})"[:400], "write it again as a plain array"
        ) from error
    return checked_mel(found, mel, str(path))


def checked_mel(found: Tensor, mel: MelConfig, who: str) -> Tensor:
    """Return a mel as [M, T].

    Raises:
        AudioError: where it is empty, has other sides, is no array of real numbers or holds some that are not finite.
    """
    shape = list(found.shape)
    if not found.is_floating_point():
        raise AudioError(f"{who}: holds {str(found.dtype).removeprefix('torch.')}, not real numbers", "give a log-mel")
    while found.dim() > 2 and found.shape[0] == 1:
        found = found[0]
    rows = f"{mel.n_mels} bands and a row of pitch" if mel.pitch else f"{mel.n_mels} bands"
    if found.dim() != 2 or mel.rows not in found.shape:
        lacks = mel.pitch and mel.n_mels in found.shape
        remedy = (
            "the row of pitch is missing: audio/pitch.py has what it is" if lacks else "make it as the vocoder reads it"
        )
        raise AudioError(f"{who}: has the shape {shape}; the vocoder reads {rows}, [{mel.rows}, frames]", remedy)
    if found.shape[0] == found.shape[1]:
        raise AudioError(
            f"{who}: has the shape {shape}, which leaves open which side is time", "cut or pad it by a frame"
        )
    if found.shape[0] != mel.rows:
        found = found.T
    if not found.shape[1]:
        raise AudioError(f"{who}: holds no frames", "leave it out")
    for begin in range(0, found.shape[1], _CHECKED):
        finite = torch.isfinite(found[:, begin : begin + _CHECKED]).all(0)
        if not bool(finite.all()):
            frame = begin + int((~finite).nonzero()[0])
            raise AudioError(f"{who}: holds NaN or infinity, first in frame {frame}", "make it again or leave it out")
    return found


def _read(path: Path) -> Tensor:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return torch.from_numpy(_native(np.load(path, mmap_mode="c", allow_pickle=False)))
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return torch.from_numpy(_native(archive[_only(path, list(archive.files))]))
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
        return tensors[_only(path, list(tensors))]
    held: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(held, dict):
        tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
        held = tensors[_only(path, list(tensors))]
    if not isinstance(held, Tensor):
        raise AudioError(f"{path}: holds {type(held).__name__}, not a tensor", "save the mel alone")
    return held.detach()


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise AudioError(f"{path}: holds {len(names)} arrays ({', '.join(names[:5])})", "save the mel alone")
    return names[0]


def _native(array: np.ndarray) -> np.ndarray:
    """Return an array in the byte order of this machine."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
