from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.resume import MOST_STOPS, PAIRS, Campaign, digests, in_turn, kill_and_resume, report, series, spec_of
from pals_core.data.audit import profile_of
from pals_core.feasibility import plan


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_every_pair_is_a_training_of_twenty_steps(pair: tuple[str, str]) -> None:
    table = series()
    planned = plan(spec_of(pair, table), profile_of(table))

    assert (planned.total_steps, planned.steps_per_epoch) == (20, 5)
    assert planned.updates > 10 or pair[1] in ("dense", "static")


def test_all_forecasters_are_paired_with_all_methods() -> None:
    assert len(PAIRS) == len(set(PAIRS)) == 9 * 7


def test_every_pair_has_its_turn_before_one_comes_again() -> None:
    turns = list(islice(in_turn(PAIRS, random.Random(1)), 2 * len(PAIRS)))

    assert set(turns[: len(PAIRS)]) == set(turns[len(PAIRS) :]) == set(PAIRS)


def test_killed_trainings_go_on_to_the_same_bytes() -> None:
    pairs = [("nlinear", "set"), ("dlinear", "pals")]
    campaign = kill_and_resume(pairs, 3, seed=1, threads=1)

    told = report(campaign, seed=1, seconds=1.0)
    assert (told["stops"], told["mismatches"]) == (3, [])
    assert sum(told["stops_of_pair"].values()) == sum(told["stops_after_step"].values()) == 3
    assert 1 <= told["pairs"] <= told["trainings"] <= 3
    assert all(len(files) == 2 or "epoch-004" in next(iter(files)) for files in campaign.uninterrupted.values())


def test_other_bytes_are_found() -> None:
    campaign = Campaign(threads=1, chance=random.Random(2))
    pair = ("nlinear", "dense")
    campaign.uninterrupted[pair] = {"epoch-004.pals.safetensors": "another digest"}

    stops = campaign.interrupt(pair, MOST_STOPS)

    (mismatch,) = campaign.mismatches
    assert mismatch["pair"] == "nlinear dense"
    assert len(mismatch["stopped_at"]) == stops >= 1
    assert "epoch-004.pals.safetensors" in mismatch["files"]


def test_a_training_that_fails_is_an_error(tmp_path: Path) -> None:
    campaign = Campaign(threads=1, chance=random.Random(3))
    (tmp_path / "state-000000001.safetensors").write_bytes(b"torn")

    with pytest.raises(RuntimeError, match="nlinear dense failed: InvalidCheckpoint: the file has 4 bytes"):
        campaign.attempt(spec_of(("nlinear", "dense"), campaign.table), tmp_path, None)


def test_digests_tell_files_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")

    found = digests(tmp_path)
    assert list(found) == ["a", "b"]
    assert found["a"] != found["b"]
