"""A claimed job as its worker owns it: until when for certain, and what is written meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from jobstore.database import Database
from jobstore.leases import Lease, LeaseLost, renew
from worker.clock import lease_time

DATABASE_RETRY_SECONDS = 0.5
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Ownership:
    """A lease and its end by `lease_time`, which is never later than in the database."""

    def __init__(self, lease: Lease, database: Database, *, asked: float, seconds: float) -> None:
        """`asked` is the time before the lease of so many seconds was claimed."""
        self.lease = lease
        self._database = database
        self._seconds = seconds
        self._count_from(asked)

    @property
    def renewal_is_due(self) -> bool:
        return lease_time() >= self._renew_at

    def renew(self, runtime_seconds: float) -> None:
        """Own the job for another lease. Raises LeaseLost."""
        asked = lease_time()
        self.write(
            lambda session: renew(session, self.lease, lease_seconds=self._seconds, runtime_seconds=runtime_seconds)
        )
        self._count_from(asked)

    def write(self, work: Callable[[Session], T]) -> T:
        """Run one transaction, again while the database is away and the lease lasts. Raises LeaseLost."""
        while True:
            try:
                with self._database.write() as session:
                    return work(session)
            except SQLAlchemyError as error:
                if lease_time() > self.until:
                    raise LeaseLost(self.lease.job_id) from error
                _log.warning("job %s: the database is away (%s)", self.lease.job_id, type(error).__name__)
                time.sleep(DATABASE_RETRY_SECONDS)

    def _count_from(self, asked: float) -> None:
        # From before the question, so that nobody trusts the lease for longer than the database grants it.
        self.until = asked + self._seconds
        self._renew_at = asked + self._seconds / 3
