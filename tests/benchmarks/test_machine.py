"""A result says which commit it is of."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import machine


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("benchmarks/results", "docs", "worker"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("as committed")
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "--message", "all")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "dirty"), [("benchmarks/results", False), ("docs", False), ("benchmarks", False), ("worker", True)]
)
def test_a_commit_is_dirty_when_what_runs_has_changed(repository: Path, folder: str, dirty: bool) -> None:
    (repository / folder / "file").write_text("since")  # a file of its own where none was committed
    assert re.fullmatch(r"[0-9a-f]{7,}" + ("-dirty" if dirty else ""), machine.provenance()["commit"])


def test_without_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.provenance()["commit"] is None
