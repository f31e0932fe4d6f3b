"""The service as a Python object.

with Client("http://127.0.0.1:8000") as client:
    dataset = client.upload_dataset("load.csv")
    job = client.create_job(dataset["id"], {"data": {"horizon": 24}})
    job = client.wait(job["id"], on_event=lambda event: print(event["message"]))
    best = next(checkpoint for checkpoint in client.checkpoints(job["id"]) if checkpoint["is_best"])
    client.download(best["id"], "load.safetensors")
    print(client.forecast(best["id"])["values"])
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlencode

import httpx

from pals_client.connection import Connection
from pals_client.download import fetch, wait_until_made
from pals_client.errors import DatasetInvalid
from pals_client.event_stream import follow
from pals_client.resources import Checkpoint, Dataset, Evaluation, Event, Forecast, Job, Layers, MetricSeries, Plan
from pals_client.retries import Retries

AUDIT_POLL_SECONDS = 0.5


class Client:
    """One service. Threads may share it; close it, or use it as a context.

    Every method raises ApiError when the service refuses and ServiceUnreachable when it does not answer.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8000", *, retries: Retries | None = None) -> None:
        self._connection = Connection(base_url, retries or Retries())

    def close(self) -> None:
        """Give back the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- datasets ---------------------------------------------------------------------------------

    def upload_dataset(self, source: str | Path | bytes, *, name: str | None = None) -> Dataset:
        """Upload a CSV or Parquet table, gzip'd or not, and wait until it is audited.

        `source` is a file or the bytes of one; a file gives its name. Raises DatasetInvalid when the
        table cannot be used, OSError when the file cannot be read.
        """
        path = None if isinstance(source, bytes) else Path(source)
        name = name or (path.name if path else None)

        def body() -> IO[bytes]:
            return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")

        response = self._connection.call(
            "POST",
            "/v1/datasets",
            repeatable=False,
            body=body,
            params={"name": name} if name else {},
            headers={"Content-Type": "application/octet-stream"},
        )
        dataset: Dataset = response.json()
        while dataset["status"] == "auditing":
            time.sleep(AUDIT_POLL_SECONDS)
            dataset = self.dataset(dataset["id"])
        if dataset["status"] == "invalid":
            raise DatasetInvalid(dataset)
        return dataset

    def dataset(self, dataset_id: str) -> Dataset:
        """A dataset and what its audit found."""
        dataset: Dataset = self._get(f"/v1/datasets/{dataset_id}")
        return dataset

    def datasets(self) -> Iterator[Dataset]:
        """All datasets, newest first."""
        yield from self._pages("/v1/datasets", {})

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset; refused (409) while an unfinished job needs it."""
        self._connection.call("DELETE", f"/v1/datasets/{dataset_id}", repeatable=False)

    # --- jobs -------------------------------------------------------------------------------------

    def create_job(
        self,
        dataset_id: str,
        spec: Mapping[str, Any],
        *,
        name: str | None = None,
        limits: Mapping[str, Any] | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """Queue a training; all of `spec` but `data.horizon` has a default."""
        body = _job_body(dataset_id, spec, name=name, limits=limits, priority=priority, metadata=metadata)
        job: Job = self._connection.call("POST", "/v1/jobs", repeatable=False, json=body).json()
        return job

    def plan_job(self, dataset_id: str, spec: Mapping[str, Any]) -> Plan:
        """Check a training without queueing it: its spec with every default, and what it would cost."""
        plan: Plan = self._connection.call(
            "POST", "/v1/jobs", repeatable=True, params={"validate_only": "true"}, json=_job_body(dataset_id, spec)
        ).json()
        return plan

    def job(self, job_id: str) -> Job:
        """A job and where it stands."""
        job: Job = self._get(f"/v1/jobs/{job_id}")
        return job

    def jobs(self, *, status: str | None = None, dataset_id: str | None = None) -> Iterator[Job]:
        """All jobs, newest first, narrowed by what is given."""
        yield from self._pages("/v1/jobs", {"status": status, "dataset_id": dataset_id})

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; it has when its status is `cancelled`. Repeating it is harmless."""
        job: Job = self._connection.call("POST", f"/v1/jobs/{job_id}/cancel", repeatable=True).json()
        return job

    def pause(self, job_id: str) -> Job:
        """Ask a job to save its state and give up its place; it has when its status is `paused`."""
        job: Job = self._connection.call("POST", f"/v1/jobs/{job_id}/pause", repeatable=True).json()
        return job

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again; it goes on from its saved state."""
        job: Job = self._connection.call("POST", f"/v1/jobs/{job_id}/resume", repeatable=True).json()
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job as a new one, which goes on from the last saved state where there is one.

        Repeating it gives the same new job until that has ended.
        """
        job: Job = self._connection.call("POST", f"/v1/jobs/{job_id}/retry", repeatable=True).json()
        return job

    def delete_job(self, job_id: str) -> None:
        """Delete an ended job with its log, metrics and checkpoints."""
        self._connection.call("DELETE", f"/v1/jobs/{job_id}", repeatable=False)

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Each event of a job above `after`, as it happens, until the job has ended.

        A connection that breaks is opened again where it ended: nothing is missed, nothing comes twice.
        """
        return follow(self._connection, job_id, after)

    def wait(self, job_id: str, *, on_event: Callable[[Event], object] | None = None) -> Job:
        """Return the job once it has ended, well or not; `on_event` hears each event meanwhile.

        A paused job has not ended: somebody has to resume or cancel it.
        """
        for event in self.events(job_id):
            if on_event is not None:
                on_event(event)
        return self.job(job_id)

    def metrics(
        self, job_id: str, *, names: Sequence[str] | None = None, max_points: int | None = None
    ) -> dict[str, MetricSeries]:
        """The series of a job by name, thinned to `max_points` points for plotting."""
        query = {"names": ",".join(names) if names else None, "max_points": max_points}
        series: dict[str, MetricSeries] = self._get(f"/v1/jobs/{job_id}/metrics", query)["series"]
        return series

    def layers(self, job_id: str) -> Layers:
        """Sparsity, FLOPs of one forecast and bytes of each layer, of the job's best checkpoint so far."""
        layers: Layers = self._get(f"/v1/jobs/{job_id}/layers")
        return layers

    def evaluation(self, job_id: str) -> Evaluation:
        """Test errors of a job's best checkpoint by horizon step and column, beside the seasonal naive forecast's."""
        evaluation: Evaluation = self._get(f"/v1/jobs/{job_id}/evaluation")
        return evaluation

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """A job's checkpoints by step; `is_best` marks the one to use."""
        checkpoints: list[Checkpoint] = self._get(f"/v1/jobs/{job_id}/checkpoints")["data"]
        return checkpoints

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """A checkpoint's step, metrics, sparsity, size and sha256."""
        checkpoint: Checkpoint = self._get(f"/v1/checkpoints/{checkpoint_id}")
        return checkpoint

    def download(
        self,
        checkpoint_id: str,
        path: str | Path,
        *,
        format: str = "packed",  # noqa: A002 (as the service calls it)
        precision: str = "fp32",
    ) -> Checkpoint:
        """Write a checkpoint's file to `path`, which appears only when its sha256 is right.

        `format` is `packed`, `dense` (safetensors that load_state_dict takes), `onnx` or `card` (a model card, zipped);
        a packed file has the `precision` `fp32`, `fp16`, `bf16` or `int8`. What the service has to make first is waited
        for; `variants` of the returned checkpoint say what rounding changed of the test MSE. A download that breaks off
        is completed, by this call or by the next. Raises DownloadCorrupted, OSError.
        """
        url = f"/v1/checkpoints/{checkpoint_id}/content"
        if (format, precision) == ("packed", "fp32"):
            checkpoint = self.checkpoint(checkpoint_id)
            fetch(self._connection, url, Path(path), sha256=checkpoint["sha256"], size=checkpoint["bytes"])
            return checkpoint
        url = f"{url}?{urlencode({'format': format, 'precision': precision})}"
        sha256, size = wait_until_made(self._connection, url)
        fetch(self._connection, url, Path(path), sha256=sha256, size=size)
        return self.checkpoint(checkpoint_id)

    def forecast(
        self,
        checkpoint_id: str,
        *,
        timestamps: Sequence[str] | None = None,
        values: Mapping[str, Sequence[float | None]] | None = None,
        dataset_id: str | None = None,
        future: Mapping[str, Any] | None = None,
        series: Sequence[str] | None = None,
        horizon: int | None = None,
        levels: Sequence[float] | None = None,
    ) -> Forecast:
        """Forecast the steps after the given values, after a dataset's end, or after the training series' end.

        `future`, `{"timestamps": […], "values": {column: […]}}`, holds the known-future columns at the steps of the
        forecast, for a model that has some. `series` names those that a pooled model shall forecast. `horizon` is how
        many steps, the model's unless given; `levels` are those of the prediction intervals in per cent, 80 and 95
        unless given.
        """
        body: dict[str, Any] = {}
        if timestamps is not None or values is not None:
            body = {"timestamps": list(timestamps or ()), "values": {k: list(v) for k, v in (values or {}).items()}}
        if dataset_id is not None:
            body["dataset_id"] = dataset_id
        body |= _given(
            {
                "future": future,
                "series": None if series is None else list(series),
                "horizon": horizon,
                "levels": None if levels is None else list(levels),
            }
        )
        forecast: Forecast = self._connection.call(
            "POST", f"/v1/checkpoints/{checkpoint_id}/forecasts", repeatable=True, json=body
        ).json()
        return forecast

    # --- service ----------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """True when database, broker, storage and a worker are there; one attempt, never raises."""
        try:
            with self._connection.stream("/readyz", headers={}, read_seconds=5) as response:
                return response.status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._connection.call("GET", path, repeatable=True, params=_given(query or {})).json()

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        after: str | None = None
        while True:
            page = self._get(path, {**query, "after": after})
            yield from page["data"]
            after = page["next"]
            if after is None:
                return


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _job_body(
    dataset_id: str,
    spec: Mapping[str, Any],
    *,
    name: str | None = None,
    limits: Mapping[str, Any] | None = None,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    optional = _given({"name": name, "limits": limits, "metadata": metadata})
    return {"dataset_id": dataset_id, "spec": dict(spec), "priority": priority, **optional}
