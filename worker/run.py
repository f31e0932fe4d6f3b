"""The worker process: Celery consumes the bell, each of its threads supervises one job at a time."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from typing import Any

from celery.platforms import SecurityWarning
from celery.signals import worker_shutting_down
from sqlalchemy.exc import DBAPIError

from jobstore.artifacts import ArtifactFolder
from jobstore.database import Database, open_database
from jobstore.leases import Lease, claim_next
from jobstore.schema import require_current
from jobstore.settings import Settings
from jobstore.upkeep import Upkeep
from jobstore.wakeups import WAKE_TASK, Bell, make_celery, queue_name
from jobstore.workers import DeviceClass, WorkerIdentity, announce, retire
from worker.child import Standby
from worker.supervise import Supervisor

HEARTBEAT_SECONDS = 5.0
_log = logging.getLogger(__name__)


class TrainingWorker:
    """Slots for training on this host and what they need."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._artifacts = ArtifactFolder(settings.resolved_artifacts_url)
        self.draining = threading.Event()
        self._stopped = threading.Event()
        self._standby = Standby(settings.worker_slots)
        self.threads = max(1, (os.cpu_count() or 1) // settings.worker_slots)
        self.identity = self._look_around()
        self._upkeep = Upkeep(database, self._artifacts, Bell(settings), settings)
        self._heartbeat = threading.Thread(target=self._announce, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._heartbeat.start()
        self._upkeep.start()

    def stop(self) -> None:
        """Give back everything; the jobs were released by their supervisors."""
        self.draining.set()
        self._stopped.set()
        self._heartbeat.join()
        self._upkeep.stop()
        self._standby.stop()
        try:
            with self._database.write() as session:
                retire(session, self.identity.id)
        except DBAPIError:
            _log.warning("the database is away; upkeep forgets this worker later")

    def work(self) -> None:
        """Train what is queued until nothing is: the answer to one wake-up."""
        while not self.draining.is_set():
            lease = self._claim()
            if lease is None:
                return
            _log.info("job %s: attempt %d", lease.job_id, lease.attempt)
            Supervisor(
                lease,
                self._standby.take(),
                database=self._database,
                artifacts=self._artifacts,
                settings=self._settings,
                threads=self.threads,
                draining=self.draining,
            ).run()

    def _claim(self) -> Lease | None:
        try:
            with self._database.write() as session:
                return claim_next(
                    session,
                    self.identity.id,
                    self.identity.device_classes,
                    lease_seconds=self._settings.lease_seconds,
                )
        except DBAPIError as error:
            _log.warning("no job claimed: the database is away (%s); upkeep rings again", type(error).__name__)
            return None

    def _look_around(self) -> WorkerIdentity:
        """Ask the first child, which has imported torch, what devices there are."""
        child = self._standby.peek()
        child.ready.wait()
        if child.devices is None:
            raise SystemExit(f"a training process cannot start on this host:\n{child.errors}")
        gpus = child.devices.cuda_devices
        classes = (DeviceClass.CUDA, DeviceClass.AUTO, DeviceClass.CPU) if gpus else (DeviceClass.CPU, DeviceClass.AUTO)
        details: dict[str, Any] = {
            "torch": child.devices.torch,
            "gpus": list(gpus),
            "cpus": os.cpu_count(),
            "threads_per_job": self.threads,
        }
        return WorkerIdentity(classes, self._settings.worker_slots, details)

    def _announce(self) -> None:
        while True:
            try:
                with self._database.write() as session:
                    announce(session, self.identity)
            except DBAPIError as error:
                _log.warning("no sign of life written: the database is away (%s)", type(error).__name__)
            if self._stopped.wait(HEARTBEAT_SECONDS):
                return


def run(settings: Settings, *, exit_with_parent: bool = False) -> None:
    """Work until SIGTERM or SIGINT, then put running jobs back into the queue and return.

    With `exit_with_parent` the end of standard input counts as SIGTERM, so that a worker that was
    started by a service does not outlive it.
    """
    database = open_database(settings)
    require_current(database)
    worker = TrainingWorker(settings, database)
    identity = worker.identity
    celery = make_celery(settings)
    celery.task(name=WAKE_TASK)(worker.work)

    def drain(**_: Any) -> None:
        worker.draining.set()

    worker_shutting_down.connect(drain, weak=False)
    if exit_with_parent:
        threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    worker.start()
    gpus = ", ".join(identity.details["gpus"]) or "no GPU"
    _log.info("worker %s: %d slot(s), %d CPU thread(s) each, %s", identity.id, identity.slots, worker.threads, gpus)
    # Celery warns that root may be handed pickles; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    devices = [DeviceClass.CUDA, DeviceClass.CPU] if identity.details["gpus"] else [DeviceClass.CPU]
    try:
        celery.Worker(
            pool="threads",
            concurrency=identity.slots,
            queues=[queue_name(device) for device in devices],
            loglevel=settings.log_level.upper(),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        ).start()
    finally:
        worker.stop()
        database.close()


def _watch_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
