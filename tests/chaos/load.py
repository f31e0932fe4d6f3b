"""Users of the service: they post jobs, pause, resume and cancel some, and repeat what was not answered."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from jobstore.lifecycle import FINAL_STATUSES, JobStatus
from tests.chaos.cluster import Cluster

ROWS = 1200
PATIENCE_SECONDS = 180.0
LENGTHS = {"horizon": 4, "input_len": 12}
SMALL = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1}
# Different networks and methods, of which each trains for some seconds.
KINDS: dict[str, dict[str, Any]] = {
    "dlinear pals": {
        "data": LENGTHS,
        "model": {"name": "dlinear", "moving_avg": 5},
        "method": {"name": "pals", "update_interval": 5},
        "training": {"epochs": 30, "patience": 30, "learning_rate": 1e-3},
    },
    "nstransformer pals": {
        "data": LENGTHS,
        "model": {"name": "nstransformer", **SMALL},
        "method": {"name": "pals", "update_interval": 5},
        "training": {"epochs": 8, "patience": 8, "learning_rate": 1e-3},
    },
    "patchtst rigl": {
        "data": LENGTHS,
        "model": {"name": "patchtst", "patch_len": 4, "stride": 2, **SMALL},
        "method": {"name": "rigl", "update_interval": 5},
        "training": {"epochs": 8, "patience": 8, "learning_rate": 1e-3},
    },
}


class NoAnswer(Exception):
    """The service did not answer for longer than any fault lasts."""


def table(seed: int = 7) -> bytes:
    """Two daily series with a season, as CSV."""
    generator = np.random.default_rng(seed)
    start = np.datetime64("2015-01-01")
    lines = ["date,a,b"]
    for step in range(ROWS):
        values = np.sin(step / 7 + np.arange(2)) + 0.1 * generator.standard_normal(2)
        lines.append(f"{start + step}," + ",".join(f"{value:.6g}" for value in values))
    return "\n".join(lines).encode()


@dataclass
class Posted:
    """A job, and in which states it may end."""

    id: str
    kind: str
    right_ends: frozenset[JobStatus] = frozenset({JobStatus.SUCCEEDED})


@dataclass
class Users:
    """Posts jobs by and by, `most_at_once` unfinished, until `count` are posted; a thread."""

    cluster: Cluster
    count: int
    seed: int
    most_at_once: int = 8
    jobs: list[Posted] = field(default_factory=list)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self._luck = random.Random(self.seed)
        self._http = httpx.Client(base_url=self.cluster.base_url, timeout=15)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="users", daemon=True)
        self.dataset_id = ""

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    @property
    def done(self) -> bool:
        """Whether all jobs are posted."""
        return not self._thread.is_alive()

    def upload(self) -> None:
        answer = self._http.post("/v1/datasets", params={"name": "chaos"}, content=table(), timeout=60)
        self.dataset_id = answer.raise_for_status().json()["id"]
        while self.ask("GET", f"/v1/datasets/{self.dataset_id}")["status"] == "auditing":
            time.sleep(0.1)

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """A request that may be repeated, repeated until it is answered. Raises NoAnswer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = "nothing"
        while time.monotonic() < deadline:
            try:
                answer = self._http.request(method, path, **options)
                if answer.status_code not in {500, 502, 503, 504}:
                    content: dict[str, Any] = answer.json()
                    return content
                said = answer.text[:500]
                # A database that is away is a 503; anything else is a fault of the service's own.
                assert answer.status_code == 503, said
            except httpx.TransportError as error:
                said = repr(error)
            time.sleep(0.2)
        raise NoAnswer(f"{method} {path}: {said}")

    def post(self, number: int, kind: str) -> str:
        """Post a job once, whatever becomes of the answer: its name says whether it has been."""
        name = f"chaos {number}"
        body = {"dataset_id": self.dataset_id, "name": name, "spec": KINDS[kind], "limits": {"max_attempts": 50}}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._http.post("/v1/jobs", json=body)
                if answer.status_code == 202:
                    job_id: str = answer.json()["id"]
                    return job_id
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            time.sleep(0.2)
            if found := next((job["id"] for job in self.listed() if job["name"] == name), None):
                return str(found)
        raise NoAnswer(f"{name} was not taken")

    def listed(self) -> list[dict[str, Any]]:
        """All jobs of the service."""
        jobs: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = self.ask("GET", "/v1/jobs", params=query)
            jobs += page["data"]
            if not page["has_more"]:
                return jobs
            query["after"] = page["next"]

    def status(self, job_id: str) -> JobStatus:
        return JobStatus(self.ask("GET", f"/v1/jobs/{job_id}")["status"])

    def unfinished(self) -> list[Posted]:
        statuses = {job["id"]: job["status"] for job in self.listed()}
        return [job for job in self.jobs if statuses.get(job.id) not in FINAL_STATUSES]

    def _run(self) -> None:
        try:
            for number in range(self.count):
                while len(self.unfinished()) >= self.most_at_once:
                    if self._stop.wait(0.3):
                        return
                    self._change_a_mind()
                kind = list(KINDS)[number % len(KINDS)]
                self.jobs.append(Posted(self.post(number, kind), kind))
        except Exception as error:
            self.failure = error

    def _change_a_mind(self) -> None:
        """Now and then a user pauses a job and resumes it a little later, or cancels it."""
        if self._luck.random() > 0.2:
            return
        job = self._luck.choice(self.jobs)
        if self._luck.random() < 0.15:
            answer = self.ask("POST", f"/v1/jobs/{job.id}/cancel")
            if answer.get("status") in {JobStatus.CANCELLED, JobStatus.CANCELLING}:
                # A training that ends before it can be stopped has succeeded.
                job.right_ends |= {JobStatus.CANCELLED}
            return
        self.ask("POST", f"/v1/jobs/{job.id}/pause")
        time.sleep(self._luck.uniform(0, 2))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.status(job.id) is JobStatus.PAUSING and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.status(job.id) is JobStatus.PAUSED:
            self.ask("POST", f"/v1/jobs/{job.id}/resume")
