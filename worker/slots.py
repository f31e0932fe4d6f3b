"""What a host has for trainings, and how a worker divides it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from jobstore.workers import DeviceClass, Slot
from worker.cgroup import cpu_limit, memory_limit

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def gpu_names(count: int) -> list[str]:
    """What to name each of `count` GPUs that this process sees for a child to see it alone."""
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in visible.split(",")][:count]


def plan_slots(*, cpus: int, cpu_slots: int, gpus: Sequence[str]) -> tuple[Slot, ...]:
    """One slot for each GPU and `cpu_slots` on the CPU, whose threads they share as evenly as can be.

    Jobs for any device are left to the GPUs where there are some.
    """
    share, rest = divmod(cpus, len(gpus) + cpu_slots)
    threads = [max(1, share + (number < rest)) for number in range(len(gpus) + cpu_slots)]
    on_gpu = [
        Slot(f"cuda-{number}", (DeviceClass.CUDA, DeviceClass.AUTO), threads[number], gpu)
        for number, gpu in enumerate(gpus)
    ]
    classes = (DeviceClass.CPU,) if gpus else (DeviceClass.CPU, DeviceClass.AUTO)
    on_cpu = [Slot(f"cpu-{number}", classes, threads[len(gpus) + number]) for number in range(cpu_slots)]
    return (*on_gpu, *on_cpu)


def visible_gpus(slot: Slot, *, host_has_gpus: bool) -> str | None:
    """CUDA_VISIBLE_DEVICES of a slot's trainings; None leaves it as it is."""
    return (slot.gpu or "") if host_has_gpus else None


def cpu_count() -> int:
    """Processors that this process may use; a part of one that its control group allows counts as one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cpu_limit()
    return cpus if share is None else min(cpus, math.ceil(share))


def memory_bytes() -> int:
    """The host's memory, or what of it the control group allows."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = memory_limit()
    return machine if allowed is None else min(machine, allowed)


def processor() -> str:
    """The processor's name, for people."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
