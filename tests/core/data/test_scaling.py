"""Scaling is undone exactly and copes with columns that do not vary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pals_core.data.scaling import Scaler, is_constant
from pals_core.errors import InvalidTable


def test_mean_and_population_deviation() -> None:
    scaler = Scaler.fit(np.array([[1.0, 10.0], [3.0, 30.0]]))
    np.testing.assert_array_equal(scaler.mean, [2, 20])
    np.testing.assert_array_equal(scaler.std, [1, 10])
    np.testing.assert_array_equal(scaler.scale(np.array([[3.0, 0.0]])), [[1, -2]])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e12, 1e300])
def test_a_constant_column_is_divided_by_one(constant: float) -> None:
    scaler = Scaler.fit(np.full((1001, 1), constant))
    np.testing.assert_array_equal(scaler.std, [1])
    np.testing.assert_array_equal(scaler.scale(np.full((3, 1), constant)), 0)


def test_what_differs_by_rounding_alone_is_constant() -> None:
    rounded = np.array([[0.1 * 3, 1.0], [0.3, np.nextafter(1.0, 2.0)], [0.3, 1.0]])
    np.testing.assert_array_equal(Scaler.fit(rounded).std, [1, 1])
    constant = is_constant([-np.inf, 0.3, 1e15, 0.0], [-np.inf, 0.1 * 3, 1e15 + 2, 0.0])
    assert constant.tolist() == [True, True, False, True]
    assert not is_constant(-1.0, np.inf)


@pytest.mark.parametrize(
    ("spread", "message"), [(1e200, "too far apart or too large"), (1e101, "divide"), (1e-170, "close together")]
)
def test_values_whose_squared_differences_are_no_numbers_are_refused(spread: float, message: str) -> None:
    with pytest.raises(InvalidTable, match=message):
        Scaler.fit(np.array([[0.0, spread], [1.0, -spread]]))


@given(hnp.arrays(np.float64, (9, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_unscaling_undoes_scaling(values: np.ndarray) -> None:
    scaler = Scaler.fit(values)
    assert (scaler.std > 0).all()
    np.testing.assert_allclose(scaler.unscale(scaler.scale(values)), values, rtol=1e-9, atol=1e-9)
