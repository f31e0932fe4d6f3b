"""The training loop: one forecaster, one table, events as they happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from pals_core.checkpoint.header import CheckpointHeader, Metrics
from pals_core.data.frequency import calendar_feature_names
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.errors import InvalidSpec, Problem
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.registry import build_method
from pals_core.spec import DeviceChoice, PalsMethodSpec, Spec
from pals_core.training.device import choose_device, with_own_random_state, with_readable_failures
from pals_core.training.epoch_checkpoints import EpochCheckpoints, series_end
from pals_core.training.evaluation import all_windows, evaluate, spread_windows
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
from pals_core.training.progress import LossBuffer, require_finite
from pals_core.training.selection import BestEpoch, EarlyStopping, goal_of


class Trainer:
    """Trains one forecaster. Knows nothing of jobs, queues or HTTP.

    `spec` is resolved. Checkpoints are written into `output_dir`, which must exist. `device` (`auto`, `cpu` or `cuda`)
    overrides the spec's; `threads` sets torch's CPU threads for the process. On the CPU, the same spec, table and
    thread count give the same files, bit for bit.
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
    ) -> None:
        self.spec = spec
        self.table = table
        self.output_dir = output_dir
        self.device = DeviceChoice(device) if device is not None else spec.training.device
        self.threads = threads
        self.dataset_sha256 = dataset_sha256

    def run(self) -> Iterator[TrainingEvent]:
        """Train, yielding a `Started` first and a `Finished` last; stopping the iteration stops the training.

        A checkpoint file that is neither best nor last is removed once the iteration goes on after the next one's
        event. Raises InvalidSpec or InvalidTable before the first event, and TrainingFailed when the loss diverges,
        memory runs out or the device is not there.
        """
        device = choose_device(self.device)
        yield from with_own_random_state(with_readable_failures(self._train(device)), device)

    def _train(self, device: torch.device) -> Iterator[TrainingEvent]:
        recipe = self.spec.training
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.manual_seed(recipe.seed)
        windows = make_windows(self.table, self.spec.data, device, torch.float32)
        steps_per_epoch = len(windows.train) // recipe.batch_size
        if not steps_per_epoch:
            message = f"batch_size {recipe.batch_size} exceeds the {len(windows.train)} training windows"
            raise InvalidSpec(message, (Problem(message, pointer="/training/batch_size"),))
        features = len(calendar_feature_names(windows.frequency))
        model = build_forecaster(self.spec, len(windows.columns), features).to(device)
        masks = MaskSet(model.named_parameters())
        method = build_method(self.spec, masks, steps_per_epoch)
        masks.apply()
        # The fused step knows no complex weights, which Fourier blocks have.
        fused = not any(parameter.is_complex() for parameter in model.parameters())
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, fused=fused)
        shuffling = torch.Generator().manual_seed(recipe.seed)

        pals = self.spec.method if isinstance(self.spec.method, PalsMethodSpec) else None
        deciding = spread_windows(windows.validation, pals.decision_windows if pals else 1, device)
        validation, test = all_windows(windows.validation, device), all_windows(windows.test, device)
        goal = goal_of(self.spec.method)
        best, stopping = BestEpoch(goal), EarlyStopping(recipe.patience, goal)
        checkpoints = EpochCheckpoints(
            self.output_dir,
            self.spec,
            windows.scaler,
            series_end(self.table, self.spec.data),
            self.dataset_sha256,
        )
        losses = LossBuffer()
        step = epoch = 0
        density_sum = 0.0

        yield Started(
            total_steps=recipe.epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
            device=str(device),
            threads=torch.get_num_threads(),
            total_parameters=masks.total_parameters,
            maskable_parameters=masks.maskable_parameters,
            sparsity=masks.sparsity,
        )

        def progress() -> Iterator[Progress]:
            if flushed := losses.flush():
                yield Progress(step=step, epoch=epoch, train_losses=flushed, sparsity=masks.sparsity)

        def decision_loss() -> float:
            loss = evaluate(model, windows.validation, deciding).mse
            return require_finite(loss, step, "validation")

        model.train()
        for epoch in range(1, recipe.epochs + 1):
            learning_rate = learning_rate_at(epoch, recipe.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            order = torch.randperm(len(windows.train), generator=shuffling).to(device)
            for indices in torch.split(order[: steps_per_epoch * recipe.batch_size], recipe.batch_size):
                step += 1
                batch = windows.train.batch(indices)
                optimizer.zero_grad(set_to_none=True)
                forecast = model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
                loss = nn.functional.mse_loss(forecast, batch.target)
                loss.backward()  # type: ignore[no-untyped-call]
                losses.add(step, loss)
                density_sum += 1 - masks.sparsity
                decision = method.decide(step, decision_loss)
                optimizer.step()
                masks.apply(optimizer)
                if decision is not None:
                    yield from progress()
                    change = method.update(decision)
                    masks.apply(optimizer)
                    yield MaskUpdate(
                        step=step,
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
                elif losses.is_due:
                    yield from progress()

            yield from progress()
            validation_loss = evaluate(model, windows.validation, validation).mse
            require_finite(validation_loss, step, "validation")
            is_best = best.offer(epoch, validation_loss, masks.sparsity)
            yield EpochEnd(
                epoch=epoch,
                step=step,
                train_loss=losses.end_epoch(),
                validation_loss=validation_loss,
                sparsity=masks.sparsity,
                learning_rate=learning_rate,
                masks_frozen=method.is_frozen(step),
                is_best=is_best,
            )
            path = checkpoints.save(model, masks, epoch=epoch, step=step, validation_loss=validation_loss)
            yield CheckpointSaved(
                step=step,
                epoch=epoch,
                path=str(path),
                is_best=is_best,
                is_last=True,
                sparsity=masks.sparsity,
                validation_loss=validation_loss,
            )
            checkpoints.keep({best.epoch, epoch})
            stopping.offer(validation_loss, masks.sparsity)
            if stopping.is_due:
                break

        if not best.reached_target:
            yield Message(
                level="warning",
                message=f"no epoch reached sparsity {goal.sparsity:g}; the best is that of lowest validation loss; "
                + goal.advice,
            )
        checkpoint = checkpoints.load(best.epoch)
        checkpoint.load_into(model)
        errors = evaluate(model, windows.test, test)
        require_finite(errors.mse, checkpoint.header.step, "test")
        metrics = errors.metrics(windows.scaler)
        size = checkpoints.add_metrics(best.epoch, checkpoint, metrics)
        dense_bytes = sum(parameter.nbytes for parameter in model.parameters())
        result = _result(checkpoint.header, metrics, best.reached_target, density_sum / step, size, dense_bytes)
        yield CheckpointSaved(
            step=result.step,
            epoch=result.epoch,
            path=str(checkpoints.path(best.epoch)),
            is_best=True,
            is_last=best.epoch == epoch,
            sparsity=result.sparsity,
            validation_loss=result.validation_loss,
            result=result,
        )
        yield Finished(result=result, stopped_early=epoch < recipe.epochs)


def learning_rate_at(epoch: int, initial: float) -> float:
    """Return the learning rate of an epoch, counted from 1: halved every epoch, from the third on.

    The programs of this family (Informer, Autoformer, NSTransformer and PALS's own) set lr·½^(e−1) after epoch e, so
    that the second epoch still trains with the initial rate.
    """
    return float(initial * 0.5 ** max(0, epoch - 2))


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
        average_density=average_density,
        checkpoint_bytes=size,
        dense_bytes=dense_bytes,
    )
