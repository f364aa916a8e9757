"""Mels in files of numpy, torch and safetensors, as other programs write them: one a file, [M, T] or [T, M]."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import AudioError

_CHECKED = 4096  # frames looked at together, so that a long file need not fit into memory
_BEYOND = 8.0  # nats below a mel's floor that a model may predict; mels in decibels go further
_LOUDEST = 20.0  # nats: a full scale that is summed over a window, squared, has 14
_BEGINS = {".npy": b"\x93NUMPY", ".npz": b"PK", ".pt": b"PK", ".pth": b"PK"}
_WRITES = {
    ".npy": "numpy.save(path, mel)",
    ".npz": "numpy.savez(path, mel=mel)",
    ".safetensors": "safetensors.torch.save_file({'mel': mel}, path)",
}


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
    except PermissionError:
        raise AudioError(f"{path}: may not be read", "give this user the right to") from None
    except Exception as error:  # each format's library has errors of its own, in its own words
        write = _WRITES.get(path.suffix.lower(), "torch.save(mel, path)")
        raise AudioError(f"{path}: {_fault(path)}", f"write the mel alone, as float32: {write}") from error
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
    low, high = math.inf, -math.inf
    for begin in range(0, found.shape[1], _CHECKED):
        part = found[:, begin : begin + _CHECKED]
        finite = torch.isfinite(part).all(0)
        if not bool(finite.all()):
            frame = begin + int((~finite).nonzero()[0])
            raise AudioError(f"{who}: holds NaN or infinity, first in frame {frame}", "make it again or leave it out")
        bands = part[: mel.n_mels]
        low, high = min(low, float(bands.min())), max(high, float(bands.max()))
    _require_logarithms(low, high, mel, who)
    return found


def _require_logarithms(low: float, high: float, mel: MelConfig, who: str) -> None:
    """Raise AudioError where the least and the largest value of a mel are not those of natural logarithms."""
    floor = math.log(mel.log_floor)
    if low < floor - _BEYOND or high > _LOUDEST:
        why = "it may be in decibels, or of another front end"
    elif low >= 0 and high > 0:
        why = "nothing lies below 0: it may be without logarithm"
    else:
        return
    raise AudioError(
        f"{who}: holds values from {low:.4g} to {high:.4g}, where the vocoder reads natural logarithms of {floor:.1f} or"
        f" more; {why}",
        f"make it as the vocoder reads it: {mel.said}",
    )


def _fault(path: Path) -> str:
    """Return what is wrong with a file that its format's library does not read."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        begin = file.read(16)
    if not begin:
        return "is empty"
    if begin.startswith(b"\x80"):
        return "holds a pickled Python object; such may run code, so they are not loaded"
    known = begin.startswith(_BEGINS[suffix]) if suffix in _BEGINS else begin[8:9] == b"{"
    if not known:
        return f"is no {suffix} file, whatever its name says"
    return "is damaged or cut off, or holds Python objects, which are not loaded since they may run code"


def _read(path: Path) -> Tensor:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return torch.from_numpy(_native(path, np.load(path, mmap_mode="c", allow_pickle=False)))
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return torch.from_numpy(_native(path, archive[_only(path, list(archive.files))]))
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


def _native(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array of numbers in the byte order of this machine."""
    if array.dtype.kind not in "biufc":
        raise AudioError(f"{path}: holds {_said(array.dtype)}, not real numbers", "give a log-mel")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # torch has none so wide
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _said(dtype: np.dtype) -> str:
    return {"U": "text", "S": "bytes", "V": "records", "M": "dates", "m": "spans of time"}.get(dtype.kind, str(dtype))
