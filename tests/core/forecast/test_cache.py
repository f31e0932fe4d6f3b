from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pals_core.errors import InvalidCheckpoint
from pals_core.forecast.cache import ForecasterCache
from pals_core.forecast.forecaster import load_forecaster


@pytest.fixture
def files(best_checkpoint: Path, tmp_path: Path) -> list[Path]:
    """The same checkpoint under three names."""
    return [Path(shutil.copy(best_checkpoint, tmp_path / name)) for name in ("a", "b", "c")]


def size_of_one(best_checkpoint: Path) -> int:
    return load_forecaster(best_checkpoint).nbytes


def test_a_forecaster_takes_what_its_weights_buffers_and_series_take(best_checkpoint: Path) -> None:
    forecaster = load_forecaster(best_checkpoint)
    weights = 4 * forecaster.header.total_parameters

    assert weights + 12 * 3 * 8 <= forecaster.nbytes < 2 * weights


def test_a_file_is_loaded_once(files: list[Path], best_checkpoint: Path) -> None:
    cache = ForecasterCache(10 * size_of_one(best_checkpoint))

    assert cache.load(files[0]) is cache.load(str(files[0]))
    assert cache.load(files[1]) is not cache.load(files[0])
    assert cache.bytes == 2 * size_of_one(best_checkpoint)


def test_what_was_not_used_for_longest_makes_room(files: list[Path], best_checkpoint: Path) -> None:
    cache = ForecasterCache(2 * size_of_one(best_checkpoint))
    first, second = cache.load(files[0]), cache.load(files[1])
    assert cache.load(files[0]) is first
    cache.load(files[2])

    assert cache.bytes <= cache.max_bytes
    assert cache.load(files[0]) is first
    assert cache.load(files[1]) is not second


def test_one_that_is_larger_than_the_cache_displaces_nothing(files: list[Path], best_checkpoint: Path) -> None:
    cache = ForecasterCache(size_of_one(best_checkpoint))
    small = cache.load(files[0])
    cache.max_bytes -= 1

    assert cache.load(files[1]) is not cache.load(files[1])
    cache.max_bytes += 1
    assert cache.load(files[0]) is small


def test_without_room_nothing_is_kept(best_checkpoint: Path) -> None:
    cache = ForecasterCache(0)

    assert cache.load(best_checkpoint) is not cache.load(best_checkpoint)
    assert cache.bytes == 0


def test_a_changed_file_is_loaded_again(files: list[Path], best_checkpoint: Path) -> None:
    cache = ForecasterCache(10 * size_of_one(best_checkpoint))
    before = cache.load(files[0])
    files[1].replace(files[0])
    assert cache.load(files[0]) is not before

    with files[0].open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(files[0], ns=(0, 0))
    with pytest.raises(InvalidCheckpoint):
        cache.load(files[0])


def test_a_file_that_is_gone_is_not_served(files: list[Path], best_checkpoint: Path) -> None:
    cache = ForecasterCache(10 * size_of_one(best_checkpoint))
    cache.load(files[0])
    files[0].unlink()

    with pytest.raises(FileNotFoundError):
        cache.load(files[0])
    assert cache.bytes == 0
