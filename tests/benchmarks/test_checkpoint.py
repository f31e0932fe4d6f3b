from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.checkpoint import largest, measured, with_sparsity
from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.training.conversion import in_precision
from tests.core.training.small_training import best_checkpoint, make_spec, one_thread, series, trained

__all__ = ["best_checkpoint", "make_spec", "one_thread", "series", "trained"]


@pytest.fixture(scope="module")
def checkpoint(best_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(best_checkpoint)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_random_masks_have_the_sparsity_that_was_asked_for(checkpoint: Checkpoint, sparsity: float) -> None:
    changed = with_sparsity(checkpoint, sparsity)
    assert changed.header.sparsity == pytest.approx(sparsity, abs=0.02)
    assert all(not changed.weights[name][~changed.masks[name]].any() for name in changed.masks)


def test_the_bound_is_that_of_the_page(checkpoint: Checkpoint) -> None:
    header = checkpoint.header
    others = header.total_parameters - header.maskable_parameters
    for precision, size in (("fp32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)):
        allowed = size * header.active_parameters + header.maskable_parameters / 8 + 4 * others + 65_536
        assert largest(in_precision(checkpoint, StoredPrecision(precision))) == int(1.02 * allowed)


def test_a_file_is_written_and_loaded_in_a_process_of_its_own(
    checkpoint: Checkpoint, best_checkpoint: Path, tmp_path: Path
) -> None:
    row = measured(tmp_path / "file", best_checkpoint, checkpoint)
    assert row["bytes"] == (tmp_path / "file").stat().st_size
    assert row["sparsity"] == pytest.approx(checkpoint.header.sparsity, abs=1e-4)
    assert row["share_of_bound"] < 1
    assert row["first_load_seconds"] > 0
    assert row["dense_bytes"] == 4 * checkpoint.header.total_parameters
