"""The worker process: Celery consumes the bell, each of its threads supervises one job at a time."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import ExitStack
from functools import partial
from typing import Any

from celery.platforms import SecurityWarning
from celery.signals import worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from jobstore.database import Database, open_database
from jobstore.leases import LeaseLost, claim_next, release
from jobstore.lifecycle import StatusReason
from jobstore.schema import require_current
from jobstore.scratch import own_scratch
from jobstore.settings import Settings
from jobstore.storage import open_artifacts
from jobstore.upkeep import Upkeep
from jobstore.wakeups import WAKE_TASK, Bell, make_celery, queue_name
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce, retire
from worker.child import CannotStart, Standby, TrainingProcess
from worker.clock import lease_time
from worker.ownership import Ownership
from worker.protocol import Ready
from worker.slots import cpu_count, gpu_names, memory_bytes, plan_slots, processor, visible_gpus
from worker.supervise import Supervisor

HEARTBEAT_SECONDS = 5.0
GIB = 1024**3
_log = logging.getLogger(__name__)


class TrainingWorker:
    """Slots for training on this host and what they need."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._artifacts = open_artifacts(settings)
        self.draining = threading.Event()
        self._stopped = threading.Event()
        scout = TrainingProcess()
        found = found_by(scout)
        gpus = gpu_names(len(found.cuda_devices))
        slots = plan_slots(cpus=cpu_count(), cpu_slots=settings.worker_slots, gpus=gpus)
        self._standby = Standby({slot.name: visible_gpus(slot, host_has_gpus=bool(gpus)) for slot in slots}, scout)
        self._claiming = threading.Lock()
        self._free = [*slots]  # GPUs first
        self.identity = WorkerIdentity(slots, details_of(found))
        self._held = ExitStack()
        self._scratch = self._held.enter_context(own_scratch(settings.scratch_dir, self.identity.id))
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
        self._held.close()
        self._artifacts.close()
        try:
            with self._database.write() as session:
                retire(session, self.identity.id)
        except SQLAlchemyError:
            _log.warning("the database is away; upkeep forgets this worker later")

    def work(self) -> None:
        """Train what is queued until nothing is that a free slot could take: the answer to one wake-up."""
        while not self.draining.is_set():
            claimed = self._claim()
            if claimed is None:
                return
            slot, ownership = claimed
            usable = True
            try:
                usable = self._train(slot, ownership)
            finally:
                if usable:
                    with self._claiming:
                        self._free = sorted([*self._free, slot], key=self.identity.slots.index)
                    self._standby.refill(slot.name)
                else:
                    _log.error("slot %s: its GPU is gone; it takes no job until this worker is restarted", slot.name)

    def _train(self, slot: Slot, ownership: Ownership) -> bool:
        """Train a claimed job in its slot, or give it back when no process can be started for it.

        False when the slot's GPU was found to be gone.
        """
        _log.info("job %s: attempt %d on %s", ownership.lease.job_id, ownership.lease.attempt, slot.name)
        try:
            child = self._standby.take(slot.name)
        except CannotStart as error:
            self._give_back(ownership, str(error))
            return True
        return Supervisor(
            ownership,
            child,
            artifacts=self._artifacts,
            settings=self._settings,
            scratch=self._scratch,
            threads=slot.threads,
            draining=self.draining,
            under_way=partial(self._standby.refill, slot.name),
        ).run()

    def _give_back(self, ownership: Ownership, why: str) -> None:
        lease = ownership.lease
        _log.warning("job %s is given back: %s", lease.job_id, why)
        internal, runtime = StatusReason.INTERNAL, lease.runtime_seconds
        try:
            ownership.write(partial(release, lease=lease, why=why, reason=internal, runtime_seconds=runtime))
        except LeaseLost:
            _log.warning("job %s: the lease is lost, upkeep puts it back", lease.job_id)

    def _claim(self) -> tuple[Slot, Ownership] | None:
        """A job for one of the free slots, which is then taken; threads go one by one, to see them all.

        A slot for which no training process can be started leaves the jobs to others.
        """
        seconds = self._settings.lease_seconds
        with self._claiming:
            try:
                for slot in self._free:
                    if not self._standby.refill(slot.name):
                        continue
                    asked = lease_time()
                    with self._database.write() as session:
                        lease = claim_next(
                            session,
                            self.identity.id,
                            slot.device_classes,
                            lease_seconds=seconds,
                            slot=slot.name,
                        )
                    if lease is not None:
                        self._free.remove(slot)
                        return slot, Ownership(lease, self._database, asked=asked, seconds=seconds)
            except SQLAlchemyError as error:
                _log.warning("no job claimed: the database is away (%s); upkeep rings again", type(error).__name__)
            return None

    def _announce(self) -> None:
        while True:
            try:
                with self._database.write() as session:
                    announce(session, self.identity)
            except SQLAlchemyError as error:
                _log.warning("no sign of life written: the database is away (%s)", type(error).__name__)
            except Exception:  # without signs of life the worker would pass for dead
                _log.exception("no sign of life written")
            if self._stopped.wait(HEARTBEAT_SECONDS):
                return


def found_by(scout: TrainingProcess) -> Ready:
    """What a training process, once it has imported torch, sees on this host; SystemExit when it cannot start."""
    scout.ready.wait()
    if scout.devices is None:
        raise SystemExit(f"a training process cannot start on this host:\n{scout.errors}")
    return scout.devices


def details_of(found: Ready) -> dict[str, Any]:
    """What a worker says of its host."""
    return {
        "processor": processor(),
        "cpus": cpu_count(),
        "memory_bytes": memory_bytes(),
        "gpus": [gpu.model_dump() for gpu in found.cuda_devices],
        "torch": found.torch,
    }


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
    _say_what_was_found(identity)
    # Celery warns that root may be handed pickles; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    served = {device for slot in identity.slots for device in slot.device_classes}
    try:
        celery.Worker(
            pool="threads",
            concurrency=len(identity.slots),
            queues=[queue_name(device) for device in (DeviceClass.CUDA, DeviceClass.CPU) if device in served],
            loglevel=settings.log_level.upper(),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        ).start()
    finally:
        worker.stop()
        database.close()


def _say_what_was_found(identity: WorkerIdentity) -> None:
    found = identity.details
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / GIB:.0f} GiB)" for gpu in found["gpus"]) or "no GPU"
    _log.info(
        "worker %s found %s, %d CPU(s), %.1f GiB of memory, %s, torch %s",
        identity.id,
        found["processor"],
        found["cpus"],
        found["memory_bytes"] / GIB,
        gpus,
        found["torch"],
    )
    for slot in identity.slots:
        takes = ", ".join(slot.device_classes)
        _log.info("slot %s takes jobs of device %s, with %d CPU thread(s)", slot.name, takes, slot.threads)


def _watch_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
