"""Every error this library raises on purpose.

PalsError                    code, message and problems for a person and a program
├── InvalidTable             the series table cannot be used
├── InvalidSpec              the training spec is wrong, by itself or for this table
├── InvalidCheckpoint        the checkpoint file is damaged, hostile or of another version, or cannot be as asked for
├── InvalidForecastInput     the recent values given for a forecast do not fit the model
├── TrainingFailed           training could not go on (diverged, no memory, no such device)
└── ExportFailed             a checkpoint cannot be written in another format here
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ErrorCode(StrEnum):
    """Stable, machine-readable codes; the API and the CLI show them unchanged."""

    INVALID_TABLE = "invalid_table"
    INVALID_SPEC = "invalid_spec"
    INVALID_CHECKPOINT = "invalid_checkpoint"
    INVALID_FORECAST_INPUT = "invalid_forecast_input"
    OUT_OF_MEMORY = "out_of_memory"
    DEVICE_UNAVAILABLE = "device_unavailable"
    DIVERGED = "diverged"
    NOT_DETERMINISTIC = "not_deterministic"
    EXPORT_FAILED = "export_failed"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it is, and what to do about it.

    `pointer` is a JSON pointer into the spec or request (`/data/horizon`); `row` is the row of the
    file as an editor counts its lines (the header is row 1); `column` is the column's name.
    """

    message: str
    pointer: str | None = None
    row: int | None = None
    column: str | None = None


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def pointer_of(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) to the place at the end of a path of keys and positions."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


class PalsError(Exception):
    """Base of every error raised on purpose."""

    default_code: ErrorCode

    def __init__(
        self,
        message: str,
        problems: tuple[Problem, ...] = (),
        *,
        code: ErrorCode | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems
        self.code = code or self.default_code


class InvalidTable(PalsError):
    default_code = ErrorCode.INVALID_TABLE


class InvalidSpec(PalsError):
    default_code = ErrorCode.INVALID_SPEC


class InvalidCheckpoint(PalsError):
    default_code = ErrorCode.INVALID_CHECKPOINT


class InvalidForecastInput(PalsError):
    default_code = ErrorCode.INVALID_FORECAST_INPUT


class TrainingFailed(PalsError):
    """`checkpoint` is the file of the best epoch before, if there was one."""

    default_code = ErrorCode.DIVERGED
    checkpoint: Path | None = None


class ExportFailed(PalsError):
    default_code = ErrorCode.EXPORT_FAILED
