"""What is read of control groups, on made trees of files, since only the owner of a machine may limit its groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from worker import cgroup
from worker.cgroup import cpu_limit, memory_limit, oom_kills
from worker.slots import cpu_count, memory_bytes

GIB = 1024**3
Machine = Callable[[dict[str, str]], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine whose /proc and /sys/fs/cgroup have these files."""

    def make(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    monkeypatch.setattr(cgroup, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "cgroup")
    return make


def test_the_least_that_a_group_on_the_way_to_the_root_allows_holds(machine: Machine) -> None:
    machine(
        {
            "proc/self/cgroup": "0::/pals.slice/worker.service",
            "cgroup/pals.slice/worker.service/memory.max": "max",
            "cgroup/pals.slice/worker.service/cpu.max": "400000 100000",
            "cgroup/pals.slice/memory.max": str(4 * GIB),
            "cgroup/pals.slice/cpu.max": "150000 100000",
            "cgroup/other.slice/memory.max": str(GIB),
            "cgroup/other.slice/cpu.max": "100000 100000",
        }
    )
    assert (memory_limit(), cpu_limit()) == (4 * GIB, 1.5)


def test_a_container_finds_its_own_group_at_the_mount(machine: Machine) -> None:
    machine({"proc/self/cgroup": "0::/", "cgroup/memory.max": str(GIB), "cgroup/cpu.max": "50000 100000"})
    assert (memory_limit(), cpu_limit()) == (GIB, 0.5)


def test_a_container_of_version_1_does_too_whatever_its_path_says(machine: Machine) -> None:
    machine(
        {
            "proc/self/cgroup": "12:memory:/docker/beef\n4:cpu,cpuacct:/docker/beef\n1:name=systemd:/docker/beef\n0::/",
            "cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3",
            "cgroup/cpu/cpu.cfs_quota_us": "250000",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
            "proc/vmstat": "oom_kill 8",
        }
    )
    assert (memory_limit(), cpu_limit(), oom_kills()) == (2 * GIB, 2.5, 3)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/"},
        {"proc/self/cgroup": "0::/", "cgroup/memory.max": "max", "cgroup/cpu.max": "max 100000"},
        {
            "proc/self/cgroup": "3:cpu:/\n2:memory:/",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "cgroup/cpu/cpu.cfs_quota_us": "-1",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["no groups", "the root", "version 2", "version 1"],
)
def test_without_a_limit_the_machine_is_what_there_is(machine: Machine, files: dict[str, str]) -> None:
    unlimited = (memory_bytes(), cpu_count())
    machine(files)
    assert (memory_bytes(), cpu_count(), cpu_limit()) == (*unlimited, None)
    assert unlimited[0] == psutil.virtual_memory().total


def test_a_worker_finds_what_its_group_may_have_and_no_more_than_there_is(machine: Machine) -> None:
    machine({"proc/self/cgroup": "0::/", "cgroup/memory.max": str(GIB), "cgroup/cpu.max": "50000 100000"})
    assert (memory_bytes(), cpu_count()) == (GIB, 1)
    machine({"cgroup/memory.max": str(2**60), "cgroup/cpu.max": "900000000 100000"})
    assert memory_bytes() == psutil.virtual_memory().total
    assert 1 <= cpu_count() <= (psutil.cpu_count() or 1)


def test_the_killer_counts_in_the_nearest_group_that_has_a_counter_else_for_the_machine(machine: Machine) -> None:
    machine({"proc/self/cgroup": "0::/pals/worker", "proc/vmstat": "oom_killer 9\noom_kill 7\npswpin 1"})
    assert oom_kills() == 7
    machine({"cgroup/pals/memory.events": "low 0\nhigh 0\nmax 4\noom 4\noom_kill 2\noom_group_kill 1"})
    assert oom_kills() == 2
    machine({"cgroup/pals/worker/memory.events": "oom 1\noom_kill 1"})
    assert oom_kills() == 1


def test_an_old_kernel_counts_for_the_machine_or_not_at_all(machine: Machine) -> None:
    machine({"proc/self/cgroup": "2:memory:/", "cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0"})
    assert oom_kills() is None
    machine({"proc/vmstat": "oom_kill 7"})
    assert oom_kills() == 7
