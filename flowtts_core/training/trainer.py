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
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowtts_core.errors import DivergedError, FlowTTSError
from flowtts_core.files import drop_partial
from flowtts_core.nn.share import computing
from flowtts_core.seeds import hash_seed
from flowtts_core.training.ahead import Ahead
from flowtts_core.training.batches import Batches
from flowtts_core.training.checkpoints import CheckpointWriter, checkpoint_steps, load_checkpoint, load_newest
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.files import Files, files_of, patiently, warn
from flowtts_core.training.log import LOG, TrainingLog
from flowtts_core.training.validation import Validated, validated

MOST_LEFT_OUT = 20  # steps in a row without finite gradients; one more, and the training has diverged
_MOST_AT_END = 2  # of them at the end of a training, where nothing shows any more that it would recover


@dataclass(frozen=True)
class TrainConfig:
    """How a task is trained, whatever it is.

    Attributes:
        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it natively).
        ema_decay: of the averaged weights that are shipped; the average warms up as (1 + step) / (10 + step).
        decay: share of the steps, the last ones, over which the rate falls as half a cosine; it stands still before. A run
            whose rate falls late can be made longer without losing what it has learnt.
        final_lr: share of the learning rate left at the end.
        keep: number of checkpoints kept, beside that of the best validation.
        validation: share of the clips that is held out, and whose loss is measured with each checkpoint; 0 for none.
        patience: stop after so many validations in a row without a lower loss, and ship the weights of the lowest; 0, which
            is the default, trains to the last step and ships the last weights. A falling learning rate gains most at its
            end, and a voice may still come to sound better while its loss stands still.
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
    validation: float = 0.02
    patience: int = 0


class Task(Protocol):
    """What is trained: modules, the optimiser each parameter belongs to, and the losses of a batch."""

    modules: dict[str, nn.Module]
    ema_module: str  # the name of the module whose average is shipped

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def updates(self, batch: Any, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield one (group name, losses) at a time: the loop steps that group on `losses["loss"]` before asking for the next."""
        ...

    def validation(self, module: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch by the averaged module, as a scalar."""
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
        on_log: called on rank 0 with the folder of the log and whether the training ends, whenever something was logged.
        tell: called with a sentence for each try at writing a checkpoint that failed, and for each step that is left out.
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
        on_log: Callable[[Path, bool], None] = lambda folder, ends: None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self.task, self.batches, self.config = task, batches, config
        self.place, self.files = place, files_of(place)
        self.device, self.ranks = torch.device(device), ranks
        self.on_step, self.on_log, self.tell = on_step, on_log, tell
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
        self.validated: Validated | None = None
        self._owed = False  # whether a checkpoint is due, as soon as gradients are finite
        self._kept = 0  # step of the newest checkpoint

    def _ema_source(self) -> nn.Module:
        return self.task.modules[self.task.ema_module]

    def fit(self, stop_at: int | None = None) -> dict[str, float]:
        """Train to `config.steps` (or `stop_at`, as if cut there); returns the last scalars.

        It ends earlier where `config.patience` is exhausted.

        Raises:
            MustGo: on every rank, after a checkpoint of this step, when one of them was told to go.
            DivergedError: on every rank, when gradients stay without finite values, or the weights or their loss at the end
                are not finite. The last checkpoint with finite gradients stays.
        """
        if self.step == 0:
            self.resume()
        last = min(self.config.steps, stop_at or self.config.steps)
        held_out = self.batches.validation() if self.ranks.rank == 0 else ()
        validates = bool(self.ranks.first(len(held_out), self.device))
        with self._output() as output, Ahead(self.batches, self.ranks, self.step, last) as ahead:
            began, began_step = time.monotonic(), self.step
            while self.step < last and not self.stopped_early:
                self._one_step(ahead.next())
                speed = (self.step - began_step) / (time.monotonic() - began)
                going = self.ranks.told_to_go(self.device)
                due = self._checkpoint_is_due(self.step == last)
                if due and validates and (self.step == last or not going):  # who must go has no time for it
                    self._validate(held_out)
                ends = self.step == last or self.stopped_early
                if ends and last == self.config.steps:
                    self._require_sound()
                if due or going:
                    self._kept = self.step
                if output is not None:
                    self._write(output, ends, due or going, speed)
                if self.on_step is not None:
                    self.on_step(self.step, self._shown())
                if going and not ends:
                    if output is not None:
                        output.writer.wait()
                    self.ranks.first(self.step, self.device)  # the others wait here for rank 0's checkpoint
                    raise MustGo(f"told to go at step {self.step}")
            if output is not None:
                output.writer.wait()
        return self._shown()

    def _shown(self) -> dict[str, float]:
        """Return the scalars of the last step, and those of the last validation."""
        return self.scalars | ({} if self.validated is None else self.validated.scalars())

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

    @property
    def stopped_early(self) -> bool:
        """Return whether the validations have not become better for as long as `patience` allows."""
        return self.validated is not None and 0 < self.config.patience <= self.validated.since

    def _checkpoint_is_due(self, at_end: bool) -> bool:
        """Return whether one is; while gradients are not finite it waits, so that those from before are kept."""
        self._owed |= self.step % self.config.checkpoint_every == 0
        due = at_end or (self._owed and not any(self.skipped.values()))
        self._owed &= not due
        return due

    def _validate(self, held_out: Sequence[Any]) -> None:
        loss = self._same(self._loss_of(held_out) if self.ranks.rank == 0 else math.nan)
        self.validated = validated(self.validated, self.step, loss)

    @torch.no_grad()
    def _loss_of(self, batches: Sequence[Any]) -> float:
        """Return the averaged module's mean loss over whole batches, with the same random draws whenever it is asked."""
        module, losses = self.averaged_module(), list[float]()
        for number, batch in enumerate(batches):
            generator = torch.Generator().manual_seed(hash_seed(self.config.seed, "validation", number))
            with autocast(self.config.precision, self.device):
                losses.append(float(self.task.validation(module, batch.to(self.device), generator)))
        return sum(losses) / len(losses)

    def _same(self, number: float) -> float:
        """Return rank 0's number on every process."""
        (bits,) = struct.unpack("<q", struct.pack("<d", number))
        (same,) = struct.unpack("<d", struct.pack("<q", self.ranks.first(bits, self.device)))
        return float(same)

    def _require_sound(self) -> None:
        """Raise DivergedError for a training that ends in what cannot be used."""
        for name, count in self.skipped.items():
            if count > _MOST_AT_END:
                raise self._diverged(f"gradients of {name} were not finite in the last {count} steps")
        modules = (value for module in self.task.modules.values() for value in module.state_dict().values())
        if not all(bool(value.isfinite().all()) for value in (*modules, *self.ema.values())):
            raise self._diverged("weights are not finite")
        if self.validated is not None and self.validated.step == self.step:
            loss = self.validated.loss
        else:  # the last batch that was trained on; if it is at fault itself, one before it is not
            last = (
                [self.batches.at(step) for step in range(max(0, self.step - 3), self.step)]
                if self.ranks.rank == 0
                else []
            )
            losses = (self._loss_of([batch]) for batch in reversed(last))
            loss = self._same(next(filter(math.isfinite, losses), math.nan))
        if not math.isfinite(loss):
            raise self._diverged("the loss of the averaged weights is not finite")

    def _diverged(self, what: str) -> DivergedError:
        """Return the error, with what to try and what is kept."""
        kept = f"the checkpoint of step {self._kept} is kept in" if self._kept else "no checkpoint was written to"
        rate = self.config.learning_rate
        lower = min(rate / 10, TrainConfig.learning_rate)
        return DivergedError(
            f"step {self.step}: {what}: the training has diverged; {kept} {self.files.path()}",
            f"lower the learning rate (--set trainer.learning_rate={lower:g}; it is {rate:g}), warm up longer"
            f" (trainer.warmup_steps, {self.config.warmup_steps}), or use --set trainer.precision=fp32",
        )

    def _write(self, output: _Output, ends: bool, checkpoint: bool, speed: float) -> None:
        """Write what is due after a step: scalars, samples, a checkpoint."""
        validates = self.validated is not None and self.validated.step == self.step
        logs = self.step % self.config.log_every == 0 or validates or ends
        samples = self.step % self.config.sample_every == 0 or ends
        if logs:
            output.log.scalars(self.step, {**(self._shown() if validates else self.scalars), "steps_per_second": speed})
        if samples:
            self._sample(output.log)
        if logs or samples:
            self.on_log(output.log.folder, ends)
        if checkpoint:
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
            if self.skipped[name] > MOST_LEFT_OUT:
                raise self._diverged(f"gradients of {name} have not been finite for {MOST_LEFT_OUT} steps")
            if self.ranks.rank == 0:
                self.tell(
                    f"step {self.step}: gradients of {name} are not finite: left out ({self.skipped[name]} in a row)"
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
            "skipped": dict(self.skipped),
            "validated": None if self.validated is None else asdict(self.validated),
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
        self.step = self._kept = state["step"]
        self.skipped |= state.get("skipped", {})  # an older version's checkpoint has none
        shown = state.get("validated")
        self.validated = None if shown is None else Validated(**shown)


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
