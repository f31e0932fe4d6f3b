"""Whether a training can run on a table, what its open fields become, and what it will amount to.

Pure arithmetic on the spec and the table's profile: needs neither the table itself nor torch.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from pals_core.data.frequency import calendar_family, is_weekly_or_slower
from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.data.profile import Finding, TableProfile
from pals_core.data.split import Parts, split_rows, window_count
from pals_core.errors import InvalidSpec, InvalidTable, Problem
from pals_core.models.required_lengths import length_problems
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import (
    GmpMethodSpec,
    GranetMethodSpec,
    MissingPolicy,
    PalsMethodSpec,
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
    """Windows of each part."""

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
    # S at the end of each epoch: PALS's when every update shrinks, another method's as it will be; empty for dense.
    reachable_sparsity: tuple[float, ...]


def resolve(spec: Spec, profile: TableProfile) -> Spec:
    """Return the spec with every field that depends on the table filled in; filled ones stay as they are.

    `targets`: all columns. `input_len`: 96, or 36 for weekly and slower data. `label_len`: half of it.
    `update_interval`: 20 steps, but at most a quarter of an epoch and at least 1. Never refuses: see `check`.
    """
    data = spec.data
    input_len = data.input_len
    if input_len is None:
        input_len = _SLOW_INPUT_LEN if _is_slow(profile) else _INPUT_LEN
    data = data.model_copy(
        update={
            "targets": data.targets or profile.columns,
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
    """Return every reason why this training cannot run on this table, each with what to do; empty when it can."""
    spec = resolve(spec, profile)
    try:
        lengths = window_lengths(spec.data)
    except InvalidSpec as error:
        return error.problems
    return (
        *_target_problems(spec, profile),
        *_finding_problems(spec, profile),
        *_frequency_problems(profile),
        *length_problems(spec.model, lengths),
        *_room_problems(spec, profile, lengths),
        *_update_problems(spec, profile),
        *_warmup_problems(spec, profile),
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


def _is_slow(profile: TableProfile) -> bool:
    try:
        return profile.frequency is not None and is_weekly_or_slower(profile.frequency)
    except InvalidTable:
        return False


def _parts(spec: Spec, profile: TableProfile) -> Parts | None:
    """None when the split asks for more rows than there are."""
    try:
        return split_rows(profile.steps, spec.data.split)
    except InvalidSpec:
        return None


def _window_counts(spec: Spec, profile: TableProfile) -> WindowCounts:
    parts, input_len = _parts(spec, profile), spec.data.input_len
    if parts is None or input_len is None:
        return WindowCounts(0, 0, 0)
    return WindowCounts(
        *(window_count(part, input_len, spec.data.horizon) for part in (parts.train, parts.validation, parts.test))
    )


def _target_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    problems = []
    for position, name in enumerate(spec.data.targets or ()):
        if name not in profile.columns:
            spelled = {column.casefold(): column for column in profile.columns}
            close = difflib.get_close_matches(name.casefold(), spelled, n=1)
            known = f"did you mean {spelled[close[0]]!r}?" if close else f"it has {_listed(profile.columns)}"
            message = f"the table has no numeric column {name!r}; {known}"
            problems.append(Problem(message, pointer=f"/data/targets/{position}", column=name))
    return problems


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _finding_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    cured = spec.data.missing is not MissingPolicy.ERROR
    findings = profile.errors_for(spec.data.targets or (), missing_is_cured=cured)
    return [
        Problem(f"{finding.message}; {finding.remedy}", _pointer(finding), finding.row, finding.column)
        for finding in findings
    ]


def _pointer(finding: Finding) -> str | None:
    """The field of the spec that could avoid the finding; None where only the table can."""
    if finding.cured_by_missing_policy:
        return "/data/missing"
    return None if finding.column is None else "/data/targets"


def _frequency_problems(profile: TableProfile) -> tuple[Problem, ...]:
    """An irregular table has a finding of its own; this is for frequencies without a calendar family."""
    if profile.frequency is not None:
        try:
            calendar_family(profile.frequency)
        except InvalidTable as error:
            return error.problems
    return ()


def _room_problems(spec: Spec, profile: TableProfile, lengths: WindowLengths) -> list[Problem]:
    parts = _parts(spec, profile)
    if parts is None:
        split = spec.data.split
        asked = int(split.train + split.validation + split.test)
        message = f"the split asks for {asked} rows; the table has {profile.steps} time steps"
        return [Problem(message, pointer="/data/split")]
    problems: list[Problem] = []
    room = parts.train.rows - lengths.input_len
    if room < 1:
        longest = parts.train.rows - lengths.horizon
        advice = f"at most {longest} fits" if longest >= 2 else "use a longer table or a larger training share"
        message = (
            f"input_len {lengths.input_len} and horizon {lengths.horizon} need {lengths.input_len + lengths.horizon} "
            f"training rows; there are {parts.train.rows}: {advice}"
        )
        return [Problem(message, pointer="/data/input_len")]
    fits = {
        "training": room,
        "validation": parts.validation.rows,
        "test": parts.test.rows,
    }
    narrowest = min(fits, key=lambda part: fits[part])
    largest = fits[narrowest]
    if lengths.horizon > largest:
        advice = f"at most {largest} fits" if largest else "no horizon fits: use a longer table or another split"
        message = f"horizon {lengths.horizon} does not fit into the {narrowest} part: {advice}"
        problems.append(Problem(message, pointer="/data/horizon"))
    windows = _window_counts(spec, profile).train
    if 0 < windows < spec.training.batch_size:
        message = (
            f"batch_size {spec.training.batch_size} exceeds the {windows} training windows, and partial batches are "
            f"dropped: at most {windows} fits"
        )
        problems.append(Problem(message, pointer="/training/batch_size"))
    return problems


def _update_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    """A method with a target must come to an update; PALS may find that it has none."""
    method, steps = spec.method, _window_counts(spec, profile).train // spec.training.batch_size
    if not steps or not isinstance(method, UpdatingMethodSpec) or isinstance(method, PalsMethodSpec):
        return []
    schedule = UpdateSchedule.of(method, epochs=spec.training.epochs, steps_per_epoch=steps)
    if schedule.updates:
        return []
    advice = "train for more epochs"
    if schedule.longest_interval:
        advice = f"at most {schedule.longest_interval} fits, or " + advice
    message = (
        f"update_interval {schedule.interval} leaves {method.name} without an update before its masks are frozen, "
        f"in an epoch of {steps} steps: {advice}"
    )
    return [Problem(message, pointer="/method/update_interval")]


def _warmup_problems(spec: Spec, profile: TableProfile) -> list[Problem]:
    training = spec.training
    steps = training.epochs * (_window_counts(spec, profile).train // training.batch_size)
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
