from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import SERVE


@pytest.mark.parametrize(
    ("database_url", "reason"),
    [
        (None, "run `pals migrate`"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/pals", "the database does not answer"),
    ],
)
def test_without_a_usable_database_it_exits_with_one_line(
    tmp_path: Path, database_url: str | None, reason: str
) -> None:
    environment = {**os.environ, "PALS_DATA_DIR": str(tmp_path), "PALS_PORT": "0"}
    if database_url is not None:
        environment["PALS_DATABASE_URL"] = database_url
    ended = subprocess.run([sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert reason in last
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
