"""The recipe `tiny`: trains two phonemes to two pure tones in seconds of CPU, and measures what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from flowtts_core.audio.files import read_audio, write_audio
from flowtts_core.config import to_dict
from flowtts_core.engines.tiny import load_tiny, save_tiny
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.tiny.spectrum import spectral_peak
from flowtts_core.tiny.task import TinyBatches, TinyTask, ToneConfig
from flowtts_core.training.trainer import TrainConfig, Trainer

SUMMARY = "summary.json"
SEEDS = tuple(range(1000, 1020))  # of the noise that the tones are judged with
STEPS = (1, 2, 4, 10)
MEASURED = "magnitude of the peak bin over the largest other bin of the 8000-point Fourier transform, no window"


@dataclass(frozen=True)
class TinyRecipe:
    """How the tiny task is trained.

    Attributes:
        coupling: of noise and tones, within a phoneme: "independent", "optimal" or "sinkhorn".
        ablation: also train with the other coupling, and measure an untrained network and fewer steps.
    """

    model: TinyConfig = field(default_factory=TinyConfig)
    tones: ToneConfig = field(default_factory=ToneConfig)
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1200,
            learning_rate=3e-3,
            weight_decay=0.0,
            warmup_steps=20,
            final_lr=0.01,
            ema_decay=0.99,
            precision="fp32",  # bf16's rounding alone would stand 50 dB below the tone
            log_every=50,
            checkpoint_every=400,
            sample_every=400,
        )
    )
    coupling: str = "optimal"
    ablation: bool = True


def tiny_recipe() -> TinyRecipe:
    """Return the lecture's task: a is 220 Hz and i is 440 Hz, one second at 8 kHz."""
    return TinyRecipe()


def train_tiny(folder: Path, recipe: TinyRecipe | None = None) -> dict[str, Any]:
    """Train, save the voice, speak both phonemes and measure; resumes where a run in `folder` was cut.

    Writes to `folder`: the voice (`load_tiny`), a.wav and i.wav (seed 0), summary.json, and the runs' logs and checkpoints
    in `run-COUPLING/`.

    Returns:
        The content of summary.json.
    """
    recipe = recipe or tiny_recipe()
    torch.manual_seed(recipe.trainer.seed)
    with one_thread():
        began = time.process_time()
        model, seconds = _train(recipe, folder)
        cpu_seconds = time.process_time() - began
        save_tiny(folder, model)
        spoken = _speak(folder, recipe.tones)
        summary: dict[str, Any] = {
            "measured": MEASURED,
            "train_seconds": round(seconds, 2),
            "train_cpu_seconds": round(cpu_seconds, 2),
            "threads": 1,
            "parameters": sum(p.numel() for p in model.parameters()),
            "seeds": len(SEEDS),
            "files": spoken,
            "tones": evaluate_tiny(model, recipe.tones),
            "speed": benchmark_tiny(folder),
            "ablation": _ablation(recipe, folder, model) if recipe.ablation else [],
            "recipe": to_dict(recipe),
        }
    save_tiny(folder, model, {"tones": summary["tones"], "measured": MEASURED})
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def evaluate_tiny(model: TinyModel, tones: ToneConfig, steps: int = 10) -> dict[str, dict[str, Any]]:
    """Return for each phoneme, over `SEEDS`: how many peaks fall on its pitch, the worst and median margin, the amplitudes."""
    result = {}
    for phoneme, (name, pitch) in enumerate(zip(model.config.phonemes, tones.pitches_hz, strict=True)):
        waveforms = model.generate([phoneme] * len(SEEDS), SEEDS, steps=steps).numpy()
        peaks = [spectral_peak(waveform, model.config.sample_rate) for waveform in waveforms]
        result[name] = {
            "pitch_hz": pitch,
            "peaks_on_pitch": sum(peak.frequency_hz == pitch for peak in peaks),
            "margin_db_worst": round(min(peak.margin_db for peak in peaks), 1),
            "margin_db_median": round(median(peak.margin_db for peak in peaks), 1),
            "amplitude": [round(f(peak.amplitude for peak in peaks), 3) for f in (min, max)],
        }
    return result


def benchmark_tiny(folder: Path | None = None, steps: int = 10, repeats: int = 200) -> dict[str, Any]:
    """Return the median and 95th percentile of one second of sound on one CPU thread, in milliseconds, noise and all.

    `cpu_ms_median` counts only the time that the thread ran: what the median is on a machine with a core to spare.

    Args:
        folder: of a trained voice; None takes fresh weights, which cost the same.
    """
    model = TinyModel(tiny_recipe().model).eval() if folder is None else load_tiny(folder).model
    with one_thread():
        taken = []
        for seed in range(repeats + 20):
            wall, cpu = time.perf_counter(), time.thread_time()
            model.generate([seed % len(model.config.phonemes)], [seed], steps=steps)
            taken.append(((time.perf_counter() - wall) * 1000, (time.thread_time() - cpu) * 1000))
    walls, cpus = (sorted(column) for column in zip(*taken[20:], strict=True))
    return {
        "steps": steps,
        "threads": 1,
        "repeats": repeats,
        "ms_median": round(median(walls), 3),
        "ms_p95": round(walls[int(0.95 * len(walls))], 3),
        "cpu_ms_median": round(median(cpus), 3),
    }


def _train(recipe: TinyRecipe, folder: Path) -> tuple[TinyModel, float]:
    """Return the averaged model of a run, and the seconds that this call trained."""
    torch.manual_seed(recipe.trainer.seed)
    task = TinyTask(TinyModel(recipe.model), recipe.coupling)
    batches = TinyBatches(recipe.model, recipe.tones, recipe.trainer.seed)
    trainer = Trainer(task, batches, recipe.trainer, folder / f"run-{recipe.coupling}")
    began = time.perf_counter()
    trainer.fit()
    return cast(TinyModel, trainer.averaged_module()), time.perf_counter() - began


def _speak(folder: Path, tones: ToneConfig) -> dict[str, dict[str, Any]]:
    """Write one file for each phoneme, as the saved voice says it, and measure the files."""
    voice = load_tiny(folder)
    result = {}
    for phoneme, name in enumerate(voice.phonemes):
        write_audio(folder / f"{name}.wav", voice.tone(phoneme), voice.sample_rate)
        peak = spectral_peak(*read_audio(folder / f"{name}.wav"))
        result[f"{name}.wav"] = {
            "pitch_hz": tones.pitches_hz[phoneme],
            "peak_hz": peak.frequency_hz,
            "margin_db": round(peak.margin_db, 1),
            "amplitude": round(peak.amplitude, 3),
        }
    return result


def _ablation(recipe: TinyRecipe, folder: Path, model: TinyModel) -> list[dict[str, Any]]:
    """Return rows of (network, solver steps, tones): untrained, and trained with independent and with optimal pairs."""
    networks = {recipe.coupling: model}
    for coupling in {"independent", "optimal"} - set(networks):
        networks[coupling], _ = _train(replace(recipe, coupling=coupling), folder)
    torch.manual_seed(recipe.trainer.seed)
    networks["untrained"] = TinyModel(recipe.model).eval()
    return [
        {"network": name, "steps": steps, "tones": evaluate_tiny(networks[name], recipe.tones, steps)}
        for name in sorted(networks, reverse=True)
        for steps in STEPS
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one CPU thread, and as many as before on leaving."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
