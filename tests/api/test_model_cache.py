"""Models that forecasts keep loaded: one child has each, and none that is gone or changed is served."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from api.offload import OffloadPool
from api.offload_process import OffloadCause, OffloadFailed, OffloadRefused
from jobstore.artifacts import get_artifact
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder
from jobstore.tables import Checkpoint, Dataset
from tests.api.conftest import Problem, Server


def forecasting_children(parent: int) -> set[int]:
    """Process ids of the children of a process that forecast."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if "api.offload_child forecast" in line}


def until_one_reads(pipe: Path) -> int:
    """Open a pipe for writing once a process waits to read it; the descriptor."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.02)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[OffloadPool]:
    """With two children that forecast, from files in `tmp_path`."""
    opened = OffloadPool(Settings.model_validate({"offload_processes": 3}), ArtifactFolder(str(tmp_path)))
    yield opened
    opened.close()


@pytest.fixture
def file(best_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(best_checkpoint, tmp_path / "checkpoint"))


def test_however_many_ask_one_child_has_the_model(pool: OffloadPool, file: Path) -> None:
    answers = [pool.forecast({}, {"checkpoint": file.name}) for _ in range(12)]

    first = answers[0].result()
    assert all(answer.result() == first for answer in answers)
    assert len(forecasting_children(os.getpid())) == 1


def test_a_loaded_model_is_not_read_again_until_its_file_changes(pool: OffloadPool, file: Path) -> None:
    expected = pool.forecast({}, {"checkpoint": file.name}).result()
    as_loaded = file.stat()
    with file.open("r+b") as damaged:
        damaged.seek(-1, os.SEEK_END)
        damaged.write(b"\xff")
    os.utime(file, ns=(as_loaded.st_atime_ns, as_loaded.st_mtime_ns))
    assert pool.forecast({}, {"checkpoint": file.name}).result() == expected

    os.utime(file, ns=(0, 0))
    with pytest.raises(OffloadRefused, match="digest"):
        pool.forecast({}, {"checkpoint": file.name}).result()


def test_other_models_do_not_wait_for_a_busy_child(pool: OffloadPool, file: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    shutil.copy(file, tmp_path / "other")
    stuck = pool.forecast({}, {"checkpoint": file.name, "table": pipe.name})
    written = until_one_reads(pipe)
    assert pool.forecast({}, {"checkpoint": "other"}).result()["columns"]
    assert not stuck.done()
    assert len(forecasting_children(os.getpid())) == 2
    os.close(written)


def test_who_waits_behind_a_child_that_dies_is_answered_by_another(
    pool: OffloadPool, file: Path, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    stuck = pool.forecast({}, {"checkpoint": file.name, "table": pipe.name})
    written = until_one_reads(pipe)
    behind = [pool.forecast({}, {"checkpoint": file.name}) for _ in range(3)]
    (child,) = forecasting_children(os.getpid())
    os.kill(child, signal.SIGKILL)

    with pytest.raises(OffloadFailed) as failed:
        stuck.result()
    assert failed.value.cause is OffloadCause.CRASHED
    assert all(answer.result()["columns"] for answer in behind)
    assert child not in forecasting_children(os.getpid())
    os.close(written)


def stored(server: Server, checkpoint: Path) -> tuple[str, Path]:
    """A checkpoint of a job that ended: the URL of its forecasts, and where its bytes are."""
    lease = server.claim(server.queue()["id"])
    checkpoint_id = server.checkpoint(lease, 1, checkpoint)
    server.end(lease)
    with server.database.read() as session:
        key = get_artifact(session, session.get_one(Checkpoint, checkpoint_id).artifact_id).key
    return f"/v1/checkpoints/{checkpoint_id}/forecasts", server.artifacts.path(key)


def test_a_deleted_checkpoint_is_not_forecast_with(server: Server, best_checkpoint: Path, problem: Problem) -> None:
    url, _ = stored(server, best_checkpoint)
    assert server.http.post(url).status_code == 200
    assert server.http.delete(url.removesuffix("/forecasts")).status_code == 204

    problem(server.http.post(url), 404, "not_found")


def test_bytes_that_changed_or_are_gone_are_told(server: Server, best_checkpoint: Path, problem: Problem) -> None:
    url, path = stored(server, best_checkpoint)
    assert server.http.post(url).status_code == 200
    path.write_bytes(path.read_bytes()[:-1])
    problem(server.http.post(url), 500, "invalid_checkpoint")
    path.unlink()
    problem(server.http.post(url), 503, "storage_unavailable")


def test_a_forecast_holds_up_nobody_and_its_dead_child_is_told(
    server: Server, best_checkpoint: Path, problem: Problem
) -> None:
    url, _ = stored(server, best_checkpoint)
    assert server.http.post(url).status_code == 200
    dataset_id = server.upload(name="stuck")["id"]
    with server.database.read() as session:
        artifact_id = session.get_one(Dataset, dataset_id).artifact_id
        assert artifact_id is not None
        table = server.artifacts.path(get_artifact(session, artifact_id).key)
    contents = table.read_bytes()
    table.unlink()
    os.mkfifo(table)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.http.post, url, json={"dataset_id": dataset_id})
        # A child that was kept and died is replaced and asked again, once; that a fresh one died is told.
        for _ in range(2):
            written = until_one_reads(table)
            assert server.http.get("/healthz").status_code == 200
            assert server.http.get(url.removesuffix("/forecasts")).status_code == 200
            (child,) = forecasting_children(server.process.pid)
            os.kill(child, signal.SIGKILL)
            while Path(f"/proc/{child}").exists():
                time.sleep(0.02)
            os.close(written)
        problem(waiting.result(), 503, "forecast_unavailable")
    # Other tests upload the same bytes, which are stored once.
    table.unlink()
    table.write_bytes(contents)

    assert waiting.result().headers["retry-after"]
    assert server.http.post(url).status_code == 200


def test_many_ask_at_once_over_http(server: Server, best_checkpoint: Path) -> None:
    url, _ = stored(server, best_checkpoint)

    def ask(_number: int) -> Any:
        answer = server.http.post(url)
        assert answer.status_code == 200, answer.text
        return answer.json()

    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(ask, number) for number in range(32)]
        wait(asked)
    assert len({str(one.result()) for one in asked}) == 1
    assert len(forecasting_children(server.process.pid)) == 1
