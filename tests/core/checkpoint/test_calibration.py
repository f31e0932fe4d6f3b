"""What a checkpoint says of its intervals is refused unless it can be meant."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pals_core.checkpoint.calibration import Calibration
from pals_core.checkpoint.container import read_header
from pals_core.errors import InvalidCheckpoint
from tests.core.checkpoint.forgery import Change, forge, set_field

HORIZON, COLUMNS = 4, 3


def halves(change: Any = None) -> str:
    """Six levels of rising quantiles, of which `change` may spoil some."""
    numbers = np.linspace(0, 6, 6 * HORIZON * COLUMNS).astype("<f2").reshape(6, HORIZON, COLUMNS)
    if change is not None:
        change(numbers)
    return base64.b64encode(numbers.tobytes()).decode()


def spoilt(place: tuple[int, int, int], value: float) -> str:
    def change(numbers: np.ndarray) -> None:
        numbers[place] = value

    return halves(change)


def test_a_whole_one_is_read(best_checkpoint: Path, tmp_path: Path) -> None:
    original = read_header(best_checkpoint).calibration
    assert original is not None
    forge(best_checkpoint, tmp_path / "forged", set_field("calibration", "quantiles", value=halves()))
    calibration = read_header(tmp_path / "forged").calibration
    assert calibration is not None
    assert len(calibration.levels) == 6
    expected = np.linspace(0, 6, 72).astype(np.float16).astype(float) * calibration.unit
    assert calibration.numbers() == tuple(expected.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(set_field("calibration", "quantiles", value="no base64!"), "base64", id="no base64"),
        pytest.param(set_field("calibration", "quantiles", value="Ä"), "base64", id="no ASCII"),
        pytest.param(set_field("calibration", "quantiles", value="AAAA"), "within a number", id="three bytes"),
        pytest.param(set_field("calibration", "quantiles", value=""), "quantiles for each", id="nothing"),
        pytest.param(set_field("calibration", "quantiles", value=halves()[:-8]), "quantiles for each", id="too few"),
        pytest.param(set_field("calibration", "quantiles", value=halves() * 2), "quantiles for each", id="too many"),
        pytest.param(set_field("calibration", "quantiles", value=spoilt((2, 1, 1), np.nan)), "number", id="NaN"),
        pytest.param(set_field("calibration", "quantiles", value=spoilt((5, 1, 1), np.inf)), "number", id="infinite"),
        pytest.param(set_field("calibration", "quantiles", value=spoilt((0, 0, 0), -1)), "from 0 on", id="negative"),
        pytest.param(set_field("calibration", "quantiles", value=spoilt((3, 2, 2), 0)), "falls", id="falling"),
        pytest.param(set_field("calibration", "unit", value=1e308), "number", id="overflowing unit"),
        pytest.param(set_field("calibration", "unit", value=0), "unit", id="no unit"),
        pytest.param(set_field("calibration", "columns", value=2), "columns", id="other columns"),
        pytest.param(set_field("calibration", "columns", value=10**12), "columns", id="columns beyond memory"),
        pytest.param(set_field("calibration", "columns", value=1), "quantiles for each", id="one column too few"),
        pytest.param(set_field("calibration", "levels", value=[]), "levels", id="no level"),
        pytest.param(set_field("calibration", "levels", value=[80.0, 80.0]), "rise", id="equal levels"),
        pytest.param(set_field("calibration", "levels", value=[80.0, 100.0]), "levels", id="level 100"),
        pytest.param(set_field("calibration", "levels", 5, value=99.9), "no quantile", id="too high a level"),
        pytest.param(set_field("calibration", "residuals", value=0), "residuals", id="no residual"),
        pytest.param(set_field("calibration", "residuals", value=3), "no quantile", id="too few residuals"),
        pytest.param(set_field("calibration", "more", value=1), "more", id="unknown field"),
        pytest.param(set_field("season", value=0), "season", id="no season"),
        pytest.param(set_field("naive_errors", value=[1.0]), "naive errors", id="too few naive errors"),
        pytest.param(set_field("naive_errors", 0, value=0), "naive_errors", id="naive error of zero"),
    ],
)
def test_a_forged_one_is_refused(best_checkpoint: Path, tmp_path: Path, change: Change, message: str) -> None:
    path = tmp_path / "forged"
    forge(best_checkpoint, path, change)
    with pytest.raises(InvalidCheckpoint, match=message):
        read_header(path)


def test_one_column_may_stand_for_all() -> None:
    numbers = base64.b64encode(np.array([1, 2, 2, 2], dtype="<f2").tobytes()).decode()
    shared = Calibration(residuals=4, levels=(50.0, 80.0), columns=1, unit=0.5, quantiles=numbers)
    shared.check(2, 7)
    assert shared.numbers() == (0.5, 1, 1, 1)
    with pytest.raises(ValueError, match="columns"):
        Calibration(residuals=4, levels=(50.0, 80.0), columns=2, unit=0.5, quantiles=numbers).check(1, 7)
