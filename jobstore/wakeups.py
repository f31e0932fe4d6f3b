"""The bell: a Celery message that says "look at the queue", and names no job.

The database is the queue. A wake-up that is lost, doubled or late costs nothing: whoever hears one
claims what is next, and upkeep rings again while jobs wait.
"""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES

from jobstore.settings import EMBEDDED_BROKER, Settings
from jobstore.workers import DeviceClass

WAKE_TASK = "pals.wake"
# Loaded by kombu where it is the broker.
TRANSPORT_ALIASES[EMBEDDED_BROKER] = "jobstore.message_folder:Transport"
_log = logging.getLogger(__name__)


def queue_name(device: DeviceClass) -> str:
    """The Celery queue of a device class; `auto` jobs are announced on every queue."""
    return f"pals.{device}"


def make_celery(settings: Settings, *, reply_seconds: float = 10) -> Celery:
    """The Celery application of producers and workers alike; a Redis that is silent longer counts as down."""
    app = Celery("pals", broker=settings.resolved_broker_url)
    options: dict[str, object] = {}
    if settings.broker_url is None:
        folder = settings.broker_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = {"data_folder_in": str(folder), "data_folder_out": str(folder), "polling_interval": 0.1}
    else:
        options = {"socket_connect_timeout": 2, "socket_timeout": reply_seconds, "max_retries": 1}
    app.conf.update(
        broker_transport_options=options,
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        task_publish_retry=False,
        task_default_queue=queue_name(DeviceClass.CPU),
        # A bell nobody heard within a minute is rung again by upkeep; old ones must not pile up.
        task_default_expires=60,
    )
    return app


class Bell:
    """Rings the workers of a device class. Never fails: what it cannot send, upkeep sends later."""

    def __init__(self, settings: Settings) -> None:
        # Whoever posted a job is waiting meanwhile.
        self._celery = make_celery(settings, reply_seconds=2)

    def ring(self, device_class: DeviceClass) -> bool:
        """Send wake-ups for jobs of `device_class`; False when the broker does not answer."""
        devices = (DeviceClass.CPU, DeviceClass.CUDA) if device_class is DeviceClass.AUTO else (device_class,)
        try:
            for device in devices:
                self._celery.send_task(WAKE_TASK, queue=queue_name(device), expires=60, retry=False)
        except (OperationalError, OSError) as error:
            _log.warning("wake-up not sent (%s); upkeep repeats it", type(error).__name__)
            return False
        return True

    def reachable(self) -> bool:
        """True when the broker answers."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        except (OperationalError, OSError):
            return False
        return True

    def close(self) -> None:
        self._celery.close()
