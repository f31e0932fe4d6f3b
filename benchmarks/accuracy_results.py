"""The result file of an accuracy grid: every finished cell, on disk as soon as it is finished."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.accuracy_cells import Cell
from pals_core.checkpoint.tensor_file import replacing


class Results:
    """The content of one result file; what was finished by an earlier run is there again.

    `runs` says when, on what and from which commit each cell came; `naive` holds the seasonal naive errors by horizon.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        """Read `path` if it is there; raises ValueError when it is of another dataset."""
        self.path = path
        self.content: dict[str, Any] = {"dataset": dataset, "runs": [], "naive": {}, "cells": []}
        if path.exists():
            self.content = json.loads(path.read_text())
            if self.content["dataset"] != dataset:
                raise ValueError(f"{path} holds results of {self.content['dataset']}, not of {dataset}")

    @property
    def cells(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.content["cells"]
        return found

    def of(self, cell: Cell) -> dict[str, Any] | None:
        """Return what is known of a cell."""
        return next((known for known in self.cells if _is(known, cell)), None)

    def sparsity(self, cell: Cell) -> float | None:
        """Return the sparsity that a cell reached; None when it is not finished."""
        known = self.of(cell)
        return known["result"]["sparsity"] if known is not None and "result" in known else None

    def is_done(self, cell: Cell, spec: Mapping[str, Any]) -> bool:
        """Return whether a cell was finished with this very spec; one that failed was not."""
        known = self.of(cell)
        return known is not None and "result" in known and known["spec"] == spec

    def add_naive(self, horizon: int, errors: Mapping[str, Any]) -> None:
        self.content["naive"][str(horizon)] = dict(errors)

    def add(self, cell: Cell, facts: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Write down a finished or failed cell in place of what was known of it before."""
        runs = self.content["runs"]
        if run not in runs:
            runs.append(dict(run))
        known = [other for other in self.cells if not _is(other, cell)]
        self.content["cells"] = [*known, cell.key | {"run": runs.index(run)} | dict(facts)]
        self.save()

    def save(self) -> None:
        """Replace the file as a whole, so that it is complete whenever the machine stops."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as part:
            part.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")

    def expected_seconds(self, cells: Iterable[Cell]) -> float | None:
        """Return about how long the unfinished of `cells` take, judged by what is finished; None while nothing is."""
        finished = [known for known in self.cells if "result" in known]
        if not finished:
            return None
        return sum(self._expected(cell, finished) for cell in cells if self.sparsity(cell) is None)

    @staticmethod
    def _expected(cell: Cell, finished: list[dict[str, Any]]) -> float:
        """From the closest relatives that there are."""
        label = cell.case.contender.label
        of_model = [known for known in finished if known["model"] == label]
        of_method = [known for known in of_model if known["method"] == cell.method]
        return statistics.mean(float(known["seconds"]) for known in (of_method or of_model or finished))


def _is(known: Mapping[str, Any], cell: Cell) -> bool:
    return all(known[name] == value for name, value in cell.key.items())
