"""Memory that a training frees stays with the process until the training is over."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pals_core.heap import LARGE_PAGES, freed_memory_kept, pages_of

PROGRAM = """
import resource
import numpy as np
import psutil
from pals_core.heap import freed_memory_kept

def faults(mebibytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(mebibytes * 2**20, dtype=np.uint8) for _ in range(4)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

resident = psutil.Process().memory_info().rss
with freed_memory_kept():
    first = [faults(10), faults(48)]
    again = [faults(48), faults(10), faults(48)]
left = psutil.Process().memory_info().rss - resident
print(first[0], max(again), left // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_taken_from_the_system_once_and_given_back_at_the_end() -> None:
    """Blocks of 10 and of 48 MiB: these are above the sizes from which glibc maps each block by itself."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    first, again, left = map(int, done.stdout.split())

    assert first > 40 * 2**20 / 2**16  # pages are of 64 KiB at most
    assert again < first / 10
    assert left < 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pals_core.heap.ctypes.CDLL", lambda _: object())

    with freed_memory_kept():
        pass


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"PATH": "/bin"}, dict(LARGE_PAGES)), ({"GLIBC_TUNABLES": ""}, {"GLIBC_TUNABLES": ""})],
)
def test_pages_are_large_unless_the_environment_says_otherwise(
    environment: dict[str, str], expected: dict[str, str]
) -> None:
    assert pages_of(environment) == expected
