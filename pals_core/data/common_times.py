"""One time grid for the series of a long table, each of which has rows of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.clock import Clock, frequency_of, gaps_of
from pals_core.data.grid import MAX_STEPS_PER_TIME, OFF_GRID, steps_from
from pals_core.data.profile import Finding, FindingCode, Severity
from pals_core.data.split import Part

# A grid of so few cells may be as empty as it likes.
_SMALL_GRID = 10_000_000


@dataclass(frozen=True)
class CommonTimes:
    """Every time at which a series on the common grid has a row, and the range of each series in it."""

    times: pd.DatetimeIndex  # [n]
    rows: npt.NDArray[np.int64]  # [n], the first row of the file with this time
    frequency: str | None
    spans: dict[str, Part]  # positions in `times`; empty for a series off the grid
    findings: tuple[Finding, ...]


def share_times(clocks: dict[str, Clock], known: Sequence[str] = ()) -> CommonTimes:
    """Bring series of sorted, distinct times to one grid, and say which do not share it, its range, or every step.

    `known` are the frequencies it may have where the times tell none.
    """
    signatures = {name: clock.times.asi8.tobytes() for name, clock in clocks.items()}
    (usual, shared), *others = Counter(signatures.values()).most_common()
    model = next(clocks[name] for name, signature in signatures.items() if signature == usual)
    if not others:
        frequency, findings = frequency_of(Clock(model.times, model.rows), known)
        whole = Part(0, len(model.times))
        return CommonTimes(model.times, model.rows, frequency, dict.fromkeys(clocks, whole), findings)

    base = model if 2 * shared > len(clocks) else _union([*clocks.values()])
    frequency, findings = frequency_of(Clock(base.times, base.rows), known)
    if frequency is None:
        base = max(clocks.values(), key=lambda clock: len(clock.times))
        frequency, findings = frequency_of(Clock(base.times, base.rows), known)
    if frequency is None:
        spans = {name: Part(0, len(base.times) if clock is base else 0) for name, clock in clocks.items()}
        return CommonTimes(base.times, base.rows, None, spans, findings)

    numbers = steps_from(base.times[0], [clock.times for clock in clocks.values()], frequency)
    # A series without rows lies nowhere.
    on_grid = {
        name: steps for name, steps in zip(clocks, numbers, strict=True) if len(steps) and not (steps == OFF_GRID).any()
    }
    kept = on_grid
    if _almost_empty(on_grid):
        usual = Counter(signatures[name] for name in on_grid).most_common(1)[0][0]
        kept = {name: steps for name, steps in on_grid.items() if signatures[name] == usual}
    union = _union([clocks[name] for name in kept])
    spans = {name: _span(clock, union) if name in kept else Part(0, 0) for name, clock in clocks.items()}
    found = [_left_out(clock, frequency, too_far=name in on_grid) for name, clock in clocks.items() if name not in kept]
    found += unequal_ranges({name: spans[name] for name in kept})
    for name, steps in kept.items():
        found += gaps_of(clocks[name], steps, frequency)
    return CommonTimes(union.times, union.rows, frequency, spans, tuple(found))


def unequal_ranges(spans: Mapping[str, Part]) -> tuple[Finding, ...]:
    """Say which series have not the range of most; only joint windows mind."""
    if len(set(spans.values())) < 2:
        return ()
    usual = Counter(spans.values()).most_common(1)[0][0]
    model = next(name for name, span in spans.items() if span == usual)
    others = [name for name, span in spans.items() if span != usual]
    finding = Finding(
        severity=Severity.WARNING,
        code=FindingCode.UNEQUAL_SERIES,
        message=f"{len(others)} of {len(spans)} series do not begin and end with {model!r}, the first of them "
        f"{others[0]!r}",
        remedy="nothing to do, if the series are pooled; joint ones need the same times, with y empty where it is "
        "unknown",
        count=len(others),
    )
    return (finding,)


def _union(clocks: list[Clock]) -> Clock:
    microseconds = np.concatenate([clock.times.asi8 for clock in clocks])
    rows = np.concatenate([clock.rows for clock in clocks])
    distinct, first = np.unique(microseconds, return_index=True)
    return Clock(pd.DatetimeIndex(distinct.view("datetime64[us]")), rows[first])


def _almost_empty(numbers: Mapping[str, npt.NDArray[np.int64]]) -> bool:
    """Whether a table of all these series, each with its step numbers, would hold next to nothing."""
    first = min(int(steps[0]) for steps in numbers.values())
    last = max(int(steps[-1]) for steps in numbers.values())
    known = sum(map(len, numbers.values()))
    return (last - first + 1) * len(numbers) > max(_SMALL_GRID, MAX_STEPS_PER_TIME * known)


def _span(clock: Clock, union: Clock) -> Part:
    first, last = np.searchsorted(union.times.asi8, clock.times.asi8[[0, -1]])
    return Part(int(first), int(last) + 1)


def _left_out(clock: Clock, frequency: str, *, too_far: bool) -> Finding:
    what = f"has times that are no {frequency} steps of those of the others"
    if too_far:
        what = "lies so far from the others that a table of all would be almost empty"
    return Finding(
        severity=Severity.ERROR,
        code=FindingCode.UNEQUAL_SERIES,
        message=f"series {clock.series!r} {what}",
        remedy="train it by itself from a table of its own, or leave it out of the targets",
        row=int(clock.rows[0]) if len(clock.rows) else None,
        column=clock.series,
        count=max(1, len(clock.times)),
    )
