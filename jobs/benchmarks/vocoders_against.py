"""Our vocoders against published code: the same public sizes and random weights in both, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cluster.machine import Watch, describe, installed
from flowtts_core.audio import torchaudio_import  # noqa: F401  # the published packages import torchaudio, which may need it
from flowtts_core.audio.mel import VOCOS_24K
from flowtts_core.errors import ConfigError
from flowtts_core.metrics.optional import require
from flowtts_core.vocoder import HiFiGAN, Vocoder, Vocos, VocosConfig
from flowtts_core.vocoder.hifigan import HIFIGAN_V1

BATCHES = {1: 1.0, 8: 1.2}  # items together -> how many times as fast ours must be
SECONDS = 4.0
TURNS = 9


@dataclass(frozen=True)
class Pair:
    """A vocoder of ours and the published one with its weights; `published` takes mels [B, M, T]."""

    ours: Vocoder
    published: Callable[[Tensor], Tensor]
    package: str
    size: str


def _vocos() -> Pair:
    remedy = "pip install --no-deps vocos==0.1.0 encodec einops"
    models, heads = require("vocos.models", remedy), require("vocos.heads", remedy)
    dim, inner, layers, mel = 512, 1536, 8, VOCOS_24K
    backbone = models.VocosBackbone(mel.n_mels, dim, inner, layers)
    head = heads.ISTFTHead(dim, mel.n_fft, mel.hop_length, mel.padding)
    published = nn.ModuleDict({"backbone": backbone, "head": head}).eval()
    ours = Vocos(VocosConfig(mel, dim, inner, layers)).eval()
    ours.load_state_dict(published.state_dict())
    return Pair(ours, lambda mels: published["head"](published["backbone"](mels)), "vocos", "charactr/vocos-mel-24khz")


def _hifigan() -> Pair:
    package = require("transformers", "pip install 'flowtts[hub]'")
    sizes: dict[str, Any] = {
        "model_in_dim": HIFIGAN_V1.mel.n_mels,
        "upsample_initial_channel": HIFIGAN_V1.upsample_initial_channel,
        "upsample_rates": list(HIFIGAN_V1.upsample_rates),
        "upsample_kernel_sizes": list(HIFIGAN_V1.upsample_kernel_sizes),
        "resblock_kernel_sizes": list(HIFIGAN_V1.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(row) for row in HIFIGAN_V1.resblock_dilation_sizes],
        "normalize_before": False,
    }
    published = package.SpeechT5HifiGan(package.SpeechT5HifiGanConfig(**sizes)).eval()
    ours = HiFiGAN(HIFIGAN_V1).eval()
    weights = {
        f"generator.{name.replace('upsampler.', 'ups.')}": tensor
        for name, tensor in published.state_dict().items()
        if name not in ("mean", "scale")
    }
    ours.load_state_dict(weights)
    return Pair(ours, lambda mels: published(mels.transpose(1, 2)), "transformers", "HiFi-GAN V1")


REFERENCES: dict[str, Callable[[], Pair]] = {"hifigan": _hifigan, "vocos": _vocos}


def against(
    names: Sequence[str], say: Callable[[str], None], threads: int = 1, seconds: float | None = None, turns: int = TURNS
) -> dict[str, Any]:
    """Time ours and the published code on the same mels, in turns, and compare what they make.

    Raises:
        ConfigError: for a name without a reference.
        DependencyError: where the published package is not installed.
    """
    if unknown := sorted(set(names) - REFERENCES.keys()):
        raise ConfigError(f"--against {unknown[0]}: no published code is known", f"use some of {', '.join(REFERENCES)}")
    seconds, before = seconds or SECONDS, torch.get_num_threads()
    torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    try:
        with Watch() as watch, torch.inference_mode():
            for name in names:
                with torch.random.fork_rng(), torch.inference_mode(False), torch.no_grad():
                    torch.manual_seed(0)
                    pair = REFERENCES[name]()
                for batch, bar in BATCHES.items():
                    say(f"{name}, {batch} together")
                    # on one thread the processor's own time, which others who use the machine disturb less
                    row = _row(pair, batch, seconds, turns, time.process_time if threads == 1 else time.perf_counter)
                    rows.append({"vocoder": name, "package": pair.package, "size": pair.size, "bar": bar} | row)
    finally:
        torch.set_num_threads(before)
    versions = {row["package"]: installed(row["package"]) for row in rows}
    return {
        "benchmark": "vocoders against",
        "machine": describe(),
        "versions": versions,
        "busy": watch.busy.to_json(),
        "threads": threads,
        "seconds": seconds,
        "rows": rows,
    }


def _row(pair: Pair, batch: int, seconds: float, turns: int, clock: Callable[[], float]) -> dict[str, Any]:
    mel = pair.ours.features
    frames = round(seconds * mel.sample_rate / mel.hop_length)
    mels = torch.randn(batch, mel.rows, frames, generator=torch.Generator().manual_seed(batch)) - 4
    times: dict[str, list[float]] = {"ours": [], "published": []}
    made: dict[str, Tensor] = {}
    for turn in range(turns + 1):  # the first warms up
        for name, run in (("ours", pair.ours), ("published", pair.published)):
            began = clock()
            made[name] = run(mels)
            if turn:
                times[name].append(clock() - began)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    samples = min(waveform.shape[-1] for waveform in made.values())
    apart = float((made["ours"][:, :samples] - made["published"].reshape(batch, -1)[:, :samples]).abs().max())
    times_as_fast = statistics.median(
        theirs / own for own, theirs in zip(times["ours"], times["published"], strict=True)
    )
    return {
        "batch": batch,
        "ours_s": medians["ours"],
        "published_s": medians["published"],
        "times_as_fast": times_as_fast,
        "apart": apart,
    }


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine, busy = figures["machine"], figures["busy"]["others_cores"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    lines = [
        f"{figures['seconds']:g} s of sound an item, medians of turns, {figures['threads']} thread(s) of"
        f" {machine['processor']}; torch {torch.__version__}, {versions}; others kept {busy or 0:.1f} cores busy",
        "",
        "| vocoder | size of | items | ours, ms | published, ms | times as fast | bar | largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        met = "met" if row["times_as_fast"] >= row["bar"] else "NOT met"
        lines.append(
            f"| {row['vocoder']} | {row['size']} | {row['batch']} | {1e3 * row['ours_s']:.0f} |"
            f" {1e3 * row['published_s']:.0f} | {row['times_as_fast']:.2f} | {row['bar']:g}: {met} | {row['apart']:.1e} |"
        )
    return "\n".join(lines)
