"""Tensors out of files that strangers made: safetensors, and torch checkpoints without running anything in them."""

from __future__ import annotations

import collections
import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.errors import VoiceError

_REMEDY = "take the file again from where it came from; it must be a torch checkpoint (.ckpt, .pt) or .safetensors"
# Where checkpoints keep their weights; a running mean of them goes before the weights themselves.
_WEIGHTS = ("ema_model_state_dict", "state_dict", "model_state_dict", "model", "generator", "velocity")
_PREFIXES = ("model.", "module.", "_orig_mod.")
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: its tensors by name, its hyperparameters as far as they are plain values, and plain values beside."""

    tensors: dict[str, Tensor]
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file or a torch checkpoint.

    Nothing in the file is executed: objects of unknown classes become inert placeholders. In a torch checkpoint the weights
    are the first that holds tensors of `ema_model_state_dict`, `state_dict`, `model_state_dict`, `model`, `generator` and
    `velocity`, else the whole file. A prefix that all names share, as a wrapper's "model.", is taken off.

    Raises:
        VoiceError: for a file that is missing, damaged or no checkpoint.
    """
    if not path.is_file():
        raise VoiceError(f"{path}: no such file", _REMEDY)
    if path.suffix == ".safetensors":
        try:
            return Checkpoint(_bare(load_file(path)))
        except Exception as error:  # damage can make the reader raise anything
            raise VoiceError(f"{path}: cannot be read, perhaps truncated ({error})", _REMEDY) from error
    content = _read_torch(path)
    if not isinstance(content, dict):
        raise VoiceError(f"{path}: holds no mapping of tensors", _REMEDY)
    tensors = next(filter(None, (_tensors(content.get(name)) for name in _WEIGHTS)), None) or _tensors(content)
    if not tensors:
        raise VoiceError(
            f"{path}: holds no tensors", f"{_REMEDY}, with its weights under {', '.join(_WEIGHTS)} or bare"
        )
    try:
        hyper = plain(content.get("hyper_parameters", {}))
    except RecursionError as error:
        raise VoiceError(f"{path}: its hyperparameters contain themselves", _REMEDY) from error
    notes = {name: value for name, value in content.items() if isinstance(value, bool | int | float | str)}
    return Checkpoint(_bare(tensors), hyper if isinstance(hyper, dict) else {}, notes)


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        return {}
    return {name: t.detach() for name, t in state.items() if isinstance(name, str) and isinstance(t, Tensor)}


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes of wrappers (Lightning, DataParallel, torch.compile) that all names share."""
    while tensors and (found := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(found): tensor for name, tensor in tensors.items()}
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):
            raise VoiceError(
                f"{path}: not a torch checkpoint, or one too old to be read safely ({error})", _REMEDY
            ) from error
    except Exception as error:  # damage can make the reader raise anything
        raise VoiceError(f"{path}: cannot be read, perhaps truncated ({error})", _REMEDY) from error
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except Exception as error:  # a hostile stream can make the unpickler raise anything
        raise VoiceError(f"{path}: cannot be read safely ({type(error).__name__}: {error})", _REMEDY) from error


class Placeholder:
    """Stands for an object of an unknown class; keeps its state and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any = None
        self.items: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return Placeholder()

    def __hash__(self) -> int:
        return id(self)


def plain(value: Any) -> Any:
    """`value` as plain containers: OmegaConf nodes become what they hold, other placeholders None."""
    if isinstance(value, Placeholder):
        state = value.state if isinstance(value.state, dict) else {}
        if "_content" in state:
            return plain(state["_content"])
        return plain(state.get("_val"))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if isinstance(key, str)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    if not isinstance(storage, Tensor):
        return Placeholder()
    # torch checks that the view lies within the storage
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Knows tensors and plain containers; every other class is a placeholder, and no name is ever imported."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(stream)
        self.archive, self.prefix = archive, prefix
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _ALLOWED.get((module, name), Placeholder)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return Placeholder()
        key = str(key)
        if key not in self.storages:
            raw = self.archive.read(f"{self.prefix}data/{key}")
            if len(raw) != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(raw)} bytes, not {count * dtype.itemsize}")
            self.storages[key] = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _read_archive(archive: zipfile.ZipFile) -> Any:
    names = [name for name in archive.namelist() if name.endswith("data.pkl")]
    if len(names) != 1:
        raise ValueError("no single data.pkl inside")
    prefix = names[0][: -len("data.pkl")]
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("compressed members, which torch does not write")
    order = f"{prefix}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("big-endian tensors")
    with archive.open(names[0]) as stream:
        return _Unpickler(stream, archive, prefix).load()


def check_fit(wanted: dict[str, Tensor], found: dict[str, Tensor], who: str) -> None:
    """Raise VoiceError, naming what differs, unless `found` has exactly the names and shapes of `wanted`."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [
        f"{name}: {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name].shape != found[name].shape
    ]
    problems = [
        f"{kind} {len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for kind, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise VoiceError(f"{who}: tensors do not fit: {'; '.join(problems)}", "is it a checkpoint of this model?")
    not_finite = [
        name for name, t in found.items() if t.is_floating_point() and not math.isfinite(float(t.double().sum()))
    ]
    if not_finite:
        raise VoiceError(f"{who}: not finite: {', '.join(not_finite[:4])}", "the training that wrote it had diverged")
