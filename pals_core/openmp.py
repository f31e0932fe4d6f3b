"""What the threads of the arithmetic do while they wait for one another; chosen before a process starts."""

from __future__ import annotations

from collections.abc import Mapping

# They give up their core, after a tenth of a millisecond of spinning. Most of a training's waits are shorter, and going
# to sleep for each took up to a third of its time. GNU's OpenMP, which PyTorch brings with it on Linux, otherwise spins
# for milliseconds, which made a training on a busy host 15 times slower. It counts in turns; the OpenMP of other
# systems does not read the second variable.
BRIEFLY_SPINNING: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def waiting_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a new process: what `environment` says of it, and otherwise to spin briefly."""
    said = {name: environment[name] for name in BRIEFLY_SPINNING if name in environment}
    return said or dict(BRIEFLY_SPINNING)
