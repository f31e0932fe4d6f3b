from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cli.main import app
from jobstore.settings import Settings

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "api", "worker", "worker-gpu")
SETTINGS = {f"PALS_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services: dict[str, Any] = loaded["services"]
    return services


def test_every_service_runs_a_command_that_exists(services: dict[str, Any]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    assert {name: services[name]["command"] for name in OURS} == {
        "migrate": ["migrate"],
        "api": ["api"],
        "worker": ["worker"],
        "worker-gpu": ["worker"],
    }
    assert {services[name]["command"][0] for name in OURS} <= set(commands)


@pytest.mark.parametrize("name", OURS)
def test_every_setting_a_service_is_given_exists(services: dict[str, Any], name: str) -> None:
    given = set(services[name]["environment"])

    assert given >= {"PALS_DATABASE_URL", "PALS_BROKER_URL", "PALS_ARTIFACTS_URL"}
    assert given <= SETTINGS


@pytest.mark.parametrize("name", OURS)
def test_the_settings_a_service_is_given_are_accepted(
    services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in services[name]["environment"].items():
        monkeypatch.setenv(variable, re.sub(r"\$\{[^}]*\}", "secret", value))

    settings = Settings()

    assert not settings.embedded
    assert settings.resolved_database_url == "postgresql+psycopg://pals:secret@postgres:5432/pals"
    assert settings.resolved_broker_url == "redis://:secret@redis:6379/0"


def test_the_api_is_published_on_its_own_port_to_this_machine_only(services: dict[str, Any]) -> None:
    port = Settings.model_fields["port"].default

    assert services["api"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert [name for name, service in services.items() if "ports" in service] == ["api"]


def test_passwords_come_from_the_environment_and_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", text)

    assert {name for name, _ in variables} == {"PALS_POSTGRES_PASSWORD", "PALS_REDIS_PASSWORD"}
    assert all(otherwise.startswith(":?") for _, otherwise in variables)
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and re.search(r"password|requirepass|_auth", line, re.IGNORECASE):
            assert "${" in line


def test_nothing_of_ours_starts_before_the_schema_is_there(services: dict[str, Any]) -> None:
    for name in ("api", "worker", "worker-gpu"):
        assert services[name]["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "redis": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    assert "test" in services["postgres"]["healthcheck"]
    assert "test" in services["redis"]["healthcheck"]


def test_ours_are_reaped_given_time_to_drain_and_share_artifacts(services: dict[str, Any]) -> None:
    for name in OURS:
        assert services[name]["init"] is True
        assert services[name]["stop_grace_period"] == "30s"
    folder = services["api"]["environment"]["PALS_ARTIFACTS_URL"].removeprefix("file://")
    for name in ("api", "worker", "worker-gpu"):
        assert f"artifacts:{folder}" in services[name]["volumes"]


def test_the_gpu_worker_alone_asks_for_a_gpu_and_only_on_demand(services: dict[str, Any]) -> None:
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert devices[0]["capabilities"] == ["gpu"]
    assert services["worker-gpu"]["build"]["args"] == {"TORCH": "cuda"}
    assert services["worker-gpu"]["image"] != services["worker"]["image"]
    assert [name for name, service in services.items() if "profiles" in service] == ["worker-gpu"]
    assert [name for name, service in services.items() if "deploy" in service] == ["worker-gpu"]


def test_every_named_volume_is_declared(services: dict[str, Any]) -> None:
    declared = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"])
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}

    assert used == declared
