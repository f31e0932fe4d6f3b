from __future__ import annotations

import math

import pytest

from pals_core.spec import TrainingSpec
from pals_core.training.learning_rate import learning_rate_at

STEPS_PER_EPOCH = 4


def rates(**fields: object) -> list[float]:
    recipe = TrainingSpec.model_validate({"epochs": 4, "learning_rate": 0.8} | fields)
    return [learning_rate_at(step, recipe, STEPS_PER_EPOCH) for step in range(1, 17)]


COSINE = [0.4 * (1 + math.cos(math.pi * done / 16)) for done in range(16)]
LATER_COSINE = [0.4 * (1 + math.cos(math.pi * done / 12)) for done in range(12)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, [0.8] * 8 + [0.4] * 4 + [0.2] * 4, id="halving starts with the third epoch"),
        pytest.param({"schedule": "constant"}, [0.8] * 16, id="constant"),
        pytest.param({"schedule": "cosine"}, COSINE, id="cosine over all steps"),
        pytest.param(
            {"schedule": "constant", "warmup_steps": 4},
            [0.2, 0.4, 0.6] + [0.8] * 13,
            id="the warm-up ends at the rate",
        ),
        pytest.param(
            {"warmup_steps": 10},
            [0.08, 0.16, 0.24, 0.32, 0.4, 0.48, 0.56, 0.64, 0.36, 0.4, 0.4, 0.4] + [0.2] * 4,
            id="warm-up is a share of what the schedule says",
        ),
        pytest.param(
            {"schedule": "cosine", "warmup_steps": 4},
            [0.2, 0.4, 0.6, 0.8, *LATER_COSINE],
            id="the cosine begins after the warm-up",
        ),
    ],
)
def test_the_learning_rate_of_every_step(fields: dict[str, object], expected: list[float]) -> None:
    assert rates(**fields) == pytest.approx(expected)


def test_the_published_rates_of_the_first_epochs_are_exact() -> None:
    recipe = TrainingSpec()
    ends = [learning_rate_at(19 * epoch, recipe, 19) for epoch in range(1, 6)]
    assert ends == [1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5]
