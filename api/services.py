"""What one API process holds open: the job store, child processes, the bell, the event tailer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.audits import Audits
from api.offload import OffloadPool
from api.streaming import EventTailer
from api.variants import Variants
from jobstore.artifacts import nothing_kept
from jobstore.database import Database, open_database
from jobstore.schema import require_current
from jobstore.settings import Settings
from jobstore.storage import ArtifactStore, open_artifacts
from jobstore.upkeep import Upkeep
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass


@dataclass(frozen=True)
class Services:
    """Opened when the application starts, closed when it stops."""

    settings: Settings
    database: Database
    artifacts: ArtifactStore
    bell: Bell
    upkeep: Upkeep
    offload: OffloadPool
    audits: Audits
    variants: Variants
    tailer: EventTailer
    _ringing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="bell"))

    def ring(self, device_class: DeviceClass) -> None:
        """Wake the workers without waiting for the broker; what fails, upkeep repeats."""
        self._ringing.submit(self.bell.ring, device_class)

    def close(self) -> None:
        self.upkeep.stop()
        self.audits.close()
        self.offload.close()
        self.variants.close()
        self._ringing.shutdown(cancel_futures=True)
        self.bell.close()
        self.artifacts.close()
        self.database.close()


def open_services(settings: Settings) -> Services:
    """Open everything. Raises SchemaOutdated when the database needs migrating first."""
    database = open_database(settings)
    require_current(database)
    with database.read() as session:
        new = nothing_kept(session)
    artifacts = open_artifacts(settings, new=new)
    bell = Bell(settings)
    offload = OffloadPool(settings, artifacts)
    services = Services(
        settings=settings,
        database=database,
        artifacts=artifacts,
        bell=bell,
        upkeep=Upkeep(database, artifacts, bell, settings),
        offload=offload,
        audits=Audits(database, offload, poll_seconds=settings.upkeep_seconds),
        variants=Variants(database, artifacts, offload, settings.scratch_dir),
        tailer=EventTailer(database),
    )
    services.upkeep.start()
    services.audits.open()
    return services


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
