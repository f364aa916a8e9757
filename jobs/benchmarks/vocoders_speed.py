"""What a vocoder costs: parameters, operations, seconds of computing by threads and runtime, and the wait for its first sound."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flowtts_core.acoustic.windows import plan_windows
from flowtts_core.engines.vocoder_graphs import runners_of
from flowtts_core.vocoder import Vocoder
from flowtts_core.vocoder.windows import Piece, sound_of

THREADS = (1, 2)
TURNS = 5
_LONG_S, _FEW = 1.0, 2  # what takes longer than that is timed so often only


def size(vocoder: Vocoder, mel: Tensor) -> dict[str, float]:
    """Return parameters, and the multiply-adds of products and convolutions that a second of sound takes, in 10^9.

    What fast Fourier transforms take is not counted.
    """
    plain = copy.deepcopy(vocoder)
    plain.runners = {}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(mel[None])
    seconds = vocoder.features.samples_of(mel.shape[1]) / vocoder.features.sample_rate
    parameters = sum(weight.numel() for weight in vocoder.parameters())
    return {"parameters": parameters, "gmac": counter.get_total_flops() / 2 / 1e9 / seconds}


def first_sound(vocoder: Vocoder, mel: Tensor) -> dict[str, float]:
    """Return the seconds that the first piece of a stream takes the vocoder, and the seconds of mel that it waits for.

    The windows are those of streamed voices; a vocoder that sees all frames waits for all of them.
    """
    total, context = mel.shape[1], vocoder.context_frames
    if context is None:
        piece = Piece(mel, 0, total, True)
    else:
        ends = [window.end for window in plan_windows(total)]
        end = next((end for end in ends if end - context > 0), total)
        piece = Piece(mel[:, :end], 0, total if end == total else end - context, end == total)
    taken = []
    for _ in range(TURNS + 1):  # the first warms up
        began = time.perf_counter()
        sound_of(vocoder, [piece])
        taken.append(time.perf_counter() - began)
    return {"s": statistics.median(taken[1:]), "mel_s": vocoder.features.seconds_of(piece.mel.shape[1])}


@torch.inference_mode()
def costs(
    vocoders: Mapping[str, Vocoder],
    mels: Mapping[str, Tensor],
    say: Callable[[str], None],
    threads: Sequence[int] = THREADS,
    turns: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure each vocoder on a mel [M, T]; their turns alternate, since the machine's other load changes.

    Returns:
        By name: `parameters`, `gmac`, `rtf` by runtime ("torch", "onnx", "cuda") and threads (median, low, high), and `first`.
    """
    found, turns = dict[str, dict[str, Any]](), turns or TURNS
    runs: dict[tuple[str, str, int], Vocoder] = {}
    for name, vocoder in vocoders.items():
        say(f"sizes and graphs of {name}")
        with torch.inference_mode(False):
            found[name] = size(vocoder, mels[name])
            plain = copy.deepcopy(vocoder)
            plain.runners = {}
            for count, runners in zip(threads, runners_of(vocoder, threads), strict=True):
                runs[name, "torch", count] = plain
                if runners:
                    own = runs[name, "onnx", count] = copy.deepcopy(plain)
                    own.runners = runners
            if torch.cuda.is_available():
                runs[name, "cuda", 1] = copy.deepcopy(plain).to("cuda")
    before = torch.get_num_threads()
    try:
        times = _in_turns(runs, mels, say, turns)
        torch.set_num_threads(1)
        for name in vocoders:
            fastest = runs.get((name, "onnx", 1), runs[name, "torch", 1])
            found[name]["first"] = first_sound(fastest, mels[name])
    finally:
        torch.set_num_threads(before)
    for (name, runtime, count), taken in times.items():
        mel = vocoders[name].features
        seconds = mel.samples_of(mels[name].shape[1]) / mel.sample_rate
        rtf = {"median": statistics.median(taken) / seconds, "low": min(taken) / seconds, "high": max(taken) / seconds}
        found[name].setdefault("rtf", {}).setdefault(runtime, {})[str(count)] = rtf
    return found


def _in_turns(
    runs: Mapping[tuple[str, str, int], Vocoder], mels: Mapping[str, Tensor], say: Callable[[str], None], turns: int
) -> dict[tuple[str, str, int], list[float]]:
    times: dict[tuple[str, str, int], list[float]] = {key: [] for key in runs}
    say(f"speeds, {turns} turns")
    for turn in range(turns + 1):  # the first warms up
        for (name, runtime, count), vocoder in runs.items():
            if len(times[name, runtime, count]) >= _FEW and max(times[name, runtime, count]) > _LONG_S:
                continue
            torch.set_num_threads(count)
            mel = mels[name].to("cuda" if runtime == "cuda" else "cpu")[None]
            if runtime == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            vocoder(mel)
            if runtime == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name, runtime, count].append(time.perf_counter() - began)
    return times
