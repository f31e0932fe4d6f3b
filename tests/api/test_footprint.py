"""What the API process may not hold: whole uploads, and the libraries its children work with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import Server

UPLOAD_BYTES = 200 * 1024 * 1024
HELD_BYTES = 32 * 1024 * 1024

CYCLE = """
import json, sys
from pathlib import Path
import threading, time
import httpx, uvicorn
from api.app import create_app
from jobstore.database import open_database
from jobstore.schema import upgrade
from jobstore.settings import Settings
from jobstore.artifacts import new_artifact
from jobstore.storage import ArtifactFolder
from jobstore.checkpoints import NewCheckpoint, checkpoints_of
from jobstore.leases import Report, claim_next, record

folder, checkpoint, table = sys.argv[1:]
settings = Settings(data_dir=folder)
database = open_database(settings)
upgrade(database)
server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="warning", lifespan="on"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    assert thread.is_alive()
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]
with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
    dataset = http.post("/v1/datasets?name=x", content=Path(table).read_bytes(), headers={"content-type": "text/csv"})
    assert dataset.status_code == 201, dataset.text
    spec = {"data": {"input_len": 12, "horizon": 4}, "model": "dlinear"}
    job = http.post("/v1/jobs", json={"dataset_id": dataset.json()["id"], "spec": spec})
    assert job.status_code == 202, job.text
    with database.write() as session:
        lease = claim_next(session, "wrk", ("auto",), lease_seconds=60)
        artifact = new_artifact(session, "default", "checkpoints")
    blob = ArtifactFolder(settings.resolved_artifacts_url).put(artifact.key, Path(checkpoint))
    with database.write() as session:
        new = NewCheckpoint(artifact.id, blob, 1, 1, True, True, 0.5, 0.5, None, {})
        record(session, lease, Report(1, checkpoint=new))
        found = checkpoints_of(session, lease.job_id)[0].id
    forecast = http.post(f"/v1/checkpoints/{found}/forecasts")
    assert forecast.status_code == 200, forecast.text
    assert http.get(f"/v1/checkpoints/{found}/content").status_code == 200
server.should_exit = True
thread.join()
database.close()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_whole_cycle_never_imports_what_the_children_use(
    server: Server, best_checkpoint: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(server.table)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", CYCLE, str(tmp_path / "data"), str(best_checkpoint), str(table)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    modules = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "fastapi" in modules
    assert not modules & {"torch", "pandas", "numpy", "pyarrow", "safetensors"}


def peak_memory(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("the system does not tell a process's peak memory in /proc")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def rubbish(size: int) -> Iterator[bytes]:
    piece = b"\xde\xad\xbe\xef" * (16 * 1024)
    for _ in range(size // len(piece)):
        yield piece


@pytest.mark.parametrize("form", [False, True])
def test_an_upload_is_never_held_in_memory(server: Server, form: bool) -> None:
    def body() -> Iterator[bytes]:
        if form:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        yield from rubbish(UPLOAD_BYTES)
        if form:
            yield b"\r\n--x--\r\n"

    server.upload()
    before = peak_memory(server)
    content_type = "multipart/form-data; boundary=x" if form else "application/octet-stream"
    response = server.http.post("/v1/datasets?name=x", content=body(), headers={"Content-Type": content_type})
    assert response.status_code == 422, response.text
    assert peak_memory(server) - before < HELD_BYTES
