"""The training loop: optimisers, EMA, precision, clipping, logs, checkpoints, and a resume that changes nothing.

Every random draw of a step comes from (seed, step), so a checkpoint holds no random state and a run that was cut at step k
and resumed ends with the same parameters as the run that was not cut: bit for bit on a CPU, and up to the order of sums in
kernels that are not deterministic on CUDA. On another number of processes it goes on with the same batches and draws, and
differs by the order of sums alone.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowtts_core.errors import FlowTTSError
from flowtts_core.files import drop_partial
from flowtts_core.nn.share import computing
from flowtts_core.seeds import hash_seed
from flowtts_core.training.ahead import Ahead
from flowtts_core.training.batches import Batches
from flowtts_core.training.checkpoints import CheckpointWriter, checkpoint_steps, load_checkpoint, load_newest
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.files import Files, files_of, patiently, warn
from flowtts_core.training.log import LOG, TrainingLog


@dataclass(frozen=True)
class TrainConfig:
    """How a task is trained, whatever it is.

    Attributes:
        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it natively).
        ema_decay: of the averaged weights that are shipped; the average warms up as (1 + step) / (10 + step).
        decay: share of the steps, the last ones, over which the rate falls as half a cosine; it stands still before. A run
            whose rate falls late can be made longer without losing what it has learnt.
        final_lr: share of the learning rate left at the end.
        keep: number of checkpoints kept.
    """

    steps: int = 1000
    learning_rate: float = 5e-4
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay: float = 1.0
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
        """Yield one (group name, losses) at a time: the loop steps that group on `losses["loss"]` before asking for the next."""
        ...

    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        """Write something to look at and listen to, made by the averaged module."""
        ...


class MustGo(Exception):
    """A process of the group was told to go; the checkpoint of this step is written."""


class Trainer:
    """Trains a task to its last step, from its last checkpoint where there is one.

    Args:
        place: where checkpoints and logs stand: a folder, or another place that all processes see.
        ranks: the processes that train together.
        on_step: called with (step, last scalars) after each step, for a progress bar.
        tell: called with a sentence for each try at writing a checkpoint that failed.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: TrainConfig,
        place: Path | Files,
        *,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self.task, self.batches, self.config = task, batches, config
        self.place, self.files = place, files_of(place)
        self.device, self.ranks = torch.device(device), ranks
        self.on_step, self.tell = on_step, tell
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
        """Train to `config.steps` (or `stop_at`, as if cut there); returns the last scalars.

        Raises:
            MustGo: on every rank, after a checkpoint of this step, when one of them was told to go.
        """
        if self.step == 0:
            self.resume()
        last = min(self.config.steps, stop_at or self.config.steps)
        with self._output() as output, Ahead(self.batches, self.ranks, self.step, last) as ahead:
            began, began_step = time.monotonic(), self.step
            while self.step < last:
                self._one_step(ahead.next())
                speed = (self.step - began_step) / (time.monotonic() - began)
                going = self.ranks.told_to_go(self.device)
                if output is not None:
                    self._write(output, last, speed, going)
                if self.on_step is not None:
                    self.on_step(self.step, self.scalars)
                if going and self.step < last:
                    if output is not None:
                        output.writer.wait()
                    self.ranks.first(self.step, self.device)  # the others wait here for rank 0's checkpoint
                    raise MustGo(f"told to go at step {self.step}")
            if output is not None:
                output.writer.wait()
        return self.scalars

    @contextmanager
    def _output(self) -> Iterator[_Output | None]:
        """Open log and checkpoint writer on rank 0. For a place that is no folder, the log is kept in one and copied there."""
        if self.ranks.rank:
            yield None
            return
        local = self.place if isinstance(self.place, Path) else None
        with tempfile.TemporaryDirectory() if local is None else nullcontext(str(local)) as folder:
            if local is not None:
                drop_partial(local)
            else:
                patiently(lambda: _fetch_log(self.files, Path(folder)), "fetching the log")
            log = TrainingLog(Path(folder), self.step)
            beside = (lambda: log.mirror(self.files)) if local is None else (lambda: None)
            writer = CheckpointWriter(self.files, self.config.keep, beside, self.tell)
            try:
                yield _Output(log, writer)
            finally:
                writer.close()
                log.close()

    def _write(self, output: _Output, last: int, speed: float, going: bool) -> None:
        """Write what is due after a step: scalars, samples, a checkpoint."""
        at_end = self.step == last
        if self.step % self.config.log_every == 0 or at_end:
            output.log.scalars(self.step, {**self.scalars, "steps_per_second": speed})
        if self.step % self.config.sample_every == 0 or at_end:
            self._sample(output.log)
        if self.step % self.config.checkpoint_every == 0 or at_end or going:
            output.writer.submit(self.state())

    def _sample(self, log: TrainingLog) -> None:
        try:
            self.task.sample(self.averaged_module(), self.step, log)
        except Exception:  # a model that cannot speak yet must not end its training
            logging.getLogger(__name__).exception("step %d: no samples", self.step)

    def _one_step(self, batch: Any) -> None:
        seed = (self.config.seed, self.step, 0)
        torch.manual_seed(hash_seed(*seed, "dropout"))
        generator = torch.Generator().manual_seed(hash_seed(*seed))
        batch = batch.to(self.device)
        rate = self.config.learning_rate * learning_rate_factor(self.config, self.step)
        scalars: dict[str, float] = {"lr": rate}
        with autocast(self.config.precision, self.device), computing(getattr(batch, "share", None)):
            updates = self.task.updates(batch, self.step, generator)
            for name, losses in updates:
                for group in self.optimizers[name].param_groups:
                    group["lr"] = rate
                scalars |= self._update(name, losses)
        self._average()
        self.step += 1
        self.scalars = scalars

    def _update(self, name: str, losses: dict[str, Tensor]) -> dict[str, float]:
        """Take one optimiser step; a step whose gradient is not finite is left out, and counted."""
        parameters, optimizer = self.groups[name], self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            self.device.type, enabled=False
        ):  # else float32 losses get bfloat16 matrix products backward
            losses["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.ranks.sum_gradients(parameters)
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
        """Return a copy of the shipped module with the averaged weights, in eval mode."""
        module = copy.deepcopy(self._ema_source())
        module.load_state_dict(self.ema)
        return module.eval()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "step": self.step,
            "modules": {k: m.state_dict() for k, m in self.task.modules.items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "ema": self.ema,
        }

    def resume(self) -> int:
        """Continue from the newest checkpoint that can be read, if there is one: rank 0 chooses it for all. Returns its step."""
        state = load_newest(self.files) if self.ranks.rank == 0 else None
        step = self.ranks.first(0 if state is None else state["step"], self.device)
        if step and state is None:
            if step not in checkpoint_steps(self.files):
                raise FlowTTSError(
                    f"rank {self.ranks.rank} does not see the checkpoint of step {step} in {self.files.path()}",
                    "the run folder must be shared by all workers",
                )
            state = load_checkpoint(self.files, step)
        if state is not None:
            self._restore(state)
        return self.step

    def _restore(self, state: dict[str, Any]) -> None:
        if state["modules"].keys() != self.task.modules.keys():
            raise FlowTTSError(
                f"{self.files.path()}: the checkpoint of step {state['step']} is another version's, with modules"
                f" {', '.join(state['modules'])}",
                "remove that folder to train anew",
            )
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.ema = {name: tensor.to(self.device) for name, tensor in state["ema"].items()}
        self.step = state["step"]


@dataclass(frozen=True)
class _Output:
    """What rank 0 writes to."""

    log: TrainingLog
    writer: CheckpointWriter


def _fetch_log(files: Files, folder: Path) -> None:
    if LOG in files.list():
        (folder / LOG).write_bytes(files.read(LOG))


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Return the factor at a step: linear warm-up, a plateau, then half a cosine down to `final_lr`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    falling = max(1.0, config.decay * (config.steps - config.warmup_steps))
    progress = min(1.0, max(0.0, 1 - (config.steps - step) / falling))
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that computes in bf16 where asked for or, under "auto", where the hardware multiplies it natively."""
    if precision == "bf16" or (precision == "auto" and native_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def native_bf16(device: torch.device) -> bool:
    """Return True for CUDA devices with bf16 and for CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest torch has none
    return torch.backends.mkldnn.is_available() and any(can.get(name) for name in ("avx512_bf16", "amx_bf16"))
