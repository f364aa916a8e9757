"""Load models whose weights users bring, from a folder or the hub, without running code of theirs.

Weights are read from safetensors where the folder has them, else from PyTorch's .bin with `weights_only`, which refuses
everything in a pickle but tensors. `trust_remote_code` is never set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from flowtts_core.errors import AudioError, ConfigError, DependencyError, FlowTTSError
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.signal import to_rate

HUB = "pip install 'flowtts[hub]'"
FOLDER = "FOLDER_OR_NAME"  # what follows the colon of a spec
FILE = "FILE"

WINDOW_S = 30.0  # window of a longer clip, since attention grows with the square of the length
CONTEXT_S = 5.0  # of its neighbours that a window sees
_TEXTS = ("*.json", "*.txt", "*.model")
_SAFE = ("model.safetensors", "model-*.safetensors")
_BIN = ("pytorch_model.bin", "pytorch_model-*.bin")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TRAINING_ONLY = "masked_spec_embed"  # its weights do not matter

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of model: its loader, called with (place, device), and what its place is, "" for none."""

    load: Callable[[str, str], T]
    place: str = ""


def choose(what: str, kinds: Mapping[str, Kind[T]], spec: str, device: str) -> T:
    """Load the model of the spec `KIND` or `KIND:PLACE` in the table onto the device ("cpu", "cuda", "cuda:1").

    Raises:
        ConfigError: for an unknown kind, a missing or needless place, or a missing GPU; and as the kind's loader.
    """
    name, _, place = spec.partition(":")
    forms = {kind: f"{kind}:{entry.place}" if entry.place else kind for kind, entry in kinds.items()}
    if name not in kinds:
        raise ConfigError(f"no {what} {name!r}", f"use one of: {', '.join(forms.values())}")
    if bool(place) != bool(kinds[name].place):
        raise ConfigError(f"{what} = {spec!r}", f"write it as {forms[name]}")
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise ConfigError(f"device = {device!r}", "use cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"device = {device!r}, but torch finds no GPU", "use cpu")
    return kinds[name].load(place, device)


def hub_folder(place: str, fetch: Callable[[str], str]) -> Path:
    """Return the folder at that path, or the one into which `fetch` loads the hub's model of that name.

    Raises:
        ConfigError: when there is neither.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ConfigError(f"{place} is a file", "give the folder that holds config.json and the weights")
    if place.startswith((".", "/", "~")) or not _NAME.fullmatch(place):
        raise ConfigError(f"no folder {place}", "give a folder with config.json and weights, or OWNER/MODEL on the hub")
    try:
        return Path(fetch(place))
    except Exception as error:  # the errors of network, HTTP, disk and hub share no base class
        raise ConfigError(
            f"{place}: no such folder here, not in the hub's cache, and not to be fetched: {reason(error)}",
            f"where there is a network: hf download {place} --local-dir FOLDER, and give that folder; check the name",
        ) from error


def load_model(
    auto_class: str, place: str, device: str, model_types: Collection[str] = (), *, wants: str = ""
) -> tuple[Any, Path]:
    """Load a model of transformers' `auto_class` in float32 and eval mode onto the device. Return it and its folder.

    Args:
        model_types: the allowed `model_type` of config.json; empty allows whatever the class does.
        wants: the architecture's name for messages.

    Raises:
        DependencyError: without transformers.
        ConfigError: when the place cannot be found or read, or holds another architecture or not all of its weights.
    """
    transformers = _transformers()
    folder = hub_folder(place, _fetch)
    wants = wants or " or ".join(model_types)
    remedy = f"give the folder or name of a model of this architecture: {wants}"
    local = {"local_files_only": True, "trust_remote_code": False}
    with _said_plainly(f"{place} does not load", remedy):
        config = transformers.AutoConfig.from_pretrained(folder, **local)
    if model_types and config.model_type not in model_types:
        raise ConfigError(f"{place} holds a model of type {config.model_type!r}", remedy)
    if not _has(folder, (*_SAFE, *_BIN)):
        raise ConfigError(f"{place} has no weights", f"its folder needs {_SAFE[0]} (or {_BIN[0]}) beside config.json")
    with _said_plainly(f"{place} does not load", remedy):
        model, report = getattr(transformers, auto_class).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,  # the default is the checkpoint's, perhaps float16
            weights_only=True,
            output_loading_info=True,
            **local,
        )
    # a missing head would be initialised at random
    missing = sorted(name for name in report["missing_keys"] if not name.endswith(_TRAINING_ONLY))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{place} has no weights for {missing[0]}{more} of {type(model).__name__}", remedy)
    return model.eval().to(device), folder


def load_part(auto_class: str, place: str, folder: Path) -> Any:
    """Load a model's feature extractor or tokenizer by transformers' `auto_class`.

    Raises:
        ConfigError: when the folder lacks its files.
    """
    with _said_plainly(
        f"{place} has no {auto_class.removeprefix('Auto')} that loads",
        "a whole model folder has preprocessor_config.json and the tokenizer's files beside the weights",
    ):
        return getattr(_transformers(), auto_class).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


class RawAudioModel:
    """wav2vec 2.0, HuBERT, WavLM, UniSpeech or the like: convolutions over raw audio, then a transformer.

    Attributes:
        rate: the model's sample rate in Hz.
        hop, field: samples between two frames, and the receptive field of one.
    """

    def __init__(self, auto_class: str, place: str, device: str, wants: str) -> None:
        self.model, self.folder = load_model(auto_class, place, device, wants=wants)
        config = self.model.config
        if not hasattr(config, "conv_stride") or getattr(config, "add_adapter", False):
            raise ConfigError(
                f"{place} holds a {config.model_type} model that does not take raw audio, or has an adapter",
                f"give {wants}",
            )
        self.extractor = load_part("AutoFeatureExtractor", place, self.folder)
        self.rate, self.device, self.place = int(self.extractor.sampling_rate), device, place
        self.hop = self.field = 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.field += (kernel - 1) * self.hop
            self.hop *= stride

    def prepared(self, waveform: np.ndarray, sample_rate: int, *, frames: int = 1) -> Tensor:
        """Return the waveform [S] at the model's rate, normalised as by its extractor, [1, S'], on the device.

        Raises:
            AudioError: for an invalid waveform, or one that gives fewer than so many frames.
        """
        heard = to_rate(waveform, sample_rate, self.rate)
        least = self.field + (frames - 1) * self.hop
        if len(heard) < least:
            raise AudioError(
                f"the clip is {len(heard) / self.rate:.3f} s long, the model needs {least / self.rate:.3f} s"
            )
        values: Tensor = self.extractor(heard, sampling_rate=self.rate, return_tensors="pt").input_values
        return values.to(self.device)

    def in_windows(self, values: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply `run` ([1, S] -> frames [T, D]) to prepared values of any length."""
        return in_windows(values, round(WINDOW_S * self.rate), round(CONTEXT_S * self.rate), self.hop, run)


def in_windows(samples: Tensor, window: int, context: int, hop: int, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `run` ([..., S] -> frames [T, D], one each `hop` samples) to any number of samples, at most `window` at a time.

    A longer clip is cut into windows with `context` samples of their neighbours. Each gives the frames of its middle, so that
    there are as many frames, at the same times, as without windows.
    """
    length = samples.shape[-1]
    if length <= window:
        return run(samples)
    context = context // hop * hop
    core = window // hop * hop - 2 * context
    frames = []
    for begin in range(0, length, core):
        left, end = max(0, begin - context), begin + core
        right = length if end >= length else min(length, end + context)
        found = run(samples[..., left:right])
        frames.append(found[(begin - left) // hop : None if end >= length else (end - left) // hop])
    return torch.cat(frames)


def even_parts(waveform: np.ndarray, limit: int) -> list[np.ndarray]:
    """Cut the waveform [S] into the fewest parts of at most `limit` samples, equal in length to within one."""
    return np.array_split(waveform, -(-len(waveform) // limit))


def onnx_session(file: str, device: str) -> Any:
    """Load an ONNX model from a file, with one thread per session.

    Raises:
        DependencyError: without onnxruntime, or without its GPU build for a GPU.
        ConfigError: when the file is absent or is no ONNX model.
    """
    ort = require("onnxruntime")
    path = existing_file(file)
    providers = ["CPUExecutionProvider"]
    if device != "cpu":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise DependencyError(
                f"device = {device!r}, but this onnxruntime is for the CPU", "pip install onnxruntime-gpu"
            )
        providers.insert(0, "CUDAExecutionProvider")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers run side by side
    options.log_severity_level = 4  # raises where it fails
    with _said_plainly(f"{file} does not load as an ONNX model", "give a file that onnxruntime reads"):
        return ort.InferenceSession(str(path), options, providers=providers)


def existing_file(file: str) -> Path:
    """Return the path of a file. Raise ConfigError when it is absent."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"no file {file}", "give the path of the model's file")
    return path


def reason(error: BaseException, *, last: bool = False) -> str:
    """Return the first (or last) non-empty line of an error's message, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1 if last else 0] if lines else type(error).__name__)[:200]


def _fetch(name: str) -> str:
    """Download the hub's model into its cache, with its weights in one format only."""
    hub = require("huggingface_hub", HUB)
    folder = str(hub.snapshot_download(name, allow_patterns=[*_TEXTS, *_SAFE]))
    if not _has(Path(folder), _SAFE):
        folder = str(hub.snapshot_download(name, allow_patterns=[*_TEXTS, *_BIN]))
    return folder


def _has(folder: Path, patterns: Collection[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


@contextmanager
def _said_plainly(what: str, remedy: str) -> Iterator[None]:
    """Raise a library's error as a ConfigError."""
    try:
        yield
    except FlowTTSError:
        raise
    except Exception as error:  # a damaged folder can fail anywhere in the library
        raise ConfigError(f"{what}: {reason(error)}", remedy) from error


def _transformers() -> Any:
    import flowtts_core.audio.torchaudio_import  # noqa: F401  # transformers imports torchaudio, which needs this first

    transformers = require("transformers", HUB)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
