from __future__ import annotations

from pathlib import Path

import pytest

from pals_core.heap import LARGE_PAGES
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


def test_benchmarks_run_as_the_service_trains() -> None:
    variables = " ".join(f"{name}={value}" for name, value in (dict(BRIEFLY_SPINNING) | dict(LARGE_PAGES)).items())
    makefile = Path(__file__).parents[2] / "Makefile"
    assert f"\nBENCHMARK = {variables} $(BIN)/python -m\n" in makefile.read_text()
