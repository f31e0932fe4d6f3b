"""A small pool of child processes for audits, forecasts and variants, limited in memory and time."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog

from api.offload_process import ChildLimits, OffloadCause, OffloadFailed, OffloadProcess
from api.offload_protocol import OffloadKind
from jobstore.settings import Settings
from jobstore.storage import ArtifactStore

_log = structlog.get_logger(__name__)

MAX_WAITING_FORECASTS = 32
KEEP_BELOW_BYTES = 1536 * 1024 * 1024
# So many keys are remembered with the child that holds what they name.
MAX_OWNED = 10_000


@dataclass
class _Request:
    arguments: dict[str, Any]
    blobs: Mapping[str, str]
    key: str | None
    answer: Future[dict[str, Any]] = field(default_factory=Future)


def _closed() -> OffloadFailed:
    return OffloadFailed(OffloadCause.CLOSED, "the service is shutting down")


class _Lane:
    """The children of one kind, each with a thread that asks it; started when needed and kept warm.

    A request goes to whichever child is free first. One with a key goes to the child that was asked with this key
    before, so that what it keeps of that is loaded once, however many ask at the same time.
    """

    def __init__(self, kind: OffloadKind, children: int, limits: ChildLimits, artifacts: ArtifactStore) -> None:
        self._kind = kind
        self._artifacts = artifacts
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._owners: OrderedDict[str, int] = OrderedDict()
        self._children: list[OffloadProcess | None] = [None] * children
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(place,), name=f"offload-{kind}-{place}", daemon=True)
            for place in range(children)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that no child has been asked yet."""
        return len(self._waiting)

    def submit(
        self, arguments: dict[str, Any], blobs: Mapping[str, str], key: str | None = None
    ) -> Future[dict[str, Any]]:
        """Ask a child; `blobs` are keys of stored bytes, each of which becomes an argument with the path of a file."""
        request = _Request(arguments, blobs, key)
        with self._changed:
            if self._closed:
                raise _closed()
            self._waiting.append(request)
            self._changed.notify_all()
        return request.answer

    def _serve(self, place: int) -> None:
        """Ask the child of this place for whoever waits, until the lane is closed."""
        while (request := self._next(place)) is not None:
            if not request.answer.set_running_or_notify_cancel():
                continue
            try:
                answer = self._ask_with_files(place, request)
            except Exception as error:
                request.answer.set_exception(error)
            else:
                request.answer.set_result(answer)

    def _next(self, place: int) -> _Request | None:
        with self._changed:
            while not self._closed:
                for request in self._waiting:
                    if request.key is None or self._owners.get(request.key, place) == place:
                        self._waiting.remove(request)
                        self._own(place, request.key)
                        return request
                self._changed.wait()
        return None

    def _own(self, place: int, key: str | None) -> None:
        if key is None:
            return
        self._owners[key] = place
        self._owners.move_to_end(key)
        if len(self._owners) > MAX_OWNED:
            self._owners.popitem(last=False)

    def _ask_with_files(self, place: int, request: _Request) -> dict[str, Any]:
        # Fetched by the thread that asks: no more files are in use at once than there are children.
        with ExitStack() as held:
            files = {
                name: str(held.enter_context(self._artifacts.local(key, beat=self._check_open)))
                for name, key in request.blobs.items()
            }
            return self._ask(place, request.arguments | files)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def _ask(self, place: int, arguments: dict[str, Any]) -> dict[str, Any]:
        kept = self._children[place]
        if kept is not None and kept.alive:
            try:
                return self._ask_child(place, kept, arguments)
            except OffloadFailed as error:
                # A kept child may have died of something else, or been full of earlier work: a fresh one decides.
                if error.cause not in (OffloadCause.CRASHED, OffloadCause.OUT_OF_MEMORY):
                    raise
        return self._ask_child(place, self._start(place), arguments)

    def _ask_child(self, place: int, child: OffloadProcess, arguments: dict[str, Any]) -> dict[str, Any]:
        keep = True
        try:
            return child.ask(arguments)
        except OffloadFailed as error:
            keep = False
            if self._closed:
                raise _closed() from None
            _log.warning("offload_failed", kind=self._kind, cause=error.cause, reason=str(error))
            raise
        finally:
            if not keep or child.resident_bytes >= self._limits.keep_below_bytes:
                self._drop(place)

    def _start(self, place: int) -> OffloadProcess:
        self._drop(place)
        with self._changed:
            if self._closed:
                raise _closed()
            child = self._children[place] = OffloadProcess(self._kind, self._limits)
            return child

    def _drop(self, place: int) -> None:
        """End the child of a place; what it kept may be loaded elsewhere from now on."""
        with self._changed:
            child, self._children[place] = self._children[place], None
            if child is None:
                return
            for key in [key for key, owner in self._owners.items() if owner == place]:
                del self._owners[key]
            self._changed.notify_all()
        child.stop()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            waiting = [*self._waiting]
            self._waiting.clear()
            for child in self._children:
                if child is not None:
                    child.kill()
            self._changed.notify_all()
        for request in waiting:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(_closed())
        for place, thread in enumerate(self._threads):
            thread.join()
            self._drop(place)


class OffloadPool:
    """Audits, forecasts and variants, each with children of their own, so that none waits for another kind."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore) -> None:
        audits = max(1, settings.offload_processes // 2)
        forecasts = max(1, settings.offload_processes - audits)
        # At least half of the memory is left to the forecasts themselves.
        cache_bytes = min(settings.model_cache_bytes // forecasts, settings.forecast_memory_bytes // 2)
        auditing = ChildLimits(settings.audit_seconds, settings.audit_memory_bytes, keep_below_bytes=KEEP_BELOW_BYTES)
        forecasting = ChildLimits(
            settings.forecast_seconds,
            settings.forecast_memory_bytes,
            cache_bytes,
            keep_below_bytes=KEEP_BELOW_BYTES + cache_bytes,
        )
        # Rarely asked for and long at work: a child is not kept for the next one.
        making = ChildLimits(settings.variant_seconds, settings.variant_memory_bytes)
        self._audits = _Lane(OffloadKind.AUDIT, audits, auditing, artifacts)
        self._forecasts = _Lane(OffloadKind.FORECAST, forecasts, forecasting, artifacts)
        self._variants = _Lane(OffloadKind.VARIANT, 1, making, artifacts)

    def audit(self, key: str) -> Future[dict[str, Any]]:
        """Audit the table stored under `key`; the result is a `TableProfile` as JSON, or StorageFailed."""
        return self._audits.submit({}, {"path": key})

    def forecast(self, arguments: dict[str, Any], blobs: Mapping[str, str]) -> Future[dict[str, Any]]:
        """Forecast with what is stored: `blobs` has the key of a `checkpoint`, and of a `table` if one is used.

        One child alone loads the checkpoint, and keeps it. Raises OffloadFailed when too many wait already; the result
        may be StorageFailed.
        """
        if self._forecasts.waiting >= MAX_WAITING_FORECASTS:
            raise OffloadFailed(OffloadCause.BUSY, f"{MAX_WAITING_FORECASTS} forecasts wait already; try again soon")
        return self._forecasts.submit(arguments, blobs, key=blobs["checkpoint"])

    def variant(self, arguments: dict[str, Any], blobs: Mapping[str, str]) -> Future[dict[str, Any]]:
        """Write a stored checkpoint in another format; the arguments, and keys of files, are those of `write_variant`.

        The result may be StorageFailed.
        """
        return self._variants.submit(arguments, blobs)

    def close(self) -> None:
        """Stop every child; requests that still wait fail as closed."""
        for lane in (self._audits, self._forecasts, self._variants):
            lane.close()
