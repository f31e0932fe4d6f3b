"""Whether a training can run on a table, what its open fields become, and what it will amount to.

Pure arithmetic on the spec and the table's profile: needs neither the table itself nor torch.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from pals_core.data.bins import bins_of
from pals_core.data.frequency import calendar_family, is_weekly_or_slower
from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.data.profile import Finding, Layout, Span, TableProfile
from pals_core.data.split import Parts, split_rows, window_count
from pals_core.errors import InvalidSpec, InvalidTable, Problem, listed
from pals_core.models.required_lengths import idle_problems, length_problems
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import (
    DataSpec,
    ForecasterSpec,
    GmpMethodSpec,
    GranetMethodSpec,
    MissingPolicy,
    PalsMethodSpec,
    SeriesMode,
    Spec,
    TargetMethodSpec,
    UpdatingMethodSpec,
)

_INPUT_LEN, _SLOW_INPUT_LEN = 96, 36
_UPDATE_INTERVAL = 20
# So many updates are followed one by one; of more, neighbours are taken together.
_MOST_UPDATES_FOLLOWED = 20_000


@dataclass(frozen=True)
class WindowCounts:
    """Windows of each part, of all pooled series together; at most, where values are missing."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class TrainingPlan:
    """What a training amounts to if it runs to its last epoch."""

    windows: WindowCounts
    steps_per_epoch: int  # N: whole batches of training windows
    total_steps: int  # T
    updates: int  # mask updates before the masks are frozen
    # S at the end of each epoch: PALS's when every update shrinks, but for whole counts of weights, by which small
    # tensors get sparser; another method's as it will be; empty for dense.
    reachable_sparsity: tuple[float, ...]


def resolve(spec: Spec, profile: TableProfile) -> Spec:
    """Return the spec with every field that depends on the table filled in; filled ones stay as they are.

    `targets`: all columns but the known-future ones. `series`: pooled for a long table. `resample`: its frequency in
    full. `input_len`: 96, or 36 for weekly and slower data, once resampled. `label_len`: half of it.
    `update_interval`: 20 steps, but at most a quarter of an epoch and at least 1. Never refuses: see `check`.
    """
    data = spec.data
    frequency, resample = _frequency(data, profile), data.resample
    input_len = data.input_len
    if input_len is None:
        input_len = _SLOW_INPUT_LEN if _is_slow(frequency) else _INPUT_LEN
    pooled = profile.layout is Layout.LONG if data.series is None else data.pooled
    data = data.model_copy(
        update={
            "targets": data.targets or tuple(name for name in profile.columns if name not in data.known_future),
            "series": SeriesMode.POOLED if pooled else SeriesMode.JOINT,
            "resample": resample and resample.model_copy(update={"frequency": frequency or resample.frequency}),
            "input_len": input_len,
            "label_len": input_len // 2 if data.label_len is None else data.label_len,
        }
    )
    spec = spec.model_copy(update={"data": data})
    method = spec.method
    if isinstance(method, UpdatingMethodSpec) and method.update_interval is None:
        quarter_epoch = _window_counts(spec, profile).train // spec.training.batch_size // 4
        interval = min(_UPDATE_INTERVAL, max(1, quarter_epoch))
        spec = spec.model_copy(update={"method": method.model_copy(update={"update_interval": interval})})
    return spec


def check(spec: Spec, profile: TableProfile) -> tuple[Problem, ...]:
    """Return every reason why this training cannot run on this table, each with what to do; empty when it can.

    But for a sparsity that would leave a tensor without weights: only the network, which a training builds, tells.
    """
    spec = resolve(spec, profile)
    try:
        lengths = window_lengths(spec.data)
    except InvalidSpec as error:
        return error.problems
    problems = (
        *_column_problems(spec, profile),
        *_known_future_problems(spec, profile),
        *_joint_problems(spec, profile),
        *_finding_problems(spec, profile),
        *_frequency_problems(spec.data, profile),
        *(length_problems(spec.model, lengths) or idle_problems(spec.model, lengths)),
    )
    if spec.data.resample is not None and _frequency(spec.data, profile) is None:
        return problems  # Nobody knows how many steps there would be.
    return (
        *problems,
        *_room_problems(spec, profile, lengths),
        *step_problems(spec, _window_counts(spec, profile).train // spec.training.batch_size),
    )


def plan(spec: Spec, profile: TableProfile) -> TrainingPlan:
    """Return windows, steps, updates and reachable sparsity of a training; zeros where `check` has a reason."""
    spec = resolve(spec, profile)
    windows = _window_counts(spec, profile)
    steps_per_epoch = windows.train // spec.training.batch_size
    epochs = spec.training.epochs
    updates = 0
    reachable: tuple[float, ...] = ()
    method = spec.method
    if isinstance(method, UpdatingMethodSpec) and steps_per_epoch:
        schedule = UpdateSchedule.of(method, epochs=epochs, steps_per_epoch=steps_per_epoch)
        updates, reachable = schedule.updates, _reachable_sparsity(method, schedule)
    elif isinstance(method, TargetMethodSpec) and steps_per_epoch:
        reachable = (method.sparsity,) * epochs
    return TrainingPlan(windows, steps_per_epoch, epochs * steps_per_epoch, updates, reachable)


def _frequency(data: DataSpec, profile: TableProfile) -> str | None:
    """The frequency that windows are cut at; None when it is not known, or not slower than the table's."""
    if data.resample is None or profile.frequency is None:
        return profile.frequency
    try:
        return bins_of(data.resample.frequency, profile.frequency).frequency
    except InvalidSpec:
        return None


def _is_slow(frequency: str | None) -> bool:
    try:
        return frequency is not None and is_weekly_or_slower(frequency)
    except InvalidTable:
        return False


@dataclass(frozen=True)
class _Rows:
    """The time steps of what is split together: the table, or one pooled series, which then has a name."""

    steps: int
    series: str | None = None

    def parts(self, spec: Spec) -> Parts | None:
        """None when the split asks for more rows than there are."""
        try:
            return split_rows(self.steps, spec.data.split)
        except InvalidSpec:
            return None


def _split_together(spec: Spec, profile: TableProfile) -> list[_Rows]:
    spans = profile.spans_by_column()
    targets = [name for name in spec.data.targets or () if name in spans]
    if spec.data.pooled:
        return [_Rows(_steps(spans[name], spec.data, profile), name) for name in targets]
    return [_Rows(_steps(spans[targets[0]], spec.data, profile) if targets else profile.steps)]


def _steps(span: Span, data: DataSpec, profile: TableProfile) -> int:
    if data.resample is None:
        return span.steps
    if not span.steps or span.start is None or span.end is None or profile.frequency is None:
        return 0
    try:
        bins = bins_of(data.resample.frequency, profile.frequency)
    except InvalidSpec:
        return 0
    return len(bins.complete(span.start, span.end, profile.frequency))


def _window_counts(spec: Spec, profile: TableProfile) -> WindowCounts:
    counts = [0, 0, 0]
    for rows in _split_together(spec, profile):
        parts, input_len = rows.parts(spec), spec.data.input_len
        if parts is not None and input_len is not None:
            for place, part in enumerate((parts.train, parts.validation, parts.test)):
                counts[place] += window_count(part, input_len, spec.data.horizon)
    return WindowCounts(*counts)


def _column_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    problems = []
    known_columns = frozenset(profile.columns)
    for field in ("targets", "known_future"):
        for position, name in enumerate(getattr(spec.data, field) or ()):
            if name not in known_columns:
                spelled = {column.casefold(): column for column in profile.columns}
                close = difflib.get_close_matches(name.casefold(), spelled, n=1)
                known = f"did you mean {spelled[close[0]]!r}?" if close else f"it has {listed(profile.columns)}"
                message = f"the table has no numeric column {name!r}; {known}"
                problems.append(Problem(message, pointer=f"/data/{field}/{position}", column=name))
    if not spec.data.targets:
        message = "every numeric column is in known_future, so there is nothing to forecast; leave one out of it"
        problems.append(Problem(message, pointer="/data/known_future"))
    return problems


def _known_future_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    """Columns whose future nobody would read, or that are not there for all of a pooled series."""
    if not spec.data.known_future:
        return []
    problems = []
    if not isinstance(spec.model, ForecasterSpec):
        message = (
            f"{spec.model.name} reads nothing of the horizon but what it forecasts, so a known future would not count; "
            "leave known_future out, or choose transformer, nstransformer, informer, autoformer or fedformer"
        )
        problems.append(Problem(message, pointer="/data/known_future"))
    spans = profile.spans_by_column() if spec.data.pooled else {}
    for position, name in enumerate(spec.data.known_future):
        beside = spans.get(name)
        for series in spec.data.targets or ():
            if (
                beside is None
                or series not in spans
                or not (start := spans[series].start)
                or not (end := spans[series].end)
            ):
                continue
            if not beside.start or not beside.end or beside.start > start or beside.end < end:
                message = (
                    f"known-future column {name!r} does not reach from the start to the end of series {series!r}, "
                    f"{start} to {end}; give it for all of that time, or leave the series out of the targets"
                )
                problems.append(Problem(message, pointer=f"/data/known_future/{position}", column=name))
                break
    return problems


def _joint_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    """Joint series of a long table have the same times."""
    spans = profile.spans_by_column()
    columns = [name for name in spec.data.columns or () if name in spans and spans[name].steps]
    if spec.data.pooled or not (others := [name for name in columns if spans[name] != spans[columns[0]]]):
        return []
    first, other = spans[columns[0]], spans[others[0]]
    message = (
        f"series {others[0]!r} ({other.start} to {other.end}) does not share the times of {columns[0]!r} "
        f"({first.start} to {first.end}); choose series pooled, give both the same times, or leave one out"
    )
    return [Problem(message, pointer="/data/series", column=others[0])]


def _finding_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    cured = spec.data.missing is not MissingPolicy.ERROR
    findings = profile.errors_for(spec.data.columns or (), missing_is_cured=cured)
    return [
        Problem(f"{finding.message}; {finding.remedy}", _pointer(finding, spec.data), finding.row, finding.column)
        for finding in findings
    ]


def _pointer(finding: Finding, data: DataSpec) -> str | None:
    """The field of the spec that could avoid the finding; None where only the table can."""
    if finding.cured_by_missing_policy:
        return "/data/missing"
    if finding.column is None:
        return None
    return "/data/known_future" if finding.column in data.known_future else "/data/targets"


def _frequency_problems(data: DataSpec, profile: TableProfile) -> tuple[Problem, ...]:
    """An irregular table has a finding of its own; this is for frequencies without a calendar family or not slower."""
    if profile.frequency is not None:
        try:
            calendar_family(profile.frequency)
            if data.resample is not None:
                bins_of(data.resample.frequency, profile.frequency)
        except (InvalidSpec, InvalidTable) as error:
            return error.problems
    return ()


def _room_problems(spec: Spec, profile: TableProfile, lengths: WindowLengths) -> list[Problem]:
    problems = [
        problem for rows in _split_together(spec, profile) for problem in _room_problems_of(rows, spec, lengths)
    ]
    windows = _window_counts(spec, profile).train
    if 0 < windows < spec.training.batch_size:
        message = (
            f"batch_size {spec.training.batch_size} exceeds the {windows} training windows, and partial batches are "
            f"dropped: at most {windows} fits"
        )
        problems.append(Problem(message, pointer="/training/batch_size"))
    return problems


def _room_problems_of(rows: _Rows, spec: Spec, lengths: WindowLengths) -> list[Problem]:
    """Every pooled series needs room too: one left out in silence would be missed when it is to be forecast."""
    parts = rows.parts(spec)
    which = "the table" if rows.series is None else f"series {rows.series!r}"
    whose = "" if rows.series is None else f" of {which}"
    or_else = "" if rows.series is None else ", or leave the series out of the targets"
    if parts is None:
        split = spec.data.split
        asked = int(split.train + split.validation + split.test)
        message = f"the split asks for {asked} rows; {which} has {rows.steps} time steps{or_else}"
        return [Problem(message, pointer="/data/split", column=rows.series)]
    room = parts.train.rows - lengths.input_len
    if room < 1:
        longest = parts.train.rows - lengths.horizon
        advice = f"at most {longest} fits" if longest >= 2 else "use a longer table or a larger training share"
        message = (
            f"input_len {lengths.input_len} and horizon {lengths.horizon} need {lengths.input_len + lengths.horizon} "
            f"training rows{whose}; there are {parts.train.rows}: {advice}{or_else}"
        )
        return [Problem(message, pointer="/data/input_len", column=rows.series)]
    fits = {
        "training": room,
        "validation": parts.validation.rows,
        "test": parts.test.rows,
    }
    narrowest = min(fits, key=lambda part: fits[part])
    largest = fits[narrowest]
    if lengths.horizon > largest:
        advice = f"at most {largest} fits" if largest else "no horizon fits: use a longer table or another split"
        message = f"horizon {lengths.horizon} does not fit into the {narrowest} part{whose}: {advice}{or_else}"
        return [Problem(message, pointer="/data/horizon", column=rows.series)]
    return []


def step_problems(spec: Spec, steps_per_epoch: int) -> tuple[Problem, ...]:
    """Return what is wrong with a resolved spec whose epochs have so many steps."""
    return (*_update_problems(spec, steps_per_epoch), *_warmup_problems(spec, steps_per_epoch))


def _update_problems(spec: Spec, steps: int) -> list[Problem]:
    """A method with a target must come to an update; PALS may find that it has none."""
    method = spec.method
    if not steps or not isinstance(method, UpdatingMethodSpec) or isinstance(method, PalsMethodSpec):
        return []
    schedule = UpdateSchedule.of(method, epochs=spec.training.epochs, steps_per_epoch=steps)
    if schedule.updates:
        return []
    advice = "train for more epochs, or raise final_update_fraction"
    if schedule.longest_interval:
        advice = f"at most {schedule.longest_interval} fits, or " + advice
    message = (
        f"update_interval {schedule.interval} leaves {method.name} without an update before its masks are frozen, "
        f"in an epoch of {steps} steps: {advice}"
    )
    return [Problem(message, pointer="/method/update_interval")]


def _warmup_problems(spec: Spec, steps_per_epoch: int) -> list[Problem]:
    training = spec.training
    steps = training.epochs * steps_per_epoch
    if not steps or training.warmup_steps < steps:
        return []
    message = f"warmup_steps {training.warmup_steps} leave nothing of the {steps} steps: at most {steps - 1} fits"
    return [Problem(message, pointer="/training/warmup_steps")]


def _reachable_sparsity(method: UpdatingMethodSpec, schedule: UpdateSchedule) -> tuple[float, ...]:
    """Return S at the end of each epoch."""
    if isinstance(method, PalsMethodSpec):
        return _shrinking_sparsity(method, schedule)
    if not isinstance(method, GmpMethodSpec | GranetMethodSpec):
        return (method.sparsity,) * schedule.epochs
    initial = 1 - method.initial_density if isinstance(method, GranetMethodSpec) else 0.0
    ends = range(schedule.steps_per_epoch, schedule.total_steps + 1, schedule.steps_per_epoch)
    return tuple(schedule.sparsity_at(step, initial, method.sparsity) for step in ends)


def _shrinking_sparsity(method: PalsMethodSpec, schedule: UpdateSchedule) -> tuple[float, ...]:
    """Shrinking cuts the share γ·ζ of the active weights and grows ζ, so ζ·(γ − 1) of them go."""
    density, update = method.initial_density, 0
    group = max(1, math.ceil(schedule.updates / _MOST_UPDATES_FOLLOWED))
    reached = []
    for epoch in range(1, schedule.epochs + 1):
        last = min(schedule.updates, epoch * schedule.steps_per_epoch // schedule.interval)
        while update < last and 1 - density < method.max_sparsity:
            together = min(group, last - update)
            rate = schedule.rate_at((update + 1 + together // 2) * schedule.interval)
            kept = 1 - rate * (method.prune_rate_factor - 1)
            if kept < 1:
                until_max = math.ceil(math.log((1 - method.max_sparsity) / density) / math.log(kept))
                density *= kept ** min(together, until_max)
            update += together
        update = last
        reached.append(1 - density)
    return tuple(reached)
