"""One training, from the first optimiser step to the test errors of its best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from pals_core.checkpoint.header import CheckpointHeader, EpochSummary, Metrics
from pals_core.data.table import Table
from pals_core.data.treatment import note_of_constants, note_of_missing
from pals_core.data.windows import SplitWindows, make_windows, windows_at_once
from pals_core.errors import InvalidSpec, Problem
from pals_core.evaluation.conformal import calibrate
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import learn_season
from pals_core.feasibility import step_problems
from pals_core.flops import count_flops
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.registry import build_method
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import DataSpec, PalsMethodSpec, Spec
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.batch_order import BatchOrder
from pals_core.training.epoch_checkpoints import EpochCheckpoints, series_ends
from pals_core.training.events import (
    CheckpointSaved,
    EpochEnd,
    Finished,
    MaskUpdate,
    Message,
    Progress,
    Result,
    Started,
    TrainingEvent,
)
from pals_core.training.forward import ForwardPass, choose_arithmetic
from pals_core.training.gradient import backpropagate
from pals_core.training.learning_rate import learning_rate_at
from pals_core.training.optimization import clip_gradients, make_optimizer
from pals_core.training.progress import LossBuffer, require_finite
from pals_core.training.selection import BestEpoch, EarlyStopping, goal_of
from pals_core.training.state import TrainingState
from pals_core.training.state_files import StateFiles, table_sha256
from pals_core.training.surroundings import repeats, surroundings_of
from pals_core.training.validation import all_windows, mean_squared_error, spread_windows


class TrainingLoop:
    """A network, its masks and optimiser, the windows it is trained on and the files it leaves; runs once.

    Raises InvalidSpec and InvalidTable when it cannot be put together. Random numbers are torch's global ones, which
    the caller seeds.
    """

    def __init__(
        self,
        spec: Spec,
        table: Table,
        output_dir: Path,
        device: torch.device,
        *,
        dataset_sha256: str | None,
        state_interval_seconds: float | None,
        save_states: bool,
        micro_batches: int,
    ) -> None:
        recipe = spec.training
        self.spec = spec
        self.device = device
        self.save_states = save_states
        self.micro_batches = micro_batches
        self.table_notes = table.notes
        table.require_steps()
        self.windows = make_windows(
            table, spec.data, device, torch.float32, windows_at_once(recipe.batch_size, micro_batches)
        )
        train = self.windows.train
        order = BatchOrder(len(train), recipe.batch_size, recipe.seed)
        if not order.steps_per_epoch:
            message = f"batch_size {recipe.batch_size} exceeds the {len(train)} training windows"
            raise InvalidSpec(message, (Problem(message, pointer="/training/batch_size"),))
        if problems := step_problems(spec, order.steps_per_epoch):
            whose = f"; {_left_out(self.windows)}" if self.windows.left_out else ""
            problems = tuple(replace(problem, message=problem.message + whose) for problem in problems)
            raise InvalidSpec(problems[0].message, problems)
        self.total_steps = recipe.epochs * order.steps_per_epoch
        self.model = build_forecaster(spec, train.values.shape[1], train.marks.shape[1]).to(device)
        self.masks = MaskSet(self.model.named_parameters())
        arithmetic = choose_arithmetic(spec, device)
        self.forward = ForwardPass(self.model, device, arithmetic)
        self.method = build_method(spec, self.masks, order.steps_per_epoch)
        self.masks.apply()
        self.optimizer = make_optimizer(self.model, recipe)
        pals = spec.method if isinstance(spec.method, PalsMethodSpec) else None
        self.deciding = spread_windows(self.windows.validation, pals.decision_windows if pals else 1, device)
        self.validating = all_windows(self.windows.validation, device)
        goal = goal_of(spec.method)
        self.best, self.stopping = BestEpoch(goal), EarlyStopping(recipe.patience, goal)
        self.best_checkpoint: Path | None = None  # the file of the best epoch so far, once it is written
        self.losses = LossBuffer(self._learning_rate_at)
        self.state = TrainingState(
            self.model,
            self.masks,
            self.method,
            self.optimizer,
            order,
            self.best,
            self.stopping,
            self.losses,
            device,
            arithmetic,
        )
        self.season = learn_season(self.windows)
        first = train.batch(torch.zeros(1, dtype=torch.long, device=device))
        self.checkpoints = EpochCheckpoints(
            output_dir,
            spec,
            self.windows.scaler,
            self.windows.known_future,
            self.season,
            series_ends(table, spec.data),
            dataset_sha256,
            table.frequency if spec.data.resample else None,
            count_flops(self.model, (first.x_enc, first.x_mark_enc, first.x_dec, first.x_mark_dec)),
        )
        self.states = StateFiles(
            output_dir,
            spec,
            table_sha256(_read_columns(table, spec.data)),
            surroundings_of(device, arithmetic, micro_batches),
            repeats(spec, device, micro_batches),
            state_interval_seconds,
        )

    def run(self, resume_from: Path | None) -> Iterator[TrainingEvent]:
        """Train, from the state file if there is one; see `Trainer.run`."""
        warnings: list[str] = []
        if resume_from is not None:
            warnings = self.states.resume(resume_from, self.state, self.checkpoints)
            self.best_checkpoint = self.checkpoints.path(self.best.epoch) if self.best.epoch else None
        yield self._started(resumed_step=None if resume_from is None else self.state.step)
        for warning in warnings:
            yield Message(level="warning", message=warning)
        if resume_from is None:
            yield from _notes(self.table_notes, self.windows, self.spec, self.state.order.steps_per_epoch)
        self.model.train()
        while self.state.step < self.total_steps and not self.stopping.is_due:
            yield from self._steps_of_epoch()
            yield from self._end_epoch()
        if not self.best.reached_target:
            goal = self.best.goal
            yield Message(
                level="warning",
                message=f"no epoch reached sparsity {goal.sparsity:g}; the best is that of lowest validation loss; "
                + goal.advice,
            )
        yield from self._measure_best()

    def _learning_rate_at(self, step: int) -> float:
        return learning_rate_at(step, self.spec.training, self.state.order.steps_per_epoch)

    def _started(self, resumed_step: int | None) -> Started:
        return Started(
            total_steps=self.total_steps,
            steps_per_epoch=self.state.order.steps_per_epoch,
            epochs=self.spec.training.epochs,
            device=str(self.device),
            threads=torch.get_num_threads(),
            precision=self.state.arithmetic.precision,
            products=self.state.arithmetic.products,
            compiled=self.state.arithmetic.compiled,
            total_parameters=self.masks.total_parameters,
            maskable_parameters=self.masks.maskable_parameters,
            sparsity=self.masks.sparsity,
            resumed_step=resumed_step,
            reproducible=self.states.reproducible,
        )

    def _steps_of_epoch(self) -> Iterator[TrainingEvent]:
        """Take the steps that are left of the epoch in progress."""
        state, masks, method, optimizer = self.state, self.masks, self.method, self.optimizer
        clip = self.spec.training.gradient_clip
        epoch = state.epoch + 1
        for indices in state.order.rest_of_epoch(state.steps_into_epoch, self.device):
            state.step += 1
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate_at(state.step)
            batch = self.windows.train.batch(indices)
            optimizer.zero_grad(set_to_none=True)
            self.losses.add(state.step, backpropagate(self.forward, batch, self.micro_batches))
            state.density_sum += 1 - masks.sparsity
            if clip is not None:
                clip_gradients(self.model, masks, clip)
            decision = method.decide(state.step, self._decision_loss)
            if decision is None:
                masks.apply_to_gradients()
            optimizer.step()
            if decision is not None:
                yield from self._progress(epoch)
                before = masks.now()
                change = method.update(decision)
                masks.apply(optimizer, before)
                state.moves[decision.move] += 1
                yield _mask_update(decision, change, epoch)
            elif self.losses.is_due:
                yield from self._progress(epoch)
            if self.save_states and self.states.is_due and state.steps_into_epoch:
                yield from self._progress(epoch)
                yield self.states.save(state, self.checkpoints)
        state.order.end_epoch()
        yield from self._progress(epoch)

    def _progress(self, epoch: int) -> Iterator[Progress]:
        if flushed := self.losses.flush():
            yield Progress(step=self.state.step, epoch=epoch, train_losses=flushed, sparsity=self.masks.sparsity)

    def _decision_loss(self) -> float:
        # A loss that diverged before says so first, with its own step.
        self.losses.check()
        return self._validation_loss(self.deciding)

    def _validation_loss(self, windows: torch.Tensor) -> float:
        loss = mean_squared_error(self.forward, self.windows.validation, windows)
        return require_finite(loss, self.state.step, self._learning_rate_at(self.state.step), "validation")

    def _end_epoch(self) -> Iterator[TrainingEvent]:
        """Validate the epoch that is done, and keep its checkpoint as long as it is the best or the last."""
        state, learning_rate = self.state, self._learning_rate_at(self.state.step)
        validation_loss = self._validation_loss(self.validating)
        summary = EpochSummary(
            epoch=state.epoch,
            step=state.step,
            train_loss=self.losses.end_epoch(),
            validation_loss=validation_loss,
            sparsity=self.masks.sparsity,
            moves=dict(state.moves),
        )
        state.epochs.append(summary)
        is_best = self.best.offer(summary.epoch, validation_loss, summary.sparsity)
        yield EpochEnd(
            epoch=summary.epoch,
            step=summary.step,
            train_loss=summary.train_loss,
            validation_loss=validation_loss,
            sparsity=summary.sparsity,
            learning_rate=learning_rate,
            masks_frozen=self.method.is_frozen(state.step),
            is_best=is_best,
        )
        path = self.checkpoints.save(self.model, state.packed_masks(), state.epochs)
        if is_best:
            self.best_checkpoint = path
        yield CheckpointSaved(
            step=summary.step,
            epoch=summary.epoch,
            path=str(path),
            is_best=is_best,
            is_last=True,
            sparsity=summary.sparsity,
            validation_loss=validation_loss,
        )
        self.checkpoints.keep({self.best.epoch, summary.epoch})
        self.stopping.offer(validation_loss, summary.sparsity)
        if self.save_states and self.states.is_due_after_epoch:
            yield self.states.save(state, self.checkpoints)

    def _measure_best(self) -> Iterator[TrainingEvent]:
        """Give the best checkpoint its calibration and its test errors."""
        epoch, checkpoints, windows = self.best.epoch, self.checkpoints, self.windows
        checkpoint = checkpoints.load(epoch)
        checkpoint.load_into(self.model)
        # As the checkpoint will forecast, whatever it was trained in.
        forecast = ForwardPass(self.model.eval(), self.device, Arithmetic())
        calibration = calibrate(forecast, windows.validation)
        measured = measure(forecast, origins_of_test(windows), self.season, calibration)
        step = checkpoint.header.step
        require_finite(measured.mse, step, self._learning_rate_at(step), "test")
        evaluation = measured.evaluation()
        size = checkpoints.add_results(epoch, checkpoint, evaluation.metrics, calibration)
        evaluation_path = checkpoints.save_evaluation(epoch, evaluation)
        result = self._result(checkpoint.header, evaluation.metrics, size)
        yield CheckpointSaved(
            step=result.step,
            epoch=result.epoch,
            path=str(checkpoints.path(epoch)),
            evaluation_path=str(evaluation_path),
            is_best=True,
            is_last=epoch == self.state.epoch,
            sparsity=result.sparsity,
            validation_loss=result.validation_loss,
            result=result,
        )
        self.states.remove()
        yield Finished(result=result, stopped_early=self.state.step < self.total_steps)

    def _result(self, header: CheckpointHeader, metrics: Metrics, size: int) -> Result:
        inactive = header.maskable_parameters - header.active_parameters
        return Result(
            metrics=metrics,
            validation_loss=header.validation_loss,
            epoch=header.epoch,
            step=header.step,
            sparsity=header.sparsity,
            share_of_all_parameters=inactive / header.total_parameters,
            reached_target=self.best.reached_target,
            active_parameters=header.active_parameters,
            maskable_parameters=header.maskable_parameters,
            total_parameters=header.total_parameters,
            flops_dense=header.flops_dense,
            flops_sparse=header.flops_sparse,
            average_density=self.state.density_sum / self.state.step,
            checkpoint_bytes=size,
            dense_bytes=sum(parameter.nbytes for parameter in self.model.parameters()),
        )


def _notes(table_notes: tuple[str, ...], windows: SplitWindows, spec: Spec, steps_per_epoch: int) -> Iterator[Message]:
    yield from (Message(level="warning", message=note) for note in table_notes)
    if note := note_of_missing(windows.treated, spec.data.missing):
        yield Message(message=note)
    if note := note_of_constants(windows.treated):
        yield Message(level="warning", message=note)
    if windows.left_out:
        note = (
            f"{_left_out(windows)}: an epoch has {steps_per_epoch} steps, which an update_interval that was left open "
            "does not know of"
        )
        yield Message(level="warning", message=note)
    if isinstance(spec.method, PalsMethodSpec):
        schedule = UpdateSchedule.of(spec.method, epochs=spec.training.epochs, steps_per_epoch=steps_per_epoch)
        if not schedule.updates:
            note = (
                f"update_interval {schedule.interval} leaves pals without an update, in an epoch of {steps_per_epoch} "
                "steps: the network stays dense"
            )
            yield Message(level="warning", message=note)


def _left_out(windows: SplitWindows) -> str:
    every = windows.left_out + len(windows.train)
    return f"{windows.left_out} of {every} training windows are left out, since nothing is known of their targets"


def _read_columns(table: Table, data: DataSpec) -> Table:
    return table if data.targets is None else table.select(data.targets, data.known_future)


def _mask_update(decision: Decision, change: MaskChange, epoch: int) -> MaskUpdate:
    return MaskUpdate(
        step=decision.step,
        epoch=epoch,
        move=decision.move,
        validation_loss=decision.loss,
        best_loss=decision.best.loss if decision.best else None,
        best_sparsity=decision.best.sparsity if decision.best else None,
        prune_rate=decision.prune_rate,
        sparsity_before=decision.sparsity,
        sparsity=change.sparsity,
        pruned=change.pruned,
        grown=change.grown,
    )
