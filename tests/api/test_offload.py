from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.offload import OffloadPool
from api.offload_process import ChildLimits, OffloadCause, OffloadFailed, OffloadProcess, OffloadRefused
from api.offload_protocol import OffloadKind
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder
from pals_core.openmp import BRIEFLY_SPINNING
from tests.eventually import eventually

TABLE = b"date,a\n2026-01-01,1\n2026-01-02,2\n2026-01-03,4\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(TABLE)
    return path


def pool_in(folder: Path, **settings: object) -> OffloadPool:
    """A pool whose store is a folder that is looked at directly."""
    return OffloadPool(Settings.model_validate(settings), ArtifactFolder(str(folder)))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[OffloadPool]:
    opened = pool_in(tmp_path)
    yield opened
    opened.close()


def children() -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if "api.offload_child" in line}


def test_an_audit_comes_back_as_plain_data(pool: OffloadPool, table: Path) -> None:
    assert pool.audit(table.name).result()["columns"] == ["a"]


def test_a_child_is_kept_warm_and_replaced_when_it_died(pool: OffloadPool, table: Path) -> None:
    pool.audit(table.name).result()
    first = children()
    assert len(first) == 1
    pool.audit(table.name).result()
    assert children() == first
    os.kill(first.pop(), signal.SIGKILL)
    assert pool.audit(table.name).result()["rows"] == 3


def test_what_the_child_finds_wrong_is_passed_on_and_the_child_kept(pool: OffloadPool, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"no table")
    with pytest.raises(OffloadRefused) as refused:
        pool.audit(rubbish.name).result()
    assert refused.value.code == "invalid_table"
    assert len(children()) == 1


def test_a_child_that_dies_at_work_is_reported_and_replaced(pool: OffloadPool, table: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waiting = pool.audit(pipe.name)
    while not (born := children()):
        time.sleep(0.01)
    os.kill(born.pop(), signal.SIGKILL)
    with pytest.raises(OffloadFailed) as failed:
        waiting.result()
    assert failed.value.cause is OffloadCause.CRASHED
    assert pool.audit(table.name).result()["rows"] == 3


def test_a_child_beyond_its_time_is_killed(table: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pool = pool_in(tmp_path, audit_seconds=2)
    try:
        with pytest.raises(OffloadFailed) as failed:
            pool.audit(pipe.name).result()
        assert failed.value.cause is OffloadCause.TIMEOUT
        assert children() == set()
        assert pool.audit(table.name).result()["rows"] == 3
    finally:
        pool.close()


def test_closing_ends_every_child_and_whoever_waits(table: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pool = pool_in(tmp_path)
    pool.audit(table.name).result()
    waiting = pool.audit(pipe.name)
    pool.close()
    with pytest.raises(OffloadFailed) as failed:
        waiting.result()
    assert failed.value.cause is OffloadCause.CLOSED
    assert children() == set()
    with pytest.raises(OffloadFailed):
        pool.audit(table.name)


def test_a_child_sees_no_secret_of_the_environment(
    pool: OffloadPool, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALS_DATABASE_URL", "postgresql+psycopg://user:secret@localhost/pals")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    pool.audit(table.name).result()
    (child,) = children()
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret" not in environment


@pytest.mark.parametrize(
    ("said", "waiting"),
    [({}, dict(BRIEFLY_SPINNING)), ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"})],
)
def test_threads_of_a_forecast_wait_as_the_environment_says_or_spin_briefly(
    said: dict[str, str], waiting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in BRIEFLY_SPINNING:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    child = OffloadProcess(OffloadKind.FORECAST, ChildLimits(60.0, 2**33))
    try:
        environment = eventually(psutil.Process(child._process.pid).environ, "the child has an environment", 10)
    finally:
        child.stop()
    assert {name: environment[name] for name in BRIEFLY_SPINNING if name in environment} == waiting


def test_a_child_ends_with_its_input_even_at_work(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = subprocess.Popen(
        [sys.executable, "-m", "api.offload_child", "audit", str(2 << 30), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert json.loads(child.stdout.readline()) == {"ready": True}
    child.stdin.write(json.dumps({"path": str(pipe)}).encode() + b"\n")
    child.stdin.flush()
    child.stdin.close()
    assert child.wait(30) == 0
    child.stdout.close()


def test_a_child_knows_no_other_functions() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api.offload_child", "os.system", "0", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert ended.stdout == b""


def test_children_do_not_outlive_a_killed_parent(table: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from api.offload import OffloadPool;"
        "from jobstore.settings import Settings; from jobstore.storage import ArtifactFolder;"
        "pool = OffloadPool(Settings(), ArtifactFolder(sys.argv[1])); pool.audit(sys.argv[2]).result();"
        "print('warm', flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), table.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"warm\n"
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True, check=True)
    (child,) = (int(line) for line in listed.stdout.split())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.stdin.close()
    parent.stdout.close()
