"""The README's commands, run as they are printed against a service of our own."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.throwaway_service import throwaway_service, wait_until_ready
from pals_client import Client
from pals_core import load_forecaster

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A real embedded service."""
    with throwaway_service() as address:
        with Client(address) as client:
            wait_until_ready(client)
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the README's."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_the_tour_with_curl_works_as_printed(address: str, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    tour = blocks("sh")
    assert tour[0].startswith(f"PALS={ADDRESS}\n")
    script = "\n".join(f"{block}\necho; echo '--- next'" for block in tour).replace(ADDRESS, address)

    done = subprocess.run(["sh", "-eu"], input=script, cwd=folder, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    said = [part.strip() for part in done.stdout.split("--- next")]
    dataset, plan, watched, evaluated, downloaded, forecast, farther, refused = said[1:9]
    assert json.loads(dataset)["status"] == "ready"
    assert json.loads(plan)["estimate"]["reachable_sparsity"][-1] > 0.5
    assert "event: mask_update" in watched
    assert '"status":"succeeded"' in watched.replace(" ", "")
    assert '"validation_loss"' in watched.splitlines()[-1]
    sha256 = hashlib.sha256((folder / "demo" / "co2.pals.safetensors").read_bytes()).hexdigest()
    assert f'etag: "{sha256}"' in downloaded.lower()
    assert len(json.loads(evaluated)["naive"]["by_step"]["original"]["mae"]) == 26
    assert len(json.loads(forecast)["timestamps"]) == 26
    assert [interval["level"] for interval in json.loads(forecast)["intervals"]] == [80, 95]
    assert len(json.loads(farther)["timestamps"]) == 52
    assert [interval["level"] for interval in json.loads(farther)["intervals"]] == [50, 90]
    assert json.loads(refused)["errors"][0]["pointer"] == "/spec/data/horizon"
    assert len(load_forecaster(folder / "demo" / "co2.pals.safetensors").forecast().timestamps) == 26


@pytest.mark.parametrize("number", [0, 1], ids=["client", "library"])
def test_the_python_examples_work_as_printed(address: str, folder: Path, number: int) -> None:
    program = blocks("python")[number].replace(ADDRESS, address)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
