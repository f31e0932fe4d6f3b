"""Training in one call, for Python users."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from pals_core.data.audit import profile_of
from pals_core.data.table import Table, table_of
from pals_core.errors import InvalidSpec, pointer_of
from pals_core.evaluation.document import Evaluation
from pals_core.feasibility import check, resolve
from pals_core.spec import DataSpec, Spec
from pals_core.spec.problems import problem_of
from pals_core.training.events import CheckpointSaved, Finished, Result, TrainingEvent
from pals_core.training.trainer import Trainer


@dataclass(frozen=True)
class Trained:
    """What came out: the result, the best checkpoint's file, and how good it is on the test part."""

    result: Result
    path: Path
    evaluation: Evaluation
    stopped_early: bool


def train(
    spec: Spec | Mapping[str, Any],
    table: Table | pd.DataFrame | str | Path,
    output_dir: str | Path | None = None,
    on_event: Callable[[TrainingEvent], None] | None = None,
    *,
    resume_from: str | Path | None = None,
) -> Trained:
    """Train a forecaster and return its result and file; without `output_dir`, in a new temporary folder.

    `spec` may leave open what depends on the data. `resume_from` is a state file of an interrupted training. Raises
    InvalidSpec with every problem, InvalidTable, InvalidCheckpoint for a state that is not this training's, and
    TrainingFailed when the training could not go on, whose `checkpoint` is the best one so far.
    """
    parsed = spec if isinstance(spec, Spec) else parse_spec(spec)
    series = _as_table(table, parsed.data)
    profile = profile_of(series)
    resolved = resolve(parsed, profile)
    if problems := check(resolved, profile):
        raise InvalidSpec(problems[0].message, tuple(problems))
    folder = Path(tempfile.mkdtemp(prefix="pals-") if output_dir is None else output_dir)

    best: CheckpointSaved | None = None
    finished: Finished | None = None
    for event in Trainer(resolved, series, folder, resume_from=resume_from).run():
        if on_event is not None:
            on_event(event)
        if isinstance(event, CheckpointSaved) and event.is_best:
            best = event
        elif isinstance(event, Finished):
            finished = event
    if best is None or best.evaluation_path is None or finished is None:
        raise RuntimeError("the training ended without a result")
    evaluation = Evaluation.model_validate_json(Path(best.evaluation_path).read_bytes())
    return Trained(finished.result, Path(best.path), evaluation, finished.stopped_early)


def parse_spec(fields: Mapping[str, Any]) -> Spec:
    """Return the spec of plain data; raises InvalidSpec with a JSON pointer to each wrong field."""
    try:
        return Spec.model_validate(fields)
    except ValidationError as error:
        problems = tuple(problem_of(detail, fields, detail["loc"]) for detail in error.errors())
        raise InvalidSpec(f"{problems[0].pointer}: {problems[0].message}", problems) from error


def _as_table(table: Table | pd.DataFrame | str | Path, data: DataSpec) -> Table:
    if isinstance(table, Table):
        return table
    try:
        return table_of(table, data.columns)
    except InvalidSpec as error:
        problems = tuple(replace(problem, pointer=_place_of(problem.column, data)) for problem in error.problems)
        raise InvalidSpec(error.message, problems) from error


def _place_of(column: str | None, data: DataSpec) -> str | None:
    """Return where a spec names a column."""
    for field in ("targets", "known_future"):
        if column in (names := getattr(data, field) or ()):
            return pointer_of(["data", field, names.index(column)])
    return None
