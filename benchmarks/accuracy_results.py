"""The result file of an accuracy grid: every finished cell, on disk as soon as it is finished."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.accuracy_cells import Cell
from benchmarks.accuracy_tables import markdown
from benchmarks.command import Refused
from pals_core.checkpoint.tensor_file import replacing


class Results:
    """The content of one result file, and the page beside it; what another run finished meanwhile is there too.

    `recipe` is what all its trainings have else than by default; `runs` says when, on what and from which commit each
    cell came; `naive` holds the seasonal naive errors by horizon.
    """

    def __init__(self, path: Path, dataset: str, recipe: Mapping[str, Any]) -> None:
        """Read `path` if it is there; raises Refused when it is of another dataset or recipe, or damaged."""
        self.path = path
        self.dataset, self.recipe = dataset, dict(recipe)
        self.naive: dict[str, Any] = {}
        self.content: dict[str, Any] = {}
        self.reload()

    def reload(self) -> None:
        """Take over what the file holds by now."""
        found: Any = {"dataset": self.dataset, "recipe": self.recipe, "runs": [], "naive": {}, "cells": []}
        if self.path.exists():
            try:
                found = json.loads(self.path.read_bytes())
                dataset, recipe = found["dataset"], found["recipe"]
                _ = found["runs"], found["naive"], found["cells"]
            except (ValueError, TypeError, LookupError):
                raise Refused(
                    f"{self.path} is damaged, or no result file; remove it or name another --output"
                ) from None
            if (dataset, recipe) != (self.dataset, self.recipe):
                raise Refused(
                    f"{self.path} holds trainings of {dataset} with {_told(recipe)}, these are of {self.dataset} with "
                    f"{_told(self.recipe)}; name another --output"
                )
        self.content = found
        self.content["naive"] |= self.naive

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
        self.naive[str(horizon)] = self.content["naive"][str(horizon)] = dict(errors)

    def add(self, cell: Cell, facts: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Write down a finished or failed cell in place of what was known of it before."""
        with self._alone():
            self.reload()
            runs = self.content["runs"]
            if run not in runs:
                runs.append(dict(run))
            known = [other for other in self.cells if not _is(other, cell)]
            self.content["cells"] = [*known, cell.key | {"run": runs.index(run)} | dict(facts)]
            self.save()

    def save(self) -> None:
        """Replace file and page as wholes, so that they are complete whenever the machine stops."""
        with replacing(self.path) as part:
            part.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
        with replacing(self.path.with_suffix(".md")) as part:
            part.write_text(markdown(self.content))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs from writing meanwhile; the folder is what is locked, since the file is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

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


def _told(recipe: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.items()) or "nothing else than by default"
