from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SKIPPING = """
import os
from pathlib import Path

import pytest

@pytest.fixture
def server():
    pytest.skip("skipped in a fixture")

def test_fixture(server):
    assert True

def test_call():
    pytest.skip("skipped in the test")

@pytest.mark.skip(reason="skipped by a mark")
def test_mark():
    assert True

@pytest.mark.gpu
def test_gpu():
    pytest.skip("no CUDA device")

@pytest.mark.instructions
def test_instructions():
    pytest.skip("no bfloat16")

@pytest.mark.xfail
def test_known_to_fail():
    raise RuntimeError

def test_settings():
    assert "PALS_DATABASE_URL" not in os.environ
    assert os.environ["PALS_TEST_REDIS_URL"] == "redis://test"
    assert os.environ["PALS_DATA_DIR"] != "/home/me/pals"
    assert list(Path(os.environ["PALS_DATA_DIR"]).iterdir()) == []
"""
SKIPPED_FILE = "import pytest\npytest.skip('skipped as a file', allow_module_level=True)\n"
REASONS = ("skipped in a fixture", "skipped in the test", "skipped by a mark", "skipped as a file")


def run_pytest(folder: Path, *options: str, **environment: str) -> tuple[int, list[str]]:
    """Run pytest over two small files beside this project's conftest; returns its status and the lines it printed."""
    (folder / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (folder / "test_skipping.py").write_text(SKIPPING)
    (folder / "test_skipped.py").write_text(SKIPPED_FILE)
    settings = {
        "PALS_DATABASE_URL": "postgresql+psycopg://production/jobs",
        "PALS_TEST_REDIS_URL": "redis://test",
        "PALS_DATA_DIR": "/home/me/pals",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(folder), "-o", f"pythonpath={ROOT}", *options, str(folder)]
    outside = {name: value for name, value in os.environ.items() if name != "CI"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=outside | settings | environment)
    return ran.returncode, ran.stdout.splitlines()


def test_in_ci_only_what_a_machine_has_not_may_be_skipped(tmp_path: Path) -> None:
    status, lines = run_pytest(tmp_path, "--continue-on-collection-errors", CI="true")

    assert status == 1
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed, 3 errors" in lines[-1]
    assert all(any(reason in line for line in lines) for reason in REASONS)


def test_elsewhere_a_skipped_test_is_only_told_of(tmp_path: Path) -> None:
    status, lines = run_pytest(tmp_path)

    assert status == 0
    assert "1 passed, 6 skipped, 1 xfailed" in lines[-1]
    assert all(any(reason in line for line in lines) for reason in REASONS)


def test_a_database_is_there_for_the_asking(postgres_url: str, fresh_postgres_url: str, redis_url: str) -> None:
    assert postgres_url != fresh_postgres_url
    assert redis_url.startswith("redis://")
