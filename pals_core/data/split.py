"""The chronological split: which rows train, which decide, which only measure, and how many windows they hold."""

from __future__ import annotations

from dataclasses import dataclass

from pals_core.errors import InvalidSpec, Problem
from pals_core.spec import Split


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a table, `stop` excluded."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def reaching_back(self, input_len: int) -> Part:
        """Return the part together with the `input_len` rows before it, as far as there are any."""
        return Part(max(0, self.start - input_len), self.stop)

    def after(self, rows: int) -> Part:
        """Return the part of a table that has so many rows before it."""
        return Part(self.start + rows, self.stop + rows)


@dataclass(frozen=True)
class Parts:
    """The rows each part owns, without reach-back; they never overlap."""

    train: Part
    validation: Part
    test: Part

    def after(self, rows: int) -> Parts:
        """Return the parts of a table that has so many rows before it."""
        return Parts(self.train.after(rows), self.validation.after(rows), self.test.after(rows))


def split_rows(steps: int, split: Split) -> Parts:
    """Return the rows of each part of a table of `steps` rows.

    Shares: train ⌊n·train⌋, test ⌊n·test⌋, validation the rest. Row counts take the first rows and leave the
    remaining ones unused. Raises InvalidSpec when the counts ask for more rows than there are.
    """
    if split.counts_rows:
        train, validation, test = int(split.train), int(split.validation), int(split.test)
        if train + validation + test > steps:
            message = f"the split asks for {train + validation + test} rows; the table has {steps}"
            raise InvalidSpec(message, (Problem(message, pointer="/data/split"),))
    else:
        train, test = int(steps * split.train), int(steps * split.test)
        validation = max(0, steps - train - test)
        test = steps - train - validation
    first, second = train, train + validation
    return Parts(Part(0, first), Part(first, second), Part(second, second + test))


def window_count(part: Part, input_len: int, horizon: int) -> int:
    """Return how many windows a part has: m − input_len − H + 1 of its m rows, reach-back included, at least 0."""
    return max(0, part.reaching_back(input_len).rows - input_len - horizon + 1)
