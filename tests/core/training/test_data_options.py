"""Known-future columns, pooled series, masked values and resampling through a whole training.

Each is stopped and resumed to the same bytes, and its checkpoint forecasts as the network did.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.audit import profile_of
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.errors import InvalidCheckpoint, InvalidSpec, InvalidTable
from pals_core.feasibility import plan, resolve
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import Spec
from pals_core.training.events import CheckpointSaved, Finished, Started, StateSaved
from pals_core.training.train import train
from pals_core.training.trainer import Trainer
from tests.core.training.option_tables import NSTRANSFORMER, gappy, hourly, long, wide

OPTIONS: dict[str, tuple[Table, dict[str, Any], dict[str, Any]]] = {
    "known_future": (wide(), {"known_future": ["sun"]}, NSTRANSFORMER),
    "pooled": (long(), {}, NSTRANSFORMER),
    "pooled with known_future": (
        wide(),
        {"series": "pooled", "known_future": ["sun"]},
        NSTRANSFORMER,
    ),
    "mask": (gappy(), {"missing": "mask", "known_future": ["sun"]}, NSTRANSFORMER),
    "pooled and masked": (gappy(), {"missing": "mask", "series": "pooled"}, {"name": "dlinear"}),
    "resample": (hourly(), {"resample": {"frequency": "D", "aggregation": "sum"}}, {"name": "dlinear"}),
}


def spec_of(name: str) -> tuple[Spec, Table]:
    table, data, model = OPTIONS[name]
    fields = {
        "data": {"input_len": 12, "label_len": 6, "horizon": 4, **data},
        "model": model,
        "method": {"name": "pals", "update_interval": 2},
        "training": {"epochs": 2, "learning_rate": 0.01, "device": "cpu", "batch_size": 16},
    }
    return resolve(Spec.model_validate(fields), profile_of(table)), table


@pytest.mark.parametrize("name", OPTIONS)
def test_stopped_and_resumed_it_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    spec, table = spec_of(name)
    straight, first, second = (tmp_path / part for part in ("straight", "first", "second"))
    for folder in (straight, first, second):
        folder.mkdir()
    events = list(Trainer(spec, table, straight).run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    started = events[0]
    assert isinstance(started, Started)
    if name in ("known_future", "pooled", "resample"):
        assert started.steps_per_epoch == plan(spec, profile_of(table)).steps_per_epoch

    states: list[Path] = []
    for event in Trainer(spec, table, first, state_interval_seconds=0).run():
        if isinstance(event, StateSaved):
            states.append(Path(event.path))
        if len(states) == 3:
            break
    resumed = list(Trainer(spec, table, second, resume_from=states[-1]).run())
    assert resumed[-1] == finished
    assert {path.name: path.read_bytes() for path in second.iterdir()} == {
        path.name: path.read_bytes() for path in straight.iterdir()
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_a_reloaded_checkpoint_forecasts_as_the_network_does(name: str, tmp_path: Path) -> None:
    spec, table = spec_of(name)
    *_, saved, _ = Trainer(spec, table, tmp_path).run()
    assert isinstance(saved, CheckpointSaved)
    checkpoint = read_checkpoint(Path(saved.path))
    windows = make_windows(table, spec.data)
    batch = windows.test.batch(torch.arange(len(windows.test)))
    with torch.no_grad():
        said = checkpoint.build()(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec).double().numpy()
    forecaster = load_forecaster(saved.path)
    assert forecaster.header == checkpoint.header
    assert forecaster.header.frequency == ("D" if name == "resample" else table.frequency)

    known = list(spec.data.known_future)
    series = windows.test.series
    for place, column in enumerate(windows.columns):
        indices = torch.arange(len(windows.test)) if series is None else torch.nonzero(series == place).flatten()
        last = int(indices[-1])
        given = table if series is None else table.select([column], known)
        stop = len(given.times) - (4 if name != "resample" else 4 * 3)
        before, after = given.between(Part(0, stop)), given.between(Part(stop, len(given.times)))
        forecast = forecaster.forecast(before, after.select(known) if known else None)
        own = forecast.values[:, forecast.columns.index(column)]
        where = place if series is None else 0
        expected = said[last, :, where] * windows.scaler.std[place] + windows.scaler.mean[place]
        assert own == pytest.approx(expected, rel=1e-5), column


def test_a_column_that_follows_its_known_future_is_forecast_from_it(tmp_path: Path) -> None:
    spec, table = spec_of("known_future")
    recipe = spec.training.model_copy(update={"epochs": 12, "patience": 12})
    with_sun = train(spec.model_copy(update={"training": recipe}), table, tmp_path / "with").result.metrics
    blind = spec.data.model_copy(update={"known_future": ()})
    without = train(spec.model_copy(update={"training": recipe, "data": blind}), table, tmp_path / "without").result
    assert with_sun.mse < 0.9 * without.metrics.mse


def test_another_range_of_a_series_is_another_table(tmp_path: Path) -> None:
    spec, table = spec_of("pooled")
    state = next(event for event in Trainer(spec, table, tmp_path).run() if isinstance(event, StateSaved))
    other = Table(table.times, table.values, table.columns, "D", (Part(1, 200), *table.spans[1:]))
    with pytest.raises(InvalidCheckpoint, match="another table"):
        list(Trainer(spec, other, tmp_path, resume_from=Path(state.path)).run())


def test_a_long_frame_is_trained_pooled_and_a_wide_one_joint(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=80, freq="D")
    frames = [
        pd.DataFrame({"unique_id": name, "ds": times[start:], "y": np.arange(80.0)[start:] % 7})
        for name, start in (("x", 0), ("y", 20))
    ]
    spec = {
        "data": {"horizon": 2, "input_len": 6},
        "model": "nlinear",
        "method": "dense",
        "training": {"epochs": 1, "batch_size": 8},
    }
    trained = train(spec, pd.concat(frames), tmp_path / "long")
    header = load_forecaster(trained.path).header
    assert (header.spec.data.series, header.columns) == ("pooled", ("x", "y"))
    wide_header = load_forecaster(train(spec, frames[0].drop(columns="unique_id"), tmp_path / "wide").path).header
    assert wide_header.spec.data.series == "joint"
    joint = {**spec, "data": {"horizon": 2, "input_len": 6, "series": "joint"}}
    with pytest.raises(InvalidSpec, match="does not share the times") as refused:
        train(joint, pd.concat(frames), tmp_path / "joint")
    assert refused.value.problems[0].pointer == "/data/series"


def with_a_long_gap() -> Table:
    table = wide()
    table.values[20:126] = np.nan
    return table


def test_windows_of_which_nothing_is_known_are_said(tmp_path: Path) -> None:
    spec = Spec.model_validate(
        {
            "data": {"horizon": 4, "input_len": 8, "missing": "mask"},
            "model": "dlinear",
            "training": {"epochs": 1, "batch_size": 4},
        }
    )
    said: list[str] = []
    train(
        spec, with_a_long_gap(), tmp_path, lambda event: said.append(event.message) if event.type == "message" else None
    )
    (note,) = (message for message in said if "training windows are left out" in message)
    windows = make_windows(with_a_long_gap(), resolve(spec, profile_of(with_a_long_gap())).data)
    whole = make_windows(wide(), resolve(spec, profile_of(wide())).data)
    assert windows.left_out == len(whole.train) - len(windows.train) > 0
    assert note.startswith(f"{windows.left_out} of {len(whole.train)} training windows")
    assert f"an epoch has {len(windows.train) // 4} steps" in note


@pytest.mark.parametrize(
    ("method", "training", "pointer"),
    [
        ({"name": "gmp", "sparsity": 0.8, "update_interval": 7}, {}, "/method/update_interval"),
        ("dense", {"warmup_steps": 20}, "/training/warmup_steps"),
    ],
)
def test_what_too_few_of_them_leave_no_room_for_is_refused(
    method: Any, training: dict[str, int], pointer: str, tmp_path: Path
) -> None:
    fields = {
        "data": {"horizon": 4, "input_len": 8, "missing": "mask"},
        "model": "dlinear",
        "method": method,
        "training": {"epochs": 1, "batch_size": 4} | training,
    }
    with pytest.raises(InvalidSpec) as refused:
        train(fields, with_a_long_gap(), tmp_path)
    (problem,) = refused.value.problems
    assert problem.pointer == pointer
    assert "training windows are left out, since nothing is known of their targets" in problem.message


def test_times_that_are_no_steps_of_the_frequency_are_refused(
    series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec, backwards = make_spec(), Table(series.times[::-1], series.values, series.columns, series.frequency)
    with pytest.raises(InvalidTable, match="not steps of D"):
        next(Trainer(spec, backwards, tmp_path).run())
