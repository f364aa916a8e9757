"""Our acoustic models that follow prompts against published code: the same sizes, weights, noise and steps in both, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cluster.machine import Watch, describe, installed
from flowtts_core.acoustic import F5TTS, Condition, F5Config
from flowtts_core.acoustic.base import Prompt
from flowtts_core.acoustic.f5.importer import SAMPLING
from flowtts_core.audio import torchaudio_import  # noqa: F401  # the published packages import torchaudio, which may need it
from flowtts_core.errors import ConfigError
from flowtts_core.metrics.optional import require

PROMPT_SECONDS, SECONDS = 3.0, 4.0  # of the prompt, and of what is said after it
SIZES = ("base", "small", "debug")


@dataclass(frozen=True)
class Pair:
    """A model of ours and the published one with its weights; both make a mel [T, M] of the same item in so many steps."""

    ours: Callable[[int], Tensor]
    ours_bf16: Callable[[int], Tensor]  # with bfloat16 products
    published: Callable[[int], Tensor]
    package: str
    parameters: int
    sound_s: float


def _f5(size: str) -> Pair:
    remedy = (
        "pip install --no-deps f5-tts==1.1.22 x-transformers einops einx frozendict loguru torch-einops-utils torchdiffeq"
        " ema-pytorch accelerate wandb rjieba pypinyin"
    )
    published = require("f5_tts.model", remedy)
    sizes = {"base": F5Config.published(), "small": F5Config.published_small()}
    config = replace(sizes.get(size) or replace(F5Config(), dim=64, depth=2, heads=1, text_dim=32))
    net = published.DiT(
        dim=config.dim,
        depth=config.depth,
        heads=config.heads,
        dim_head=config.head_channels,
        ff_mult=config.ff_mult,
        mel_dim=config.mel.rows,
        text_num_embeds=config.n_symbols - 1,
        text_dim=config.text_dim,
        conv_layers=config.conv_layers,
    )
    for parameter in net.parameters():
        if not parameter.any():  # nothing may stand still at zero
            nn.init.normal_(parameter, std=0.02)
    sampler = published.CFM(net.eval(), num_channels=config.mel.rows).eval()
    model, rough = F5TTS(config).eval(), F5TTS(replace(config, precision="bf16")).eval()
    model.transformer.load_state_dict(net.state_dict())
    rough.transformer = model.transformer

    generator = torch.Generator().manual_seed(1)
    heard, said = (round(s * config.mel.sample_rate / config.mel.hop_length) for s in (PROMPT_SECONDS, SECONDS))
    features = torch.randn(1, heard + 1, config.mel.rows, generator=generator) - 4
    tokens = torch.randint(1, config.n_symbols, (1, heard // 6 + said // 6), generator=generator)
    read, spoken = tokens[:, : heard // 6], tokens[:, heard // 6 :]
    lengths = torch.tensor([read.shape[1]])
    prompt = Prompt(features, torch.tensor([heard + 1]), read, lengths)
    draft = model.draft(Condition(spoken, torch.tensor([spoken.shape[1]]), None, prompt), 0, 1.0)

    def theirs(steps: int) -> Tensor:
        made, _ = sampler.sample(
            features, tokens - 1, draft.frames, steps=steps, cfg_strength=2.0, sway_sampling_coef=-1.0, seed=0
        )
        mel: Tensor = made[0]
        return mel

    return Pair(
        lambda steps: model.decode([draft], replace(SAMPLING, steps=steps))[0],
        lambda steps: rough.decode([draft], replace(SAMPLING, steps=steps))[0],
        theirs,
        "f5-tts",
        sum(p.numel() for p in model.transformer.parameters()),
        config.mel.seconds_of(draft.frames - draft.heard),
    )


REFERENCES: dict[str, Callable[[str], Pair]] = {"f5": _f5}


def against(
    names: Sequence[str], say: Callable[[str], None], size: str, steps: int, turns: int, threads: int
) -> dict[str, Any]:
    """Time ours, the published code, and ours with bfloat16 products, in turns; and compare what they make.

    Raises:
        ConfigError: for a name without a reference.
        DependencyError: where the published package is not installed.
    """
    if unknown := sorted(set(names) - REFERENCES.keys()):
        raise ConfigError(f"--against {unknown[0]}: no published code is known", f"use some of {', '.join(REFERENCES)}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = []
    try:
        with Watch() as watch, torch.no_grad():
            for name in names:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    pair = REFERENCES[name](size)
                # on one thread the processor's own time, which others who use the machine disturb less
                clock = time.process_time if threads == 1 else time.perf_counter
                rows.append({"model": name, "size": size, **_row(name, pair, steps, turns, clock, say)})
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "acoustic against",
        "machine": describe(),
        "versions": {row["package"]: installed(row["package"]) for row in rows},
        "busy": watch.busy.to_json(),
        "threads": threads,
        "steps": steps,
        "rows": rows,
    }


def _row(
    name: str, pair: Pair, steps: int, turns: int, clock: Callable[[], float], say: Callable[[str], None]
) -> dict[str, Any]:
    runs = {"ours": pair.ours, "published": pair.published, "ours_bf16": pair.ours_bf16}
    times: dict[str, list[float]] = {run: [] for run in runs}
    made: dict[str, Tensor] = {}
    for make in runs.values():
        make(1)  # warms up
    for turn in range(turns):
        say(f"{name}, turn {turn + 1} of {turns}")
        for run, make in runs.items():
            began = clock()
            made[run] = make(steps)
            times[run].append(clock() - began)
    faster = {
        run: statistics.median(theirs / own for own, theirs in zip(times[run], times["published"], strict=True))
        for run in ("ours", "ours_bf16")
    }
    return {
        "package": pair.package,
        "parameters": pair.parameters,
        **{f"{run}_rtf": statistics.median(taken) / pair.sound_s for run, taken in times.items()},
        "times_as_fast": faster["ours"],
        "times_as_fast_bf16": faster["ours_bf16"],
        "apart": float((made["ours"] - made["published"]).abs().max()),
        "apart_bf16": float((made["ours_bf16"] - made["published"]).abs().mean()),
    }


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine, busy = figures["machine"], figures["busy"]["others_cores"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    lines = [
        f"{SECONDS:g} s of sound after {PROMPT_SECONDS:g} s of prompt in {figures['steps']} steps with guidance, medians of"
        f" turns, {figures['threads']} thread(s) of {machine['processor']}; torch {torch.__version__}, {versions}; others kept"
        f" {busy or 0:.1f} cores busy. Seconds are those of a second of sound.",
        "",
        "| model | size | published, s | ours, s | times as fast | ours in bf16, s | times as fast"
        " | largest difference | mean difference in bf16 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        lines.append(
            f"| {row['model']} | {row['size']}, {row['parameters'] / 1e6:.0f} M | {row['published_rtf']:.2f} |"
            f" {row['ours_rtf']:.2f} | {row['times_as_fast']:.2f} | {row['ours_bf16_rtf']:.2f} |"
            f" {row['times_as_fast_bf16']:.2f} | {row['apart']:.1e} | {row['apart_bf16']:.1e} |"
        )
    return "\n".join(lines)
