from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobstore.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PALS_{name.upper()}", raising=False)


def test_without_any_setting_everything_lies_in_one_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = Settings()

    assert settings.embedded
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.root == Path("/home/ada/.pals")
    assert settings.resolved_database_url == "sqlite:////home/ada/.pals/pals.db"
    assert settings.resolved_broker_url == "message-folder://"
    assert settings.resolved_artifacts_url == "file:///home/ada/.pals/artifacts"


def test_each_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PALS_PORT": "9000",
        "PALS_DATA_DIR": "/srv/pals",
        "PALS_DATABASE_URL": "postgresql+psycopg://pals:secret@db/pals",
        "PALS_BROKER_URL": "redis://:secret@redis:6379/0",
        "PALS_ARTIFACTS_URL": "file:///srv/artifacts",
        "PALS_ALLOWED_HOSTS": '["pals.example.org", "10.0.0.7"]',
        "PALS_LEASE_SECONDS": "30",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()

    assert not settings.embedded
    assert (settings.port, settings.lease_seconds) == (9000, 30)
    assert settings.resolved_database_url == "postgresql+psycopg://pals:secret@db/pals"
    assert settings.resolved_broker_url == "redis://:secret@redis:6379/0"
    assert settings.resolved_artifacts_url == "file:///srv/artifacts"
    assert settings.allowed_hosts == ("pals.example.org", "10.0.0.7")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = Settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"PALS_{name.upper()}", "")

    assert Settings() == unset
    assert Settings().embedded


def test_passwords_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALS_DATABASE_URL", "postgresql+psycopg://pals:hunter2@db/pals")
    monkeypatch.setenv("PALS_BROKER_URL", "redis://:hunter2@redis/0")

    assert "hunter2" not in repr(Settings()) + str(Settings()) + Settings().model_dump_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "http"), ("LEASE_SECONDS", "0"), ("LOG_LEVEL", "loud"), ("MAX_UPLOAD_BYTES", "-1")],
)
def test_a_value_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PALS_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_the_folder_may_be_written_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("PALS_DATA_DIR", "~/pals data")

    assert Settings().root == Path("/home/ada/pals data")
    assert Settings().resolved_artifacts_url == "file:///home/ada/pals%20data/artifacts"


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []
