from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import SplitWindows, make_windows, windows_at_once
from pals_core.spec import DataSpec, SeriesMode
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.forward import ForwardPass
from pals_core.training.validation import all_windows, mean_squared_error, spread_windows

CPU = torch.device("cpu")


class Repeat(nn.Module):
    """Repeats the last value; in training mode it would say something else."""

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        assert not self.training
        return x_enc[:, -1:].expand(-1, 4, -1)


REPEAT = ForwardPass(Repeat(), CPU, Arithmetic())


@pytest.fixture(scope="module")
def windows(series: Table) -> SplitWindows:
    return make_windows(series, DataSpec(input_len=12, label_len=6, horizon=4), CPU, torch.float32)


def test_every_window_counts_once(windows: SplitWindows) -> None:
    part = windows.train
    assert len(part) % 64
    squared = []
    for index in range(len(part)):
        window = part.batch(torch.tensor([index]))
        squared.append(((window.x_enc[0, -1:] - window.target[0]).double().numpy() ** 2).mean())

    model = Repeat().train()
    loss = mean_squared_error(ForwardPass(model, CPU, Arithmetic()), part, all_windows(part, CPU))

    assert model.training
    assert loss == pytest.approx(np.mean(squared), rel=1e-6)


def test_decision_windows_are_evenly_spaced_and_distinct(windows: SplitWindows) -> None:
    chosen = spread_windows(windows.train, 10, CPU)
    assert len(chosen) == 10
    assert chosen[0] == 0
    gaps = chosen.diff()
    assert int(gaps.max() - gaps.min()) <= 1
    assert int(gaps.min()) >= 1


def test_fewer_windows_than_asked_for_are_all_taken(windows: SplitWindows) -> None:
    assert spread_windows(windows.test, 10_000, CPU).tolist() == list(range(len(windows.test)))


def ragged(series: Table) -> Table:
    """The three columns as series of 260, 200 and 160 steps."""
    spans = (Part(0, 260), Part(30, 230), Part(100, 260))
    values = series.values.copy()
    for place, span in enumerate(spans):
        values[: span.start, place] = values[span.stop :, place] = np.nan
    return Table(series.times, values, series.columns, series.frequency, spans)


def test_every_window_of_every_pooled_series_counts_once(series: Table) -> None:
    table = ragged(series)
    spec = {"input_len": 12, "label_len": 6, "horizon": 4}
    pooled = make_windows(table, DataSpec.model_validate(spec | {"series": "pooled"})).test
    alone = [make_windows(table.select([name]), DataSpec.model_validate(spec)).test for name in table.columns]

    sizes = [len(one) for one in alone]
    assert len(set(sizes)) == 3
    each = [mean_squared_error(REPEAT, one, all_windows(one, CPU)) for one in alone]
    assert mean_squared_error(REPEAT, pooled, all_windows(pooled, CPU)) == pytest.approx(
        np.average(each, weights=sizes)
    )


def test_decision_windows_are_spread_over_all_pooled_series(series: Table) -> None:
    validation = make_windows(
        ragged(series), DataSpec(series=SeriesMode.POOLED, input_len=12, label_len=6, horizon=4)
    ).validation
    chosen = spread_windows(validation, 20, CPU)
    assert validation.series is not None
    assert set(validation.series[chosen].tolist()) == {0, 1, 2}


def test_known_targets_alone_count_and_each_counts_once(series: Table) -> None:
    table = Table(series.times, series.values.copy(), series.columns, series.frequency)
    gaps = np.random.default_rng(2).random(table.values.shape) < 0.3
    table.values[gaps] = np.nan
    masked = DataSpec.model_validate({"input_len": 12, "horizon": 4, "label_len": 6, "missing": "mask"})
    windows = make_windows(table, masked).test
    loss = mean_squared_error(REPEAT, windows, all_windows(windows, CPU))

    batch = windows.batch(torch.arange(len(windows)))
    assert batch.known is not None
    error = (batch.x_enc[:, -1:] - batch.target)[batch.known].double()
    assert loss == pytest.approx(float(error.square().mean()))


@pytest.mark.parametrize(
    ("batch_size", "micro_batches", "most"), [(32, 1, 64), (1000, 1, 64), (32, 2, 32), (2, 1, 4), (1, 1, 2), (2, 4, 1)]
)
def test_no_more_windows_are_forecast_at_once_than_a_small_batch_has_room_for(
    series: Table, batch_size: int, micro_batches: int, most: int
) -> None:
    data = DataSpec(input_len=12, label_len=6, horizon=4)
    part = make_windows(series, data, at_once=windows_at_once(batch_size, micro_batches)).train
    sizes: list[int] = []

    class Watched(Repeat):
        def forward(self, x_enc: Tensor, *rest: Tensor) -> Tensor:
            sizes.append(len(x_enc))
            return super().forward(x_enc, *rest)

    loss = mean_squared_error(ForwardPass(Watched(), CPU, Arithmetic()), part, all_windows(part, CPU))
    assert (len(sizes), sum(sizes)) == (-(-len(part) // most), len(part))
    assert max(sizes) <= most
    whole = make_windows(series, data).train
    assert loss == pytest.approx(mean_squared_error(REPEAT, whole, all_windows(whole, CPU)), rel=1e-6)
