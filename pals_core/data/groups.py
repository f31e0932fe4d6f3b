"""Which columns of a table go through a network together."""

from __future__ import annotations

from pals_core.data.resampling import resample
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec, Problem
from pals_core.spec import DataSpec


def grouped(table: Table, data: DataSpec) -> tuple[Table, ...]:
    """Return the wide tables that windows are cut from: targets first, then the known-future columns; resampled.

    Joint: one table of all targets. Pooled: one for each target, over its own rows. Raises InvalidSpec for an unknown
    column, for joint series of unequal ranges, and for known-future columns that do not reach over a pooled series.
    """
    targets = data.targets or tuple(name for name in table.columns if name not in data.known_future)
    table = table.select(targets, data.known_future)
    groups = _pooled(table, targets, data.known_future) if data.pooled else (_joint(table),)
    if data.resample is not None:
        groups = tuple(resample(group, data.resample) for group in groups)
    return groups


def _joint(table: Table) -> Table:
    if len(set(table.spans)) > 1:
        message = "the series begin or end at different times; choose series pooled, or targets that share all times"
        raise InvalidSpec(message, (Problem(message, pointer="/data/series"),))
    return table.between(table.span_of(table.columns[0]))


def _pooled(table: Table, targets: tuple[str, ...], known_future: tuple[str, ...]) -> tuple[Table, ...]:
    groups = []
    for name in targets:
        span = table.span_of(name)
        for position, beside in enumerate(known_future):
            if not _reaches_over(table.span_of(beside), span):
                message = f"known-future column {beside!r} does not reach from the start to the end of series {name!r}"
                raise InvalidSpec(message, (Problem(message, f"/data/known_future/{position}", column=beside),))
        positions = [table.columns.index(column) for column in (name, *known_future)]
        rows = slice(span.start, span.stop)
        groups.append(
            Table(table.times[rows], table.values[rows][:, positions], (name, *known_future), table.frequency)
        )
    return tuple(groups)


def _reaches_over(outer: Part, inner: Part) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
