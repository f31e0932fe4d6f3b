from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from jobstore.settings import Settings
from jobstore.wakeups import WAKE_TASK, Bell, make_celery, queue_name
from jobstore.workers import DeviceClass


def settings_for(tmp_path: Path, **values: Any) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", **values})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


@pytest.fixture
def bell(settings: Settings) -> Iterator[Bell]:
    bell = Bell(settings)
    yield bell
    bell.close()


def heard(settings: Settings, device: DeviceClass) -> list[Any]:
    """The messages that a worker of `device` would take from the broker."""
    messages = []
    with make_celery(settings) as app, app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues[queue_name(device)])
        try:
            while True:
                message = queue.get_nowait()
                message.ack()
                messages.append(message)
        except Empty:
            queue.close()
    return messages


@pytest.mark.parametrize(
    ("device", "rings"),
    [
        (DeviceClass.CPU, {DeviceClass.CPU}),
        (DeviceClass.CUDA, {DeviceClass.CUDA}),
        (DeviceClass.AUTO, {DeviceClass.CPU, DeviceClass.CUDA}),
    ],
)
def test_a_wake_up_reaches_the_workers_that_may_claim(
    settings: Settings, bell: Bell, device: DeviceClass, rings: set[DeviceClass]
) -> None:
    assert bell.ring(device) is True

    for of in (DeviceClass.CPU, DeviceClass.CUDA):
        messages = heard(settings, of)
        assert [message.headers["task"] for message in messages] == ([WAKE_TASK] if of in rings else [])


def test_a_wake_up_names_no_job_and_does_not_outlive_a_minute(settings: Settings, bell: Bell) -> None:
    bell.ring(DeviceClass.CPU)

    [message] = heard(settings, DeviceClass.CPU)
    arguments, keywords, _ = message.payload
    assert (arguments, keywords) == ([], {})
    assert message.headers["expires"] is not None


def test_only_the_owner_may_read_the_embedded_brokers_folder(settings: Settings, bell: Bell) -> None:
    assert oct(settings.broker_dir.stat().st_mode & 0o777) == "0o700"


def test_a_broker_folder_that_is_gone_is_reported_and_not_raised(
    settings: Settings, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(settings.broker_dir)
    settings.broker_dir.write_bytes(b"")

    with caplog.at_level(logging.WARNING):
        assert bell.ring(DeviceClass.CPU) is False
    assert "upkeep repeats it" in caplog.text


def test_a_redis_that_is_down_is_reported_and_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        bell = Bell(settings_for(tmp_path, broker_url=f"redis://:hunter2@127.0.0.1:{taken.getsockname()[1]}/0"))
        with caplog.at_level(logging.WARNING):
            assert bell.ring(DeviceClass.AUTO) is False
        bell.close()
    assert "upkeep repeats it" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_redis_that_takes_the_call_and_never_answers_is_reported_and_not_raised(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        bell = Bell(settings_for(tmp_path, broker_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        assert bell.ring(DeviceClass.CPU) is False
        bell.close()


def test_the_queue_survives_a_bell_that_nobody_hears(settings: Settings, bell: Bell) -> None:
    for _ in range(3):
        assert bell.ring(DeviceClass.CPU)
    for path in settings.broker_dir.iterdir():
        path.unlink()

    assert heard(settings, DeviceClass.CPU) == []
    assert bell.ring(DeviceClass.CPU) is True
    assert len(heard(settings, DeviceClass.CPU)) == 1


def test_a_message_is_heard_once_it_is_whole(settings: Settings, bell: Bell) -> None:
    bell.ring(DeviceClass.CPU)
    [torn] = settings.broker_dir.iterdir()
    whole = torn.read_bytes()
    torn.write_bytes(whole[:40])
    empty = torn.with_name(f"0_{torn.name}")
    empty.touch()
    bell.ring(DeviceClass.CPU)

    assert len(heard(settings, DeviceClass.CPU)) == 1
    assert {*settings.broker_dir.iterdir()} == {torn, empty}

    torn.write_bytes(whole)
    assert len(heard(settings, DeviceClass.CPU)) == 1


def test_a_message_that_never_became_whole_is_removed(settings: Settings, bell: Bell) -> None:
    bell.ring(DeviceClass.CPU)
    [torn] = settings.broker_dir.iterdir()
    torn.write_bytes(b"")
    long_ago = time.time() - 3600
    os.utime(torn, (long_ago, long_ago))

    assert heard(settings, DeviceClass.CPU) == []
    assert [*settings.broker_dir.iterdir()] == []


def test_wake_ups_are_acknowledged_early_and_taken_one_at_a_time(settings: Settings) -> None:
    with make_celery(settings) as app:
        assert app.conf.task_acks_late is False
        assert app.conf.worker_prefetch_multiplier == 1
        assert app.conf.task_ignore_result is True
        assert app.conf.accept_content == ["json"]
