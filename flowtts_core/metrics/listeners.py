"""Predictors of mean opinion scores: DNSMOS, which is bundled, and UTMOS from a file of the user.

UTMOS (Saeki et al., 2022; its "strong learner") was trained on ratings of synthetic speech's naturalness, so it ranks
synthesisers. DNSMOS hears noise. Published files that take a waveform at 16 kHz and give its score:

- TorchScript `utmos_scripted.pt` of the hub's Blinorot/UTMOS-PyTorch takes float samples: `utmos:FILE`.
- TorchScript `utmos.jit` of the hub's balacoon/utmos takes 16-bit samples: `utmos-int16:FILE`. By its users' accounts its code
  names the GPU that it was traced on, so that it needs `device="cuda"`.
- tarepan/SpeechMOS's `utmos22_strong` takes float samples and the rate: wrap it in a module of one argument, and
  `torch.jit.trace` it, or export it to ONNX with a free length.

TorchScript is a program: load only files that you would run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import mos
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.pretrained import (
    FILE,
    WINDOW_S,
    Kind,
    choose,
    even_parts,
    existing_file,
    onnx_session,
    reason,
)
from flowtts_core.metrics.scores import Metric
from flowtts_core.metrics.signal import RATE, to_16k

SHORTEST_S = 0.1  # UTMOS's convolutions need 25 ms; a score of less than a syllable says nothing
_TORCH_SCRIPT = (".pt", ".jit", ".ts")

DNSMOS_METRICS = (
    Metric("mos_overall", "1 to 5", True, "DNSMOS P.835, overall quality"),
    Metric("mos_p808", "1 to 5", True, "DNSMOS P.808, overall quality"),
    Metric("mos_signal", "1 to 5", True, "DNSMOS P.835, how undistorted the speech is"),
    Metric("mos_background", "1 to 5", True, "DNSMOS P.835, how quiet the background is"),
)
UTMOS_METRICS = (Metric("mos_utmos", "1 to 5", True, "UTMOS, how natural the speech is"),)


class Listener(Protocol):
    @property
    def name(self) -> str:
        """The spec that it was loaded from."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that it gives."""

    def rate(self, waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
        """Return the value of each metric for the waveform [S], by name.

        Raises:
            AudioError: for an invalid or too short waveform.
        """


def load_listener(spec: str = "dnsmos", device: str = "cpu") -> Listener:
    """Load the predictor of a spec onto the device (DNSMOS always on the CPU).

    Args:
        spec: `dnsmos`; `utmos:FILE` for a TorchScript (.pt, .jit, .ts) or ONNX (.onnx) file that takes float samples [1, S] in
            [-1, 1] at 16 kHz; `utmos-int16:FILE` for one that takes them as 16-bit integers.

    Raises:
        ConfigError: for an unknown kind, or a file that does not load or gives no score.
        DependencyError: without the kind's package.
    """
    return choose("listener", LISTENERS, spec, device)


class _Dnsmos:
    name, metrics = "dnsmos", DNSMOS_METRICS

    def __init__(self, place: str, device: str) -> None:
        require("speechmos")

    def rate(self, waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
        found = mos.dnsmos(waveform, sample_rate)
        return {
            "mos_overall": found.overall,
            "mos_p808": found.p808,
            "mos_signal": found.signal,
            "mos_background": found.background,
        }


class _Utmos:
    """UTMOS. A clip over 30 s, far longer than its training data, is scored in equal parts; the score is their mean."""

    metrics = UTMOS_METRICS

    def __init__(self, kind: str, place: str, device: str, dtype: type[np.generic]) -> None:
        self.name, self.dtype = f"{kind}:{place}", dtype
        path = existing_file(place)
        if path.suffix not in (*_TORCH_SCRIPT, ".onnx"):
            raise ConfigError(f"{place} ends in {path.suffix!r}", f"give a file in {', '.join(_TORCH_SCRIPT)} or .onnx")
        self.score = (_onnx if path.suffix == ".onnx" else _torch_script)(place, device)
        try:
            self._score_part(np.sin(np.arange(RATE, dtype=np.float32)) / 2)
        except AudioError as error:
            remedy = (
                "give a file that takes a waveform [1, S] at 16 kHz, of floats (utmos) or 16-bit integers (utmos-int16)"
            )
            raise ConfigError(f"{place} rates nothing on {device}: {error.message}", remedy) from error

    def rate(self, waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
        heard = to_16k(waveform, sample_rate)
        if len(heard) < SHORTEST_S * RATE:
            raise AudioError(f"the clip is {len(heard) / RATE:.3f} s long, an opinion needs {SHORTEST_S} s")
        scores = [self._score_part(part) for part in even_parts(heard, round(WINDOW_S * RATE))]
        return {"mos_utmos": float(np.mean(scores))}

    def _score_part(self, heard: np.ndarray) -> float:
        samples = heard
        if self.dtype is np.int16:
            samples = np.round(np.clip(heard, -1, 1) * 32767).astype(np.int16)
        try:
            found = self.score(samples[None])
        except (
            Exception
        ) as error:  # a foreign program can fail in any way; the last line of a TorchScript trace says how
            raise AudioError(f"the model fails: {reason(error, last=True)}") from error
        if found.size != 1 or not math.isfinite(found.item()):
            raise AudioError(
                f"the model gives {found.tolist() if found.size < 9 else found.shape}, not one finite score"
            )
        return float(found.item())


def _torch_script(place: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # torch names torch.export, but such files are published
            module = torch.jit.load(str(existing_file(place)), map_location=device).eval()
    except Exception as error:  # RuntimeError for a foreign file, others for a damaged one
        raise ConfigError(
            f"{place} is no TorchScript file: {reason(error)}", "weights alone will not do: trace or script the model"
        ) from error

    def score(samples: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = module(torch.from_numpy(samples).to(device))
        return np.asarray(found.float().cpu().numpy())

    return score


def _onnx(place: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    session = onnx_session(place, device)
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != 1:
        raise ConfigError(f"{place} takes {', '.join(names)}", "export the model with the waveform as its one input")
    return lambda samples: np.asarray(session.run(None, {names[0]: samples})[0])


LISTENERS: dict[str, Kind[Listener]] = {
    "dnsmos": Kind(_Dnsmos),
    "utmos": Kind(lambda place, device: _Utmos("utmos", place, device, np.float32), FILE),
    "utmos-int16": Kind(lambda place, device: _Utmos("utmos-int16", place, device, np.int16), FILE),
}
