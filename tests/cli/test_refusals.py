from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from cli.refusals import read_settings


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def told(command: str, code: int = 2) -> str:
    """What a refused command says; it says it in a line. In a process of its own: it sets up logs and signals."""
    done = subprocess.run([sys.executable, "-m", "cli.main", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (code, 1, ""), done.stderr
    return done.stderr


@pytest.mark.parametrize("command", ["serve", "api", "worker", "workers", "migrate"])
def test_every_command_names_a_wrong_setting(command: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALS_PORT", "abc")
    assert told(command) == "PALS_PORT: must be a valid integer, unable to parse string as an integer; it is 'abc'\n"
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PALS_LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'; it is 'loud'"),
        ("PALS_LEASE_SECONDS", "1e300", "must be less than or equal to 86400; it is '1e300'"),
        ("PALS_LEASE_GRACE_SECONDS", "inf", "must be a finite number; it is 'inf'"),
        ("PALS_ALLOWED_HOSTS", "pals.example.org", "JSON list of further host names"),
        ("PALS_DATABASE_URL", "hunter2", "must be postgresql+psycopg://user:password@host/name, or sqlite:///file"),
        ("PALS_DATABASE_URL", "mysql://ada:hunter2@db/x", "must be postgresql+psycopg://user:password@host/name"),
        ("PALS_BROKER_URL", "amqp://ada:hunter2@mq", "must be redis://…, or rediss://… for TLS"),
    ],
)
def test_a_wrong_setting_is_told_without_secrets(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(typer.Exit) as left:
        read_settings()
    said = capsys.readouterr().err
    assert (left.value.exit_code, said.count("\n")) == (2, 1)
    assert said.startswith(f"{name}: {says}")
    assert "hunter2" not in said


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_folder_that_is_a_file_is_named(command: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir.write_text("a file")
    assert str(data_dir) in told(command)


@pytest.mark.parametrize("command", ["serve", "migrate", "workers"])
def test_a_damaged_database_is_told(command: str, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "pals.db").write_bytes(b"no database" * 1000)
    assert "database" in told(command)


@pytest.mark.parametrize("command", ["serve", "migrate", "workers"])
def test_a_database_of_a_newer_version_is_left_alone(command: str, data_dir: Path) -> None:
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    with closing(sqlite3.connect(data_dir / "pals.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        before = list(connection.iterdump())
    said = told(command)
    assert said.startswith("the database is at version 9999, this program knows versions up to ")
    assert "a newer version of it has been here" in said
    with closing(sqlite3.connect(data_dir / "pals.db")) as connection:
        assert list(connection.iterdump()) == before


def test_to_look_for_workers_makes_no_database(data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["workers"])
    assert (result.exit_code, result.stdout.replace("\n", "")) == (0, f"no service has run in {data_dir} yet")
    assert not data_dir.exists()


def test_an_artifact_store_that_is_none_ends_the_api_with_a_line(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    monkeypatch.setenv("PALS_ARTIFACTS_URL", "s3://")
    assert told("api", code=1).startswith("PALS_ARTIFACTS_URL must be s3://bucket/prefix")
