"""Gaps are filled inside each part from that part alone, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pals_core.data.missing import fill_missing
from pals_core.data.split import Part, Parts
from pals_core.errors import InvalidTable
from pals_core.spec import MissingPolicy

NAN = np.nan
PARTS = Parts(Part(0, 6), Part(6, 9), Part(9, 12))
FILLING = [MissingPolicy.INTERPOLATE, MissingPolicy.FFILL]


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


GAPPY = column(NAN, 1, NAN, NAN, 4, NAN, 100, NAN, 102, NAN, NAN, 9)


def test_interpolation_is_linear_inside_a_part_and_constant_at_its_edges() -> None:
    filled = fill_missing(GAPPY, PARTS, MissingPolicy.INTERPOLATE, ("a",))
    np.testing.assert_array_equal(filled, column(1, 1, 2, 3, 4, 4, 100, 101, 102, 9, 9, 9))


def test_ffill_repeats_the_last_value_of_the_same_part() -> None:
    filled = fill_missing(GAPPY, PARTS, MissingPolicy.FFILL, ("a",))
    np.testing.assert_array_equal(filled, column(1, 1, 1, 1, 4, 4, 100, 100, 102, 9, 9, 9))


def test_the_error_policy_names_column_and_step() -> None:
    with pytest.raises(InvalidTable, match=r"'b' misses 1 values in the validation part, the first at time step 8"):
        fill_missing(
            np.hstack([np.ones((12, 1)), column(*range(7), NAN, *range(4))]), PARTS, MissingPolicy.ERROR, ("a", "b")
        )


@pytest.mark.parametrize("policy", FILLING)
def test_a_part_without_any_value_is_refused(policy: MissingPolicy) -> None:
    with pytest.raises(InvalidTable, match="no value at all in the validation part"):
        fill_missing(column(*range(6), NAN, NAN, NAN, *range(3)), PARTS, policy, ("a",))


def test_rows_outside_the_parts_may_miss_values() -> None:
    values = column(*range(12), NAN)
    np.testing.assert_array_equal(fill_missing(values, PARTS, MissingPolicy.ERROR, ("a",)), values)


@given(
    hnp.arrays(np.float64, (12, 2), elements=st.one_of(st.just(NAN), st.floats(-1e6, 1e6))), st.sampled_from(FILLING)
)
def test_filling_keeps_known_values_and_never_looks_into_another_part(
    values: np.ndarray, policy: MissingPolicy
) -> None:
    values[[0, 6, 9]] = 1.0
    filled = fill_missing(values, PARTS, policy, ("a", "b"))
    known = ~np.isnan(values)
    np.testing.assert_array_equal(filled[known], values[known])
    assert not np.isnan(filled).any()
    for part in (PARTS.train, PARTS.validation, PARTS.test):
        others = values.copy()
        others[: part.start] = -7.0
        others[part.stop :] = 7.0
        again = fill_missing(others, PARTS, policy, ("a", "b"))
        np.testing.assert_array_equal(again[part.start : part.stop], filled[part.start : part.stop])
