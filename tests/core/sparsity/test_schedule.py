from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec

FOLDER = Path(os.environ.get("PALS_REFERENCE_DIR", Path(__file__).parents[3].parent / "shared" / "reference"))


def schedule(epochs: int, steps_per_epoch: int, interval: int, fraction: float = 2 / 3) -> UpdateSchedule:
    return UpdateSchedule(epochs, steps_per_epoch, interval, fraction, rate=0.5, rate_min=0.005)


def updates(of: UpdateSchedule) -> list[int]:
    return [step for step in range(1, of.total_steps + 1) if of.is_update(step)]


def test_illness_has_25_updates() -> None:
    illness = schedule(epochs=10, steps_per_epoch=19, interval=5)
    assert updates(illness) == list(range(5, 126, 5))
    assert illness.updates == 25


@pytest.mark.parametrize("epochs", [3, 6, 9, 12, 30, 300, 2997])
def test_two_thirds_of_the_epochs_is_a_whole_number_where_it_should_be(epochs: int) -> None:
    every_step = schedule(epochs, steps_per_epoch=1, interval=1)
    assert every_step.updates == epochs // 3 * 2


@pytest.mark.parametrize(
    ("epochs", "steps", "interval", "fraction"),
    [(10, 19, 5, 2 / 3), (1, 7, 3, 2 / 3), (4, 5, 7, 0.5), (2, 3, 50, 0.9), (5, 8, 4, 1.0), (3, 4, 1, 0.01)],
)
def test_masks_are_frozen_from_the_last_update_on(epochs: int, steps: int, interval: int, fraction: float) -> None:
    tried = schedule(epochs, steps, interval, fraction)
    happening = updates(tried)
    assert tried.updates == len(happening)
    for step in range(tried.total_steps + 1):
        assert tried.is_frozen(step) == all(update <= step for update in happening)


def test_the_prune_rate_falls_from_its_start_to_its_end() -> None:
    falling = schedule(epochs=10, steps_per_epoch=20, interval=5)
    rates = [falling.rate_at(step) for step in range(201)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.5
    assert rates[200] == pytest.approx(0.005, abs=1e-15)


def test_the_prune_rate_follows_the_published_cosine() -> None:
    path = FOLDER / "zeta_cosine.json"
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing; set PALS_REFERENCE_DIR")
        pytest.skip(f"{path} is missing; set PALS_REFERENCE_DIR")
    reference = json.loads(path.read_text())
    cosine = UpdateSchedule(1, reference["T_max"], 1, 2 / 3, reference["zeta0"], reference["eta_min"])
    for step, rate in reference["after_step"].items():
        assert cosine.rate_at(int(step)) == pytest.approx(rate, rel=1e-12)


def test_a_schedule_needs_a_resolved_interval() -> None:
    with pytest.raises(ValueError, match="update_interval"):
        UpdateSchedule.of(PalsMethodSpec(), epochs=1, steps_per_epoch=10)
