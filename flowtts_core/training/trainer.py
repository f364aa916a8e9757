"""The training loop: optimisers, EMA, precision, clipping, logs, checkpoints, and a resume that changes nothing.

Every random draw of a step comes from (seed, step, rank), so a checkpoint holds no random state and a run that was cut at
step k and resumed ends with the same parameters as the run that was not cut: bit for bit on a CPU, and up to the order of
sums in kernels that are not deterministic on CUDA.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowtts_core.errors import FlowTTSError
from flowtts_core.seeds import hash_seed
from flowtts_core.training.batches import Batches
from flowtts_core.training.checkpoints import checkpoint_path, load_checkpoint, load_newest, save_checkpoint


@dataclass(frozen=True)
class TrainConfig:
    """How a task is trained, whatever it is.

    Attributes:
        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it natively).
        ema_decay: of the averaged weights that are shipped; the average warms up as (1 + step) / (10 + step).
        final_lr: share of the learning rate left at the end of the cosine.
        keep: number of checkpoints kept.
    """

    steps: int = 1000
    learning_rate: float = 5e-4
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    final_lr: float = 0.05
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "auto"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    sample_every: int = 1000
    keep: int = 2


class Task(Protocol):
    """What is trained: modules, the optimiser each parameter belongs to, and the losses of a batch."""

    modules: dict[str, nn.Module]
    ema_module: str  # the name of the module whose average is shipped

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def updates(self, batch: Any, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One (group name, losses) at a time: the loop steps that group on `losses["loss"]` before asking for the next."""
        ...

    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        """Write something to look at and listen to, made by the averaged module."""
        ...


class TrainingLog:
    """Scalars to `log.jsonl` and TensorBoard, sounds and pictures to TensorBoard and `samples/`."""

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "log.jsonl"
        _drop_later_lines(self.path, resume_step)
        # TensorBoard hides what was logged at the purge step, too
        # tensorboard's writer has no types
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)  # type: ignore[no-untyped-call]

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def audio(self, step: int, name: str, waveform: Tensor, sample_rate: int) -> None:
        """`waveform` [S]."""
        import soundfile

        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        soundfile.write(samples / f"{step:07d}-{name}.wav", waveform.float().cpu().numpy(), sample_rate)
        self.writer.add_audio(name, waveform[None], step, sample_rate)

    def mel(self, step: int, name: str, mel: Tensor) -> None:
        """`mel` [M, T], shown with low bands at the bottom."""
        low, high = float(mel.min()), float(mel.max())
        picture = ((mel - low) / max(high - low, 1e-6)).flip(0).float().cpu()
        self.writer.add_image(name, picture[None], step)

    def close(self) -> None:
        self.writer.close()


class Trainer:
    """Trains a task to its last step, from its last checkpoint where there is one.

    Args:
        folder: where checkpoints and logs stand.
        reduce_gradients: called with the parameters of a group after backward; averages gradients over the ranks.
        agree: called with (number, device); gives every rank the number of rank 0.
        on_checkpoint: called with (path, step, last scalars) after each checkpoint, by every rank (path only on rank 0).
        on_step: called with (step, last scalars) after each step, for a progress bar.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: TrainConfig,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        reduce_gradients: Callable[[list[nn.Parameter]], None] | None = None,
        agree: Callable[[int, torch.device], int] | None = None,
        on_checkpoint: Callable[[Path | None, int, dict[str, float]], None] | None = None,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        self.task, self.batches, self.config, self.folder = task, batches, config, folder
        self.device, self.rank, self.world_size = torch.device(device), rank, world_size
        self.reduce_gradients, self.agree = reduce_gradients, agree
        self.on_checkpoint, self.on_step = on_checkpoint, on_step
        for module in task.modules.values():
            module.to(self.device).train()
        self.groups = task.parameter_groups()
        self.optimizers = {
            name: torch.optim.AdamW(
                parameters, config.learning_rate, (config.betas[0], config.betas[1]), weight_decay=config.weight_decay
            )
            for name, parameters in self.groups.items()
        }
        self.ema = {k: v.detach().clone() for k, v in self._ema_source().state_dict().items()}
        self.step, self.scalars = 0, dict[str, float]()
        self.skipped = dict.fromkeys(self.groups, 0)  # steps in a row that each group's optimiser left out

    def _ema_source(self) -> nn.Module:
        return self.task.modules[self.task.ema_module]

    def fit(self, stop_at: int | None = None) -> dict[str, float]:
        """Train to `config.steps` (or `stop_at`, as if cut there); returns the last scalars."""
        if self.step == 0:
            self._resume()
        log = TrainingLog(self.folder, self.step) if self.rank == 0 else None
        last = min(self.config.steps, stop_at or self.config.steps)
        began, began_step = time.monotonic(), self.step
        while self.step < last:
            self._one_step()
            if log is not None and (self.step % self.config.log_every == 0 or self.step == last):
                speed = (self.step - began_step) / (time.monotonic() - began)
                log.scalars(self.step, {**self.scalars, "steps_per_second": speed})
            if self.on_step is not None:
                self.on_step(self.step, self.scalars)
            if self.step % self.config.checkpoint_every == 0 or self.step == last:
                path = self.save() if self.rank == 0 else None
                if self.on_checkpoint is not None:
                    self.on_checkpoint(path, self.step, self.scalars)
            if log is not None and (self.step % self.config.sample_every == 0 or self.step == last):
                self._sample(log)
        if log is not None:
            log.close()
        return self.scalars

    def _sample(self, log: TrainingLog) -> None:
        try:
            self.task.sample(self.averaged_module(), self.step, log)
        except Exception:  # a model that cannot speak yet must not end its training
            logging.getLogger(__name__).exception("step %d: no samples", self.step)

    def _one_step(self) -> None:
        seed = (self.config.seed, self.step, self.rank)
        torch.manual_seed(hash_seed(*seed, "dropout"))
        generator = torch.Generator().manual_seed(hash_seed(*seed))
        batch = self.batches.at(self.step, self.rank, self.world_size).to(self.device)
        rate = self.config.learning_rate * learning_rate_factor(self.config, self.step)
        scalars: dict[str, float] = {"lr": rate}
        with autocast(self.config.precision, self.device):
            updates = self.task.updates(batch, self.step, generator)
            for name, losses in updates:
                for group in self.optimizers[name].param_groups:
                    group["lr"] = rate
                scalars |= self._update(name, losses)
        self._average()
        self.step += 1
        self.scalars = scalars

    def _update(self, name: str, losses: dict[str, Tensor]) -> dict[str, float]:
        """One optimiser step; a step whose gradient is not finite is left out, and counted."""
        parameters, optimizer = self.groups[name], self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):  # else float32 losses get bfloat16 matrix products backward
            losses["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.reduce_gradients is not None:
            self.reduce_gradients(parameters)
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.grad_clip))
        if math.isfinite(norm):
            optimizer.step()
            self.skipped[name] = 0
        else:
            self.skipped[name] += 1
            if self.skipped[name] > 20:
                raise FlowTTSError(
                    f"step {self.step}: gradients of {name} have not been finite for 20 steps",
                    "lower learning_rate, or use precision=fp32",
                )
        return {f"{name}/{k}": float(v.detach()) for k, v in losses.items()} | {f"{name}/grad_norm": norm}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self._ema_source().state_dict().items():
            if value.is_floating_point():
                self.ema[key].lerp_(value, 1 - decay)
            else:
                self.ema[key].copy_(value)

    def averaged_module(self) -> nn.Module:
        """A copy of the shipped module with the averaged weights, in eval mode."""
        import copy

        module = copy.deepcopy(self._ema_source())
        module.load_state_dict(self.ema)
        return module.eval()

    def save(self) -> Path:
        """Write `checkpoint-STEP.pt` atomically and drop the oldest beyond `keep`."""
        state = {
            "step": self.step,
            "modules": {k: m.state_dict() for k, m in self.task.modules.items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "ema": self.ema,
        }
        return save_checkpoint(self.folder, state, self.config.keep)

    def _resume(self) -> None:
        """Continue from the newest checkpoint that can be read, if there is one: rank 0 chooses it for all ranks."""
        state = load_newest(self.folder) if self.rank == 0 or self.agree is None else None
        step = 0 if state is None else state["step"]
        if self.agree is not None:
            step = self.agree(step, self.device)
        if step and state is None:
            state = self._chosen_by_first(step)
        if state is not None:
            self._restore(state)

    def _chosen_by_first(self, step: int) -> dict[str, Any]:
        path = checkpoint_path(self.folder, step)
        if not path.exists():
            raise FlowTTSError(
                f"rank {self.rank} does not see checkpoint {path}", "the run folder must be shared by all workers"
            )
        return load_checkpoint(path)

    def _restore(self, state: dict[str, Any]) -> None:
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.ema = {name: tensor.to(self.device) for name, tensor in state["ema"].items()}
        self.step = state["step"]


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_lr`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context that computes in bf16 where asked for or, under "auto", where the hardware multiplies it natively."""
    if precision == "bf16" or (precision == "auto" and native_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def native_bf16(device: torch.device) -> bool:
    """True for CUDA devices with bf16 and for CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()


def _drop_later_lines(path: Path, step: int) -> None:
    """What was logged after the checkpoint that a run resumes from will be logged again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        part = path.with_suffix(".part")
        part.write_text("".join(line + "\n" for line in lines if _step_of(line) <= step), encoding="utf-8")
        part.replace(path)


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite for a line that was cut, as by a full disk or a power cut."""
    try:
        step: int = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf
    return step
