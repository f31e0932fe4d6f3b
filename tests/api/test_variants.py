"""Checkpoints in other formats over HTTP: made once, kept with their checkpoint, and told when they cannot be."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load as load_tensors
from sqlalchemy import select

from jobstore.artifacts import get_artifact
from jobstore.tables import Artifact, Dataset, Variant
from pals_core.checkpoint.container import read_header
from pals_core.data.table import Table
from tests.api.conftest import Problem, Server, csv_of, serving

# So that a process's death, and a failure, are soon forgotten.
HASTY = "import api.variants as v; v.OWNED_SECONDS, v.RENEW_SECONDS, v.FAILED_SECONDS = 3.0, 0.5, 1.0; "


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, series: Table) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hasty"), before=HASTY) as running:
        running.table = csv_of(series)
        yield running


@pytest.fixture(scope="module")
def evaluation(best_checkpoint: Path) -> Path:
    return best_checkpoint.with_name(best_checkpoint.name.replace(".pals.safetensors", ".evaluation.json"))


def stored(server: Server, file: Path, evaluation: Path | None = None) -> str:
    """The URL of a checkpoint of a job that ended."""
    lease = server.claim(server.queue(name="waves")["id"])
    checkpoint_id = server.checkpoint(lease, 1, file, evaluation)
    server.end(lease)
    return f"/v1/checkpoints/{checkpoint_id}"


@pytest.fixture(scope="module")
def url(hasty: Server, best_checkpoint: Path, evaluation: Path) -> str:
    return stored(hasty, best_checkpoint, evaluation)


def ask(server: Server, url: str, **query: str) -> httpx.Response:
    return server.http.get(f"{url}/content", params=query)


def made(server: Server, url: str, *also: int, **query: str) -> httpx.Response:
    """The content once it is made; answers of other statuses in `also` are asked again, too."""
    while (response := ask(server, url, **query)).status_code in (202, *also):
        time.sleep(0.1)
    return response


def making_child(server: Server) -> int:
    """The child of the server that makes a variant, once there is one."""
    while True:
        command = ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for line in listed:
            if "api.offload_child variant" in line:
                return int(line.split()[0])
        time.sleep(0.02)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_precision_is_made_measured_and_downloaded(
    hasty: Server, url: str, best_checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    first = ask(hasty, url, precision=precision)
    assert first.status_code == 202
    assert int(first.headers["retry-after"]) >= 1
    assert first.headers["location"] == f"{url}/content?format=packed&precision={precision}"
    assert (first.json()["status"], first.json()["sha256"]) == ("making", None)

    response = made(hasty, url, precision=precision)
    assert response.status_code == 200, response.text
    digest = hashlib.sha256(response.content).hexdigest()
    assert response.headers["etag"] == f'"{digest}"'
    assert response.headers["content-disposition"] == f'attachment; filename="waves.{precision}.pals.safetensors"'
    (file := tmp_path / "file").write_bytes(response.content)
    header = read_header(file)
    assert header.precision == precision
    assert header.mse_change is not None
    assert len(response.content) < best_checkpoint.stat().st_size

    shown = next(one for one in hasty.http.get(url).json()["variants"] if one["precision"] == precision)
    assert shown == {
        "format": "packed",
        "precision": precision,
        "status": "ready",
        "bytes": len(response.content),
        "sha256": digest,
        "mse_change": header.mse_change,
        "may_be_default": header.may_be_default,
        "url": first.headers["location"],
    }
    location = hasty.http.get(first.headers["location"], headers={"If-None-Match": response.headers["etag"]})
    assert location.status_code == 304


def test_a_variant_has_ranges_and_head_like_the_original(hasty: Server, url: str) -> None:
    whole = made(hasty, url, precision="fp16")
    part = hasty.http.get(
        f"{url}/content",
        params={"precision": "fp16"},
        headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]},
    )
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    head = hasty.http.head(f"{url}/content", params={"precision": "fp16"})
    assert head.headers["etag"] == whole.headers["etag"]
    assert int(head.headers["content-length"]) == len(whole.content)


def test_dense_onnx_and_card_are_made(hasty: Server, url: str) -> None:
    dense = made(hasty, url, format="dense")
    assert dense.headers["content-type"] == "application/vnd.safetensors"
    assert load_tensors(dense.content)
    onnx = made(hasty, url, format="onnx")
    assert onnx.status_code == 200, onnx.text
    assert onnx.headers["content-disposition"] == 'attachment; filename="waves.onnx"'
    card = made(hasty, url, format="card")
    assert card.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(card.content)) as archive:
        assert archive.namelist() == ["README.md", "density.png", "errors.png"]
        assert "waves.pals.safetensors" in archive.read("README.md").decode()
    shown = hasty.http.get(url).json()["variants"]
    unrounded = {one["format"] for one in shown if one["mse_change"] is None and not one["may_be_default"]}
    assert unrounded == {"dense", "onnx", "card"}


def test_the_original_is_what_one_gets_unless_asking_otherwise(hasty: Server, url: str, best_checkpoint: Path) -> None:
    for query in ({}, {"format": "packed"}, {"precision": "fp32"}, {"format": "packed", "precision": "fp32"}):
        response = ask(hasty, url, **query)
        assert response.content == best_checkpoint.read_bytes()
    assert ("packed", "fp32") not in {
        (one["format"], one["precision"]) for one in hasty.http.get(url).json()["variants"]
    }


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"format": "pt"}, "format"),
        ({"precision": "fp64"}, "precision"),
        ({"format": "onnx", "precision": "int8"}, "precision"),
        ({"format": "card", "precision": "fp16"}, "precision"),
        ({"kind": "onnx"}, "kind"),
        ({"format": ""}, "format"),
    ],
)
def test_what_there_is_not_is_pointed_at(
    hasty: Server, url: str, problem: Problem, query: dict[str, str], parameter: str
) -> None:
    refused = problem(ask(hasty, url, **query), 422, "invalid_query")
    assert [error["parameter"] for error in refused["errors"]] == [parameter]


def test_an_unknown_checkpoint_has_no_variants(hasty: Server, problem: Problem) -> None:
    problem(ask(hasty, "/v1/checkpoints/ckpt_0", format="onnx"), 404, "not_found")


def test_however_many_ask_it_is_made_once(either: Server, best_checkpoint: Path) -> None:
    url = stored(either, best_checkpoint)
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(lambda _: made(either, url, format="dense"), range(16))]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    with either.database.read() as session:
        artifacts = session.scalars(select(Artifact).where(Artifact.key.contains("/variants/"))).all()
        [ready] = session.scalars(select(Variant).where(Variant.checkpoint_id == url.rpartition("/")[2])).all()
        of_this = [one.id for one in artifacts if one.sha256 == hashlib.sha256(answers[0].content).hexdigest()]
        assert of_this == [ready.artifact_id]


def test_a_deleted_checkpoint_has_no_variants(hasty: Server, best_checkpoint: Path, problem: Problem) -> None:
    url = stored(hasty, best_checkpoint)
    made(hasty, url, format="dense")
    with hasty.database.read() as session:
        [variant] = session.scalars(select(Variant).where(Variant.checkpoint_id == url.rpartition("/")[2])).all()
        assert variant.artifact_id is not None
        path = hasty.artifacts.path(get_artifact(session, variant.artifact_id).key)
    assert path.exists()
    assert hasty.http.delete(url).status_code == 204
    problem(ask(hasty, url, format="dense"), 404, "not_found")
    while path.exists():
        time.sleep(0.1)


def test_a_damaged_checkpoint_cannot_be_written_otherwise(
    hasty: Server, best_checkpoint: Path, tmp_path: Path, problem: Problem
) -> None:
    contents = best_checkpoint.read_bytes()
    (damaged := tmp_path / "damaged").write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    lease = hasty.claim(hasty.queue()["id"])
    url = f"/v1/checkpoints/{hasty.checkpoint(lease, 1, damaged)}"
    hasty.end(lease)
    problem(made(hasty, url, format="dense"), 500, "invalid_checkpoint")
    assert hasty.http.get(url).json()["variants"][0]["status"] == "failed"


def test_without_its_dataset_the_change_is_not_known(hasty: Server, best_checkpoint: Path) -> None:
    dataset = hasty.upload()
    lease = hasty.claim(hasty.queue(dataset_id=dataset["id"])["id"])
    url = f"/v1/checkpoints/{hasty.checkpoint(lease, 1, best_checkpoint)}"
    hasty.end(lease)
    assert hasty.http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    assert made(hasty, url, precision="int8").status_code == 200
    [variant] = hasty.http.get(url).json()["variants"]
    assert (variant["mse_change"], variant["may_be_default"]) == (None, False)


class Stuck:
    """A checkpoint whose int8 variant is being made and waits for its dataset, a pipe that nobody writes to."""

    def __init__(self, server: Server, checkpoint: Path) -> None:
        dataset = server.upload()
        lease = server.claim(server.queue(dataset_id=dataset["id"])["id"])
        self.url = f"/v1/checkpoints/{server.checkpoint(lease, 1, checkpoint)}"
        server.end(lease)
        with server.database.read() as session:
            artifact_id = session.get_one(Dataset, dataset["id"]).artifact_id
            assert artifact_id is not None
            self.table = server.artifacts.path(get_artifact(session, artifact_id).key)
        self.contents = self.table.read_bytes()
        self.table.unlink()
        os.mkfifo(self.table)
        assert ask(server, self.url, precision="int8").status_code == 202
        while True:
            try:
                self.pipe = os.open(self.table, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                time.sleep(0.05)
            else:
                return

    def restore(self) -> None:
        """Let the dataset be what was uploaded."""
        os.close(self.pipe)
        self.table.unlink()
        self.table.write_bytes(self.contents)


def test_a_child_that_is_killed_is_told_and_its_work_done_again(
    hasty: Server, best_checkpoint: Path, problem: Problem
) -> None:
    stuck = Stuck(hasty, best_checkpoint)
    os.kill(making_child(hasty), signal.SIGKILL)
    refused = made(hasty, stuck.url, precision="int8")
    problem(refused, 503, "variant_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    stuck.restore()
    assert made(hasty, stuck.url, 503, precision="int8").status_code == 200
    assert hasty.http.get(stuck.url).json()["variants"][0]["mse_change"] is not None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_stopped_service_was_making_is_made_by_the_next(
    tmp_path: Path, series: Table, best_checkpoint: Path, how: signal.Signals
) -> None:
    with serving(tmp_path, before=HASTY) as first:
        first.table = csv_of(series)
        stuck = Stuck(first, best_checkpoint)
        child = making_child(first)
        assert ask(first, stuck.url, precision="int8").status_code == 202
        first.process.send_signal(how)
        first.process.wait(30)
        while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            time.sleep(0.05)
    stuck.restore()
    with serving(tmp_path, before=HASTY) as second:
        response = made(second, stuck.url, precision="int8")
        assert response.status_code == 200, response.text
        scratch = second.settings.scratch_dir
        assert [path for path in scratch.iterdir() if path.is_dir()] == []


def test_the_limits_of_a_making_are_told(
    tmp_path: Path, series: Table, best_checkpoint: Path, problem: Problem
) -> None:
    with serving(tmp_path, {"PALS_VARIANT_MEMORY_BYTES": str(64 << 20)}) as starved:
        starved.table = csv_of(series)
        refused = problem(made(starved, stored(starved, best_checkpoint), format="dense"), 422, "variant_too_large")
        assert "64 MiB" in refused["detail"]


def test_variants_are_documented(hasty: Server) -> None:
    document: dict[str, Any] = hasty.http.get("/openapi.json").json()
    content = document["paths"]["/v1/checkpoints/{checkpoint_id}/content"]["get"]
    parameters = {one["name"]: one for one in content["parameters"]}
    assert set(parameters) == {"checkpoint_id", "format", "precision"}
    assert "card" in parameters["format"]["description"]
    example = content["responses"]["202"]["content"]["application/json"]["example"]
    schema = document["components"]["schemas"]["VariantBody"]
    assert example["status"] == "making"
    assert example.keys() <= schema["properties"].keys()
