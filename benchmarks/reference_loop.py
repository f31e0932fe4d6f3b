"""The yardstick: PALS and dense training in plain PyTorch, doing what the published program does.

    python -m benchmarks.reference_loop folder/of/the/series --case illness --method pals --steps 60

A DataLoader over a Dataset that slices arrays window by window; Adam as it is constructed by default; the network of
`reference_network`; every loss read at once; the whole validation set in batches of 32 before every update, after the
masks are frozen as well; masks multiplied onto the weights after every step; two full sorts a tensor and update; at an
epoch's end the validation and the test set, and the network saved where it is the best. The batches, the learning
rate, the prune rate, the rule of a decision and the counts are those of pals_core. But for Adam's moments of inactive
weights, which the published program keeps, how dropout is drawn, and the windows that decide, both train the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.command import run_command
from benchmarks.part_times import PartTimes
from benchmarks.reference_masks import ReferenceMasks
from benchmarks.reference_network import reference_network
from benchmarks.speed_cases import CASES, schedule_of, shortened
from pals_core.data.frequency import calendar_feature_names
from pals_core.data.split import Part, split_rows
from pals_core.data.table import Table, read_table
from pals_core.data.windows import WindowSet, make_windows
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.decision import Best, decide, updated_best
from pals_core.spec import PalsMethodSpec, Spec
from pals_core.training.batch_order import BatchOrder
from pals_core.training.learning_rate import learning_rate_at

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class WindowDataset(Dataset[Sample]):
    """The windows of one part as slices of arrays: input, label and horizon, and the calendar features of both."""

    def __init__(self, windows: WindowSet, part: Part) -> None:
        self.lengths = windows.lengths
        rows = part.reaching_back(self.lengths.input_len)
        self.values = windows.values.double().cpu().numpy()[rows.start : rows.stop]
        self.marks = windows.marks.double().cpu().numpy()[rows.start : rows.stop]

    def __len__(self) -> int:
        return len(self.values) - self.lengths.input_len - self.lengths.horizon + 1

    def __getitem__(self, index: int) -> Sample:
        end = index + self.lengths.input_len
        seed, last = end - self.lengths.label_len, end + self.lengths.horizon
        return self.values[index:end], self.values[seed:last], self.marks[index:end], self.marks[seed:last]


class Batches(Sampler[list[int]]):
    """The batches of an epoch, drawn anew each time: of a seed those in which pals_core's trainer takes the windows."""

    def __init__(self, order: BatchOrder) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[int]]:
        return (indices.tolist() for indices in self.order.rest_of_epoch(0, torch.device("cpu")))

    def __len__(self) -> int:
        return self.order.steps_per_epoch


@dataclass
class Trained:
    """What a run did: losses of the steps, sparsity after each update, and how long its parts took."""

    losses: list[float] = field(default_factory=list)
    decision_losses: list[float] = field(default_factory=list)
    sparsities: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    test_losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class ReferenceLoop:
    """Trains a resolved spec with method `pals` or `dense`, fp32, without early stopping."""

    def __init__(self, spec: Spec, table: Table, device: str = "cpu") -> None:
        if spec.method.name not in ("pals", "dense"):
            raise ValueError(f"the reference loop knows pals and dense, not {spec.method.name}")
        self.spec, self.device = spec, torch.device(device)
        torch.manual_seed(spec.training.seed)
        windows = make_windows(table, spec.data)
        features = len(calendar_feature_names(windows.frequency))
        ours = build_forecaster(spec, len(windows.columns), features).to(self.device)
        self.network: nn.Module = reference_network(spec, ours, len(windows.columns), features)
        self.masks = ReferenceMasks(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=spec.training.learning_rate)
        self.times = PartTimes(self.device)
        batch = spec.training.batch_size
        parts = split_rows(len(table.times), spec.data.split)
        train, validation, test = (
            WindowDataset(windows_of, part)
            for windows_of, part in (
                (windows.train, parts.train),
                (windows.validation, parts.validation),
                (windows.test, parts.test),
            )
        )
        batches = Batches(BatchOrder(len(train), batch, spec.training.seed))
        self.train = DataLoader(train, batch_sampler=batches)
        self.validation = DataLoader(validation, batch_size=batch)
        self.test = DataLoader(test, batch_size=batch)

    def run(self, folder: Path) -> Trained:
        """Train every epoch; checkpoints go into `folder`."""
        spec, times, trained = self.spec, self.times, Trained()
        method = spec.method if isinstance(spec.method, PalsMethodSpec) else None
        schedule = schedule_of(spec, len(self.train))
        best: Best | None = None
        lowest = float("inf")
        step = 0
        began = times.now()
        self.network.train()
        for epoch in range(1, spec.training.epochs + 1):
            for inputs in self._timed_batches(self.train):
                step += 1
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, spec.training, len(self.train))
                with times.timed("zero gradients"):
                    self.optimizer.zero_grad()
                with times.timed("forward"):
                    forecast = self.network(*inputs[:4])
                loss = nn.functional.mse_loss(forecast, inputs[4])
                trained.losses.append(loss.item())
                with times.timed("backward"):
                    loss.backward()  # type: ignore[no-untyped-call]
                move = None
                if method is not None and schedule is not None and step % schedule.interval == 0:
                    with times.timed("decision"):
                        measured = self.evaluate(self.validation)
                        sparsity = self.masks.sparsity
                        move = decide(measured, sparsity, best, method)
                        best = updated_best(measured, sparsity, best)
                    trained.decision_losses.append(measured)
                with times.timed("optimiser"):
                    self.optimizer.step()
                if method is None or schedule is None:
                    continue
                with times.timed("masks"):
                    self.masks.multiply()
                if move is not None and schedule.is_update(step):
                    with times.timed("mask update"):
                        self.masks.update(move, schedule.rate_at(step), method.prune_rate_factor)
                    with times.timed("masks"):
                        self.masks.multiply()
                    trained.sparsities.append(self.masks.sparsity)
            with times.timed("evaluation"):
                trained.validation_losses.append(self.evaluate(self.validation))
            with times.timed("test evaluation"):
                trained.test_losses.append(self.evaluate(self.test))
            if trained.validation_losses[-1] < lowest:
                lowest = trained.validation_losses[-1]
                with times.timed("checkpoint"):
                    torch.save((self.network.state_dict(), self.masks.masks), folder / f"epoch-{epoch}.pt")
        trained.seconds = times.now() - began
        return trained

    @torch.no_grad()
    def evaluate(self, loader: DataLoader[Sample]) -> float:
        """Return the mean squared error over every window of a part, in batches."""
        self.network.eval()
        total = 0.0
        for *inputs, target in map(self._inputs, loader):
            forecast = self.network(*inputs).detach().cpu()
            total += nn.functional.mse_loss(forecast, target.detach().cpu()).item() * len(target)
        self.network.train()
        windows: WindowDataset = loader.dataset  # type: ignore[assignment]
        return total / len(windows)

    def _timed_batches(self, loader: Iterable[list[Tensor]]) -> Iterator[Inputs]:
        batches = iter(loader)
        while True:
            began = self.times.now()
            try:
                inputs = self._inputs(next(batches))
            except StopIteration:
                return
            self.times.add("data", self.times.now() - began)
            yield inputs

    def _inputs(self, batch: list[Tensor]) -> Inputs:
        horizon = self.spec.data.horizon
        x_enc, known, x_mark_enc, x_mark_dec = (part.float().to(self.device) for part in batch)
        target = known[:, -horizon:, :]
        x_dec = torch.cat([known[:, :-horizon, :], torch.zeros_like(target)], dim=1)
        return x_enc, x_mark_enc, x_dec, x_mark_dec, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--case", choices=list(CASES), default="illness")
    parser.add_argument("--method", choices=["pals", "dense"], default="pals")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    table = read_table(arguments.series / case.file)
    spec = shortened(case.spec(table, arguments.method, {"seed": arguments.seed}), table, arguments.steps)
    loop = ReferenceLoop(spec, table, arguments.device)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trained = loop.run(Path(folder))
    print(f"{case.name}, {arguments.method}: {len(trained.losses)} steps in {time.perf_counter() - began:.1f} s")
    for part, calls in loop.times.seconds.items():
        print(f"  {part:16} {len(calls):5} calls {sum(calls):9.3f} s, median {np.median(calls):.4f} s")
    print(json.dumps({"sparsities": trained.sparsities, "validation_losses": trained.validation_losses}))


if __name__ == "__main__":
    run_command(main)
