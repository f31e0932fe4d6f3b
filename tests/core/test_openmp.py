from __future__ import annotations

from pathlib import Path

import pytest

from pals_core.openmp import BRIEFLY_SPINNING, waiting_of


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PATH": "/bin"}, dict(BRIEFLY_SPINNING)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "0", "PATH": "/bin"}, {"GOMP_SPINCOUNT": "0"}),
    ],
)
def test_threads_wait_as_the_environment_says_or_spin_briefly(
    environment: dict[str, str], expected: dict[str, str]
) -> None:
    assert waiting_of(environment) == expected


def test_benchmarks_wait_as_the_service_does() -> None:
    waiting = " ".join(f"{name}={value}" for name, value in BRIEFLY_SPINNING.items())
    makefile = Path(__file__).parents[2] / "Makefile"
    assert f"\nBENCHMARK = {waiting} $(BIN)/python -m\n" in makefile.read_text()
