"""The training loop: one forecaster, one table, events as they happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from pals_core.checkpoint.header import CheckpointHeader, EpochSummary, Metrics
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.errors import InvalidSpec, Problem
from pals_core.evaluation.conformal import calibrate
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import learn_season
from pals_core.flops import count_flops
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.registry import build_method
from pals_core.spec import DeviceChoice, PalsMethodSpec, Spec
from pals_core.training.batch_order import BatchOrder
from pals_core.training.device import choose_device, with_own_torch_state, with_readable_failures
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
from pals_core.training.forward import Arithmetic, ForwardPass, choose_arithmetic
from pals_core.training.gradient import backpropagate
from pals_core.training.learning_rate import learning_rate_at
from pals_core.training.optimization import clip_gradients, make_optimizer
from pals_core.training.progress import LossBuffer, require_finite
from pals_core.training.selection import BestEpoch, EarlyStopping, goal_of
from pals_core.training.state import TrainingState
from pals_core.training.state_files import StateFiles, table_sha256, threads_of
from pals_core.training.surroundings import repeats, surroundings_of
from pals_core.training.validation import all_windows, mean_squared_error, spread_windows


class Trainer:
    """Trains one forecaster. Knows nothing of jobs, queues or HTTP.

    `spec` is resolved. Checkpoints are written into `output_dir`, which must exist. `device` (`auto`, `cpu` or `cuda`)
    overrides the spec's; `threads` sets torch's CPU threads for the process. On the CPU, the same spec, table and
    thread count give the same files, bit for bit.

    With `save_states` a state file is written at every epoch's end and, within an epoch, after the first step at which
    `state_interval_seconds` have passed since the last one. `resume_from` goes on from such a file, which is all it
    needs, to the same checkpoint files as if there had been no interruption; without `threads` it takes that file's.

    Each batch is computed in `micro_batches` parts, one after the other: less memory, nearly the same training.
    """

    def __init__(
        self,
        spec: Spec,
        table: Table,
        output_dir: Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        dataset_sha256: str | None = None,
        resume_from: Path | None = None,
        state_interval_seconds: float | None = None,
        save_states: bool = True,
        micro_batches: int = 1,
    ) -> None:
        self.spec = spec
        self.table = table
        self.output_dir = output_dir
        self.device = DeviceChoice(device) if device is not None else spec.training.device
        self.threads = threads
        self.dataset_sha256 = dataset_sha256
        self.resume_from = resume_from
        self.state_interval_seconds = state_interval_seconds
        self.save_states = save_states
        self.micro_batches = micro_batches
        self._states: StateFiles | None = None

    def request_state(self) -> None:
        """Ask, while an event is being looked at, for a state after the step in progress; for `save_states` alone."""
        if self._states is not None:
            self._states.asked_for = True

    def run(self) -> Iterator[TrainingEvent]:
        """Train, yielding a `Started` first and a `Finished` last; stopping the iteration stops the training.

        A checkpoint file that is neither best nor last is removed once the iteration goes on after the next one's
        event. The two newest state files are kept until the training has finished. Raises InvalidSpec, InvalidTable or
        InvalidCheckpoint (for `resume_from`) before the first event, and TrainingFailed when the loss diverges, memory
        runs out or the device is not there.
        """
        device = choose_device(self.device)
        deterministic = self.spec.training.deterministic
        yield from with_own_torch_state(with_readable_failures(self._train(device)), device, deterministic)

    def _train(self, device: torch.device) -> Iterator[TrainingEvent]:
        recipe = self.spec.training
        if self.spec.data.series is None:
            message = "series is not set; resolve the spec against its table first"
            raise InvalidSpec(message, (Problem(message, pointer="/data/series"),))
        threads = self.threads
        if threads is None and self.resume_from is not None:
            threads = threads_of(self.resume_from)
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(recipe.seed)
        windows = make_windows(self.table, self.spec.data, device, torch.float32)
        order = BatchOrder(len(windows.train), recipe.batch_size, recipe.seed)
        steps_per_epoch = order.steps_per_epoch
        if not steps_per_epoch:
            message = f"batch_size {recipe.batch_size} exceeds the {len(windows.train)} training windows"
            raise InvalidSpec(message, (Problem(message, pointer="/training/batch_size"),))
        total_steps = recipe.epochs * steps_per_epoch
        columns, features = windows.train.values.shape[1], windows.train.marks.shape[1]
        model = build_forecaster(self.spec, columns, features).to(device)
        masks = MaskSet(model.named_parameters())
        arithmetic = choose_arithmetic(self.spec, device)
        forward = ForwardPass(model, device, arithmetic)
        method = build_method(self.spec, masks, steps_per_epoch)
        masks.apply()
        optimizer = make_optimizer(model, recipe)
        first = windows.train.batch(torch.zeros(1, dtype=torch.long, device=device))
        flops = count_flops(model, (first.x_enc, first.x_mark_enc, first.x_dec, first.x_mark_dec))

        pals = self.spec.method if isinstance(self.spec.method, PalsMethodSpec) else None
        deciding = spread_windows(windows.validation, pals.decision_windows if pals else 1, device)
        validation = all_windows(windows.validation, device)
        goal = goal_of(self.spec.method)

        def rate_at(step: int) -> float:
            return learning_rate_at(step, recipe, steps_per_epoch)

        best, stopping, losses = BestEpoch(goal), EarlyStopping(recipe.patience, goal), LossBuffer(rate_at)
        state = TrainingState(model, masks, method, optimizer, order, best, stopping, losses, device, arithmetic)
        season = learn_season(windows)
        checkpoints = EpochCheckpoints(
            self.output_dir,
            self.spec,
            windows.scaler,
            windows.known_future,
            season,
            series_ends(self.table, self.spec.data),
            self.dataset_sha256,
            self.table.frequency if self.spec.data.resample else None,
            flops,
        )
        states = self._states = StateFiles(
            self.output_dir,
            self.spec,
            self._table_sha256(),
            surroundings_of(device, arithmetic, self.micro_batches),
            repeats(self.spec, device, self.micro_batches),
            self.state_interval_seconds,
        )
        warnings: list[str] = []
        if self.resume_from is not None:
            warnings = states.resume(self.resume_from, state, checkpoints)

        yield Started(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
            device=str(device),
            threads=torch.get_num_threads(),
            precision=arithmetic.precision,
            compiled=arithmetic.compiled,
            total_parameters=masks.total_parameters,
            maskable_parameters=masks.maskable_parameters,
            sparsity=masks.sparsity,
            resumed_step=state.step if self.resume_from is not None else None,
            reproducible=states.reproducible,
        )
        for warning in warnings:
            yield Message(level="warning", message=warning)

        def progress() -> Iterator[Progress]:
            if flushed := losses.flush():
                yield Progress(step=state.step, epoch=epoch, train_losses=flushed, sparsity=masks.sparsity)

        def decision_loss() -> float:
            loss = mean_squared_error(forward, windows.validation, deciding)
            return require_finite(loss, state.step, rate_at(state.step), "validation")

        model.train()
        while state.step < total_steps and not stopping.is_due:
            epoch = state.epoch + 1
            for indices in order.rest_of_epoch(state.steps_into_epoch, device):
                state.step += 1
                learning_rate = rate_at(state.step)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                batch = windows.train.batch(indices)
                optimizer.zero_grad(set_to_none=True)
                losses.add(state.step, backpropagate(forward, batch, self.micro_batches))
                state.density_sum += 1 - masks.sparsity
                if recipe.gradient_clip is not None:
                    clip_gradients(model, masks, recipe.gradient_clip)
                decision = method.decide(state.step, decision_loss)
                if decision is None:
                    masks.apply_to_gradients()
                optimizer.step()
                if decision is not None:
                    masks.apply(optimizer)
                    yield from progress()
                    change = method.update(decision)
                    masks.apply(optimizer)
                    state.moves[decision.move] += 1
                    yield _mask_update(decision, change, epoch)
                elif losses.is_due:
                    yield from progress()
                if self.save_states and states.is_due and state.steps_into_epoch:
                    yield from progress()
                    yield states.save(state, checkpoints)

            order.end_epoch()
            yield from progress()
            validation_loss = mean_squared_error(forward, windows.validation, validation)
            require_finite(validation_loss, state.step, learning_rate, "validation")
            state.epochs.append(
                EpochSummary(
                    epoch=epoch,
                    step=state.step,
                    train_loss=losses.end_epoch(),
                    validation_loss=validation_loss,
                    sparsity=masks.sparsity,
                    moves=dict(state.moves),
                )
            )
            is_best = best.offer(epoch, validation_loss, masks.sparsity)
            yield EpochEnd(
                epoch=epoch,
                step=state.step,
                train_loss=state.epochs[-1].train_loss,
                validation_loss=validation_loss,
                sparsity=masks.sparsity,
                learning_rate=learning_rate,
                masks_frozen=method.is_frozen(state.step),
                is_best=is_best,
            )
            path = checkpoints.save(model, masks, state.epochs)
            yield CheckpointSaved(
                step=state.step,
                epoch=epoch,
                path=str(path),
                is_best=is_best,
                is_last=True,
                sparsity=masks.sparsity,
                validation_loss=validation_loss,
            )
            checkpoints.keep({best.epoch, epoch})
            stopping.offer(validation_loss, masks.sparsity)
            if self.save_states:
                yield states.save(state, checkpoints)

        if not best.reached_target:
            yield Message(
                level="warning",
                message=f"no epoch reached sparsity {goal.sparsity:g}; the best is that of lowest validation loss; "
                + goal.advice,
            )
        checkpoint = checkpoints.load(best.epoch)
        checkpoint.load_into(model)
        # As the checkpoint will forecast, whatever it was trained in.
        forecast = ForwardPass(model.eval(), device, Arithmetic())
        calibration = calibrate(forecast, windows.validation)
        measured = measure(forecast, origins_of_test(windows), season, calibration)
        require_finite(measured.mse, checkpoint.header.step, rate_at(checkpoint.header.step), "test")
        evaluation = measured.evaluation()
        metrics = evaluation.metrics
        size = checkpoints.add_results(best.epoch, checkpoint, metrics, calibration)
        evaluation_path = checkpoints.save_evaluation(best.epoch, evaluation)
        dense_bytes = sum(parameter.nbytes for parameter in model.parameters())
        density = state.density_sum / state.step
        result = _result(checkpoint.header, metrics, best.reached_target, density, size, dense_bytes)
        yield CheckpointSaved(
            step=result.step,
            epoch=result.epoch,
            path=str(checkpoints.path(best.epoch)),
            evaluation_path=str(evaluation_path),
            is_best=True,
            is_last=best.epoch == state.epoch,
            sparsity=result.sparsity,
            validation_loss=result.validation_loss,
            result=result,
        )
        states.remove()
        yield Finished(result=result, stopped_early=state.step < total_steps)

    def _table_sha256(self) -> str:
        data = self.spec.data
        return table_sha256(self.table if data.targets is None else self.table.select(data.targets, data.known_future))


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


def _result(
    header: CheckpointHeader,
    metrics: Metrics,
    reached_target: bool,
    average_density: float,
    size: int,
    dense_bytes: int,
) -> Result:
    inactive = header.maskable_parameters - header.active_parameters
    return Result(
        metrics=metrics,
        validation_loss=header.validation_loss,
        epoch=header.epoch,
        step=header.step,
        sparsity=header.sparsity,
        share_of_all_parameters=inactive / header.total_parameters,
        reached_target=reached_target,
        active_parameters=header.active_parameters,
        maskable_parameters=header.maskable_parameters,
        total_parameters=header.total_parameters,
        flops_dense=header.flops_dense,
        flops_sparse=header.flops_sparse,
        average_density=average_density,
        checkpoint_bytes=size,
        dense_bytes=dense_bytes,
    )
