"""What is said of missing values and constant columns."""

from __future__ import annotations

import numpy as np

from pals_core.data.split import Part, Parts
from pals_core.data.treatment import TreatedColumn, note_of_constants, note_of_missing, treated_columns
from pals_core.spec import MissingPolicy

PARTS = Parts(train=Part(0, 4), validation=Part(4, 6), test=Part(6, 8))


def test_only_columns_with_gaps_or_without_change_in_the_training_part_are_treated() -> None:
    values = np.arange(32.0).reshape(8, 4)
    values[5, 1] = np.nan
    values[:4, 2] = 3
    values[:4, 3] = [np.nan, 4, np.nan, 4]

    assert treated_columns(("whole", "gap", "still", "both"), values, PARTS) == (
        TreatedColumn("gap", rows=8, missing=1, constant=None),
        TreatedColumn("still", rows=8, missing=0, constant=3.0),
        TreatedColumn("both", rows=8, missing=2, constant=4.0),
    )


def test_nothing_is_said_of_columns_that_are_taken_as_they_are() -> None:
    assert note_of_missing([], MissingPolicy.ERROR) is None
    assert note_of_constants([]) is None
    assert note_of_constants([TreatedColumn("gap", 8, 1, None)]) is None
    assert note_of_missing([TreatedColumn("still", 8, 0, 3.0)], MissingPolicy.ERROR) is None


def test_of_many_columns_the_first_are_named() -> None:
    many = [TreatedColumn(f"c{number}", 900, number, 0.5) for number in range(1, 9)]
    assert str(note_of_missing(many, MissingPolicy.FFILL)).endswith(
        ": 'c1' 1 of 900, 'c2' 2 of 900, 'c3' 3 of 900, 'c4' 4 of 900, 'c5' 5 of 900, and 3 more"
    )
    assert str(note_of_constants(many)).endswith(
        ": 'c1' is 0.5, 'c2' is 0.5, 'c3' is 0.5, 'c4' is 0.5, 'c5' is 0.5, and 3 more"
    )
