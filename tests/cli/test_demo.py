"""`pals demo`, run as a user runs it, with a training that takes seconds."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer

from cli import demo, example_series
from pals_core import Evaluation, load_forecaster
from tests.eventually import eventually

QUICK: dict[str, Any] = {
    "data": {"horizon": 52, "input_len": 104, "missing": "interpolate"},
    "model": {"name": "dlinear"},
    "method": {"name": "pals", "prune_rate_factor": 1.5, "update_interval": 5},
    "training": {"epochs": 2, "learning_rate": 1e-3, "device": "cpu"},
}
DEMO = [sys.executable, "-m", "cli.main", "demo", "--output-dir"]


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, empty before and to be empty after."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(demo, "SPEC", QUICK)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_user_sees_a_forecaster_made_and_keeps_its_file_and_pictures(
    quick: None, own_temporary_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    demo.run(folder)

    assert sorted(path.name for path in folder.iterdir()) == [
        "evaluation.json", "evaluation.png", "forecast.png", "mauna_loa_co2.pals.safetensors", "training.png",
    ]  # fmt: skip
    said, complained = capfd.readouterr()
    assert complained == ""
    # Not a terminal: whole lines, no control characters.
    assert [character for character in said if character != "\n" and not character.isprintable()] == []
    file = folder / "mauna_loa_co2.pals.safetensors"
    assert f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}… verified" in said
    assert f"{file.stat().st_size:,} sparse" in said
    assert f"{2 * 2 * 104 * 52:,} FLOPs dense" in said
    assert f"checkpoint      {file}\n" in said
    assert "epoch 2: train loss" in said
    assert len(load_forecaster(file).forecast().timestamps) == 52
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())
    assert f"{evaluation.intervals[0].coverage:.0f} % inside of those of 80 %" in said
    assert list(own_temporary_folder.iterdir()) == []
    assert [child for child in psutil.Process().children() if "serve" in child.cmdline()] == []


def test_the_settings_of_another_service_are_left_alone(
    quick: None, own_temporary_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALS_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("PALS_PORT", "not a port")
    demo.run(tmp_path / "demo")

    assert (tmp_path / "demo" / "forecast.png").exists()


def test_without_its_series_it_says_so_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example_series, "SERIES_PATH", tmp_path / "absent.csv")
    with pytest.raises(typer.Exit) as end:
        demo.run(tmp_path / "demo")

    assert end.value.exit_code == 1
    assert "absent.csv" in capsys.readouterr().out


@pytest.fixture
def in_the_foreground() -> Iterator[None]:
    """What is started here hears Ctrl-C, even where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_it_leaves_nothing_behind(
    own_temporary_folder: Path, tmp_path: Path, asked: signal.Signals
) -> None:
    process = subprocess.Popen([*DEMO, str(tmp_path / "demo")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "can be pruned" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, "the service, its worker and a training process"
    process.send_signal(asked)
    rest = process.stdout.read()
    process.stdout.close()

    assert process.wait(60) == 130
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    assert [relative for relative in family if relative.is_running()] == []
    assert list(own_temporary_folder.iterdir()) == []


def test_killed_it_leaves_nothing_running(own_temporary_folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([*DEMO, str(tmp_path / "demo")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "is ready" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, "the service, its worker and a training process"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()

    eventually(lambda: not any(relative.is_running() for relative in family), "the service has stopped", 60)
