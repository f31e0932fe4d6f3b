from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pals_core.data.table import Table
from pals_core.data.windows import SplitWindows, make_windows
from pals_core.spec import DataSpec
from pals_core.training.evaluation import all_windows, evaluate, spread_windows
from pals_core.training.forward import Arithmetic, ForwardPass

CPU = torch.device("cpu")


class Repeat(nn.Module):
    """Repeats the last value; in training mode it would say something else."""

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        assert not self.training
        return x_enc[:, -1:].expand(-1, 4, -1)


@pytest.fixture(scope="module")
def windows(series: Table) -> SplitWindows:
    return make_windows(series, DataSpec(input_len=12, label_len=6, horizon=4), CPU, torch.float32)


def test_every_window_counts_once(windows: SplitWindows) -> None:
    part = windows.train
    assert len(part) % 64
    squared, absolute = [], []
    for index in range(len(part)):
        window = part.batch(torch.tensor([index]))
        error = (window.x_enc[0, -1:] - window.target[0]).double().numpy()
        squared.append((error**2).mean(axis=0))
        absolute.append(np.abs(error).mean(axis=0))

    model = Repeat().train()
    errors = evaluate(ForwardPass(model, CPU, Arithmetic()), part, all_windows(part, CPU))

    assert model.training
    assert errors.squared == pytest.approx(np.mean(squared, axis=0), rel=1e-6)
    metrics = errors.metrics(windows.scaler)
    assert metrics.mse == pytest.approx(np.mean(squared), rel=1e-6)
    assert metrics.mae == pytest.approx(np.mean(absolute), rel=1e-6)
    assert metrics.original.mse == pytest.approx((np.mean(squared, axis=0) * windows.scaler.std**2).mean(), rel=1e-6)
    assert metrics.original.mae == pytest.approx((np.mean(absolute, axis=0) * windows.scaler.std).mean(), rel=1e-6)


def test_decision_windows_are_evenly_spaced_and_distinct(windows: SplitWindows) -> None:
    chosen = spread_windows(windows.train, 10, CPU)
    assert len(chosen) == 10
    assert chosen[0] == 0
    gaps = chosen.diff()
    assert int(gaps.max() - gaps.min()) <= 1
    assert int(gaps.min()) >= 1


def test_fewer_windows_than_asked_for_are_all_taken(windows: SplitWindows) -> None:
    assert spread_windows(windows.test, 10_000, CPU).tolist() == list(range(len(windows.test)))
