"""The training loop: one for every objective and every kind of trained module.

The order of a step: seed the global generators from (seed, step, rank) · micro-batches, each backward right after its
loss · one exchange between the processes (loss, counts, who wants to stop or save) · check that everything is finite ·
normalise by the global count · clip · AdamW. Whatever else is random inside a step is then a function of its number,
and a resumed run is the uninterrupted run, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from diffusion_core.errors import CheckpointError, ConfigError
from diffusion_core.model.transformer import Transformer
from train import checkpoint
from train.batches import BatchesAhead, seed_everything
from train.config import TrainConfig
from train.deadline import Deadline, OutOfTimeError, StopRequest, give_up_after
from train.distributed import World, gather_into, is_sharded, shard, sum_gradients
from train.errors import TrainingDiverged, TrainingError
from train.metrics import EVALUATION, STEP, MetricsFile, MetricSums, average
from train.objective import HasState, LossOutput, Objective, ObjectiveState, Saver, derive_seed
from train.optim import MasterOptimizer, learning_rate
from train.progress import RunDisplay, format_seconds
from train.settings import to_json
from train.throughput import FlopMeter, Rates, measure_peak

STATE_FOLDER, CHECKPOINT_FOLDER = "state", "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: at which step, why (``done``, ``time budget``, a signal's name), and its last figures."""

    step: int
    reason: str
    figures: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class _StepSums:
    """What all processes together did in a step."""

    loss: float
    count: float
    squared_norm: float
    num_tokens: float
    num_sequences: float
    wants_stop: bool
    wants_save: bool
    is_out_of_time: bool
    progress: float


class Trainer:
    """Trains ``model`` on ``objective`` into ``folder``. Build it, perhaps :meth:`resume`, then :meth:`run`."""

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        objective: Objective,
        saver: Saver,
        folder: Path,
        *,
        world: World,
        deadline: Deadline,
        stop: StopRequest,
        console: Console,
    ) -> None:
        self.config, self.objective, self.folder = config, objective, folder
        self._saver, self._world, self._deadline, self._stop = saver, world, deadline, stop
        if config.schedule.decay_over == "time" and deadline.seconds is None:
            raise ConfigError("schedule.decay_over is time: give --time-budget, or set schedule.decay_over=steps")
        self.whole_model = model
        self._shards = is_sharded(model, world)
        if self._shards:
            assert isinstance(model, Transformer)
            self.model: nn.Module = shard(model, world)
        else:
            self.model = model
        self.optimizer = MasterOptimizer(self.model.named_parameters(), config.optim)
        self.state = checkpoint.RunState(config=to_json(config))
        self._metrics, self._sums, self._rates = MetricsFile(folder), MetricSums(), Rates()
        self._flops, self.peak_flops, self.peak_dtype = FlopMeter(num_steps=config.budget.steps), 0.0, ""
        self._display = RunDisplay(config.recipe, config.budget.steps, console, is_quiet=not world.is_main)
        self._progress_at_start, self._last_save = 0.0, time.monotonic()
        self._last_evaluated, self._saved_step = -1, -1
        self._figures: dict[str, float] = {}
        self._metrics_wait = False

    def resume(self) -> int:
        """Go on from the state in the folder; returns its step.

        Raises:
            CheckpointError: the state is damaged or of a model of another shape.
        """
        self.state, remembered = checkpoint.load_state(
            self.folder / STATE_FOLDER, self.optimizer, self._world, shards=self._shards
        )
        self.state = replace(self.state, config=to_json(self.config))
        if isinstance(self.objective, HasState):
            self.objective.load_state(remembered)
        self._flops = FlopMeter(self.state.flops_per_token, num_steps=self.config.budget.steps)
        self._progress_at_start, self._saved_step = self.state.progress, self.state.step
        if self._world.is_main:
            self._metrics.cut_after(self.state.step)
        return self.state.step

    def run(self) -> Outcome:
        """Train until the steps, the time or the user's patience end. The last state and checkpoint are then saved.

        Raises:
            TrainingDiverged: a loss or gradient is not finite; nothing is saved after the last finite step.
            CheckpointError: the last save failed; the one before is intact.
        """
        device = self._world.device
        dtype = next(iter(self.optimizer.parameters.values())).dtype
        self.peak_flops = measure_peak(device, dtype)
        self.peak_dtype = str(dtype).removeprefix("torch.")
        with self._display, ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            batches = BatchesAhead(self.objective, self._world, self.config, pool)
            try:
                if self._saved_step < 0:
                    # Finds out at once whether the disk takes a save, and what one costs.
                    self._save(is_last=True)
                    self._evaluate()
                reason = self._train(batches)
                self._save(is_last=True)
                self._evaluate()
            finally:
                batches.close()
        return Outcome(step=self.state.step, reason=reason, figures=self._figures)

    def _train(self, batches: BatchesAhead) -> str:
        budget = self.config.budget
        is_out_of_time = bool(self._world.sum([float(not self._deadline.has_room_for_step())])[0])
        while self.state.step < budget.steps:
            if is_out_of_time:
                return "time budget"
            start = time.monotonic()
            sums = self._step(batches)
            if sums is None:
                return "time budget"
            self._after_step(sums, time.monotonic() - start)
            if sums.wants_stop:
                return self._stop.name or "stopped by another process"
            if budget.evaluate_every and self.state.step % budget.evaluate_every == 0:
                self._evaluate()
            if sums.wants_save:
                self._save()
            is_out_of_time = sums.is_out_of_time
        return "done"

    def _step(self, batches: BatchesAhead) -> _StepSums | None:
        """One optimiser step; the weights move only if everything was finite. None if it would outlast the budget.

        Steps are not equally long: one may begin with a pool of trajectories to draw. Several processes do not look at
        the clock inside a step, because they could not agree on what it says.
        """
        config, step = self.config, self.state.step
        before = self.objective.state() if isinstance(self.objective, HasState) else None
        limit = self._deadline.left - self._deadline.reserve if self._world.size == 1 else float("inf")
        try:
            with give_up_after(limit):
                outputs = self._accumulate(batches)
        except OutOfTimeError:
            self.optimizer.drop_gradients()
            self._sums.take()
            if isinstance(self.objective, HasState) and before is not None:
                self.objective.load_state(before)
            return None
        if not self._shards:
            sum_gradients(self.optimizer.gradients(), self._world)
        sums = self._exchange(outputs)
        self._check_finite(sums, outputs)
        # FSDP2 averages gradients over the processes; the sum over all of them is wanted.
        factor = (self._world.size if self._shards else 1) / max(sums.count, 1e-12)
        norm = math.sqrt(sums.squared_norm) * factor
        if config.optim.clip_norm and norm > config.optim.clip_norm:
            factor *= config.optim.clip_norm / norm
        self.optimizer.scale_gradients(factor)
        rate = learning_rate(config.schedule, config.optim.learning_rate, step, self.state.progress)
        self.optimizer.step(rate)
        self._figures = {"loss": sums.loss / max(sums.count, 1e-12), "grad_norm": norm, "learning_rate": rate}
        return sums

    def _accumulate(self, batches: BatchesAhead) -> list[LossOutput]:
        """Losses of the step's micro-batches; their gradients are summed in the optimiser."""
        config, step = self.config, self.state.step
        seed_everything(derive_seed(config.seed, "step", step, self._world.rank))
        self.model.train()
        outputs: list[LossOutput] = []
        with self._flops.watch(step) as counter:
            for micro in range(config.optim.accumulation):
                output = self.objective.loss(self.model, batches.take(step * config.optim.accumulation + micro), step)
                self._sums.add(output)
                torch.autograd.backward(output.loss_sum)
                self.optimizer.collect_gradients()
                # The graph is not needed any more; the value is.
                outputs.append(replace(output, loss_sum=output.loss_sum.detach()))
        self._flops.note(counter, sum(output.num_tokens for output in outputs))
        return outputs

    def _exchange(self, outputs: list[LossOutput]) -> _StepSums:
        """Add up over the processes, in one exchange: figures, and who wants what."""
        config, deadline = self.config, self._deadline
        loss = float(torch.stack([output.loss_sum.double() for output in outputs]).sum())
        norm = float(self.optimizer.squared_norm())
        is_whole = self._world.size > 1 and not self._shards  # then every process has the same gradients
        next_step = self.state.step + 1
        by_steps = config.checkpoint.every_steps and next_step % config.checkpoint.every_steps == 0
        by_time = time.monotonic() - self._last_save >= config.checkpoint.every_seconds
        flat = self._world.sum(
            [
                loss,
                sum(float(output.count) for output in outputs),
                norm / (self._world.size if is_whole else 1),
                sum(output.num_tokens for output in outputs),
                sum(output.num_sequences or len(output.batch_ids) for output in outputs),
                float(bool(self._stop)),
                float(by_steps or by_time),
                float(not deadline.has_room_for_step()),
                self._progress(next_step) / self._world.size,
            ]
        )
        return _StepSums(
            loss=flat[0],
            count=flat[1],
            squared_norm=flat[2],
            num_tokens=flat[3],
            num_sequences=flat[4],
            wants_stop=flat[5] > 0,
            wants_save=flat[6] > 0,
            is_out_of_time=flat[7] > 0,
            progress=flat[8],
        )

    def _progress(self, step: int) -> float:
        """Share of the run behind it after ``step`` steps, by steps or by time, whichever is further."""
        by_steps = step / self.config.budget.steps
        if self.config.schedule.decay_over == "steps":
            return by_steps
        done = self._progress_at_start
        return max(by_steps, done + (1 - done) * self._deadline.used_share)

    def _check_finite(self, sums: _StepSums, outputs: list[LossOutput]) -> None:
        if math.isfinite(sums.loss) and math.isfinite(sums.squared_norm):
            return
        what = "the gradient" if math.isfinite(sums.loss) else "the loss"
        bad = [output for output in outputs if not bool(torch.isfinite(output.loss_sum))]
        mine = [name for output in bad or (outputs if what == "the gradient" else []) for name in output.batch_ids]
        ids = [name for text in self._world.gather_text("\n".join(mine)) for name in text.split("\n") if name]
        raise TrainingDiverged(what, seed=self.config.seed, step=self.state.step, batch_ids=ids)

    def _after_step(self, sums: _StepSums, seconds: float) -> None:
        """Count, log, show."""
        self._deadline.note_step(seconds)
        self._rates.note(seconds, sums.num_tokens, sums.num_sequences)
        self.state = replace(
            self.state,
            step=self.state.step + 1,
            progress=sums.progress,
            seconds=self.state.seconds + seconds,
            num_tokens=self.state.num_tokens + sums.num_tokens,
            num_sequences=self.state.num_sequences + sums.num_sequences,
            flops_per_token=self._flops.per_token,
        )
        rates = self._rates.per_second()
        mfu = self.utilisation()
        step, total = self.state.step, self.config.budget.steps
        if step % self.config.budget.log_every == 0 or step == total:
            record = self._figures | rates | {"mfu": mfu, "seconds": self.state.seconds}
            record |= average(self._world.sum_by_name(self._sums.take()))
            if self._world.is_main:
                self._write_metrics(STEP, record)
        left = min((total - step) / rates["steps_per_second"], self._deadline.left)
        self._display.show_step(step, self._figures["loss"], rates, left, mfu)

    @property
    def num_trained(self) -> int:
        """Trained parameters, over all processes."""
        return sum(parameter.numel() for parameter in self.optimizer.parameters.values())

    def utilisation(self) -> float:
        """Model FLOP utilisation: achieved over the measured peak of all devices together."""
        achieved = self._flops.per_token * self._rates.per_second()["tokens_per_second"]
        return achieved / (self.peak_flops * self._world.size)

    def _evaluate(self) -> None:
        """Figures on held-out data, where the time budget allows it. A sharded model is evaluated by one process."""
        step = self.state.step
        has_room = not self._world.sum([float(not self._deadline.has_room_for_evaluation())])[0]
        if self._last_evaluated == step or not has_room:
            return
        start = time.monotonic()
        model = self._whole()
        seed_everything(derive_seed(self.config.seed, "evaluate", step))
        error: Exception | None = None
        if self._world.is_main:
            try:
                figures = self._evaluate_whole(model)
                self._write_metrics(EVALUATION, figures)
                shown = " · ".join(f"{name} {value:.4g}" for name, value in figures.items() if "/" not in name)
                self._display.say(f"step {step}: {shown} ({format_seconds(time.monotonic() - start)})")
                self._figures |= figures
            except Exception as failure:
                error = failure
        self._world.agree(error)
        self._last_evaluated = step
        self._deadline.note_evaluation(time.monotonic() - start)

    def _evaluate_whole(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        if self._shards:
            model.to(self._world.device)
        with torch.no_grad():
            figures = self.objective.evaluate(model, self.state.step)
        if self._shards:
            model.to("cpu")
        return figures

    def _write_metrics(self, kind: str, values: dict[str, float]) -> None:
        is_written = self._metrics.write(kind, self.state.step, values)
        if not is_written and not self._metrics_wait:
            self._display.say(f"{self._metrics.path} cannot be written now: figures wait in memory", is_warning=True)
        self._metrics_wait = not is_written

    def _whole(self) -> nn.Module:
        """The model in one piece; in a sharded run only the main process's is filled."""
        if self._shards:
            gather_into(self.whole_model, self.model, self._world)
        return self.whole_model

    def _save(self, *, is_last: bool = False) -> None:
        """Save the state and the checkpoint that the engine serves.

        A save on the way that fails is reported and tried again later: stopping would lose for certain what a freed
        disk may still keep. The first and the last one raise.
        """
        if self._saved_step == self.state.step:
            return
        start = time.monotonic()
        try:
            remembered = self.objective.state() if isinstance(self.objective, HasState) else ObjectiveState()
            checkpoint.save_state(
                self.folder / STATE_FOLDER, self.state, self.optimizer, remembered, self._world, shards=self._shards
            )
            self._save_served()
        except (CheckpointError, TrainingError) as error:
            if is_last:
                raise
            self._display.say(f"not saved at step {self.state.step}: {error}", is_warning=True)
            self._last_save = time.monotonic()
            return
        self._saved_step, self._last_save = self.state.step, time.monotonic()
        self._deadline.note_save(time.monotonic() - start)

    def _save_served(self) -> None:
        self._whole()
        error: Exception | None = None
        if self._world.is_main:
            error = checkpoint.attempt(
                self.folder / CHECKPOINT_FOLDER, lambda: self._saver(self.folder / CHECKPOINT_FOLDER)
            )
        self._world.agree(error)
