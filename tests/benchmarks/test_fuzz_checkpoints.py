from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.checkpoint_mutations import MUTATIONS, Files, outcome
from benchmarks.fuzz_checkpoints import fuzz, originals


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def test_the_originals_are_loaded(files: list[bytes], tmp_path: Path) -> None:
    assert [outcome(content, tmp_path / "file") for content in files] == ["loaded"] * len(files)


def test_a_thousand_mutations_are_loaded_or_refused(files: list[bytes], tmp_path: Path) -> None:
    found = fuzz(Files(files, seed=2), 1000, tmp_path)
    assert found["refused"] + found["loaded"] == 1000
    assert found["refused"] > 900
    assert set(found["by_kind"]) == {mutation.__name__ for mutation in MUTATIONS}
    undetected = {kind for kind, counts in found["by_kind"].items() if "loaded" in counts}
    assert undetected <= {
        "tensor_bytes_forged",
        "digest_forged",
        "description_forged",
        "container_forged",
        "tensors_swapped",
        "positions_forged",
    }, "without a digest of its own no damage goes unnoticed"


def test_equal_seeds_draw_equal_files(files: list[bytes]) -> None:
    one, other = Files(files, seed=3), Files(files, seed=3)
    assert [one.draw() for _ in range(50)] == [other.draw() for _ in range(50)]


def test_a_fault_of_the_reader_ends_the_run(
    files: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("benchmarks.checkpoint_mutations.load_forecaster", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        fuzz(Files(files, seed=4), 1, tmp_path)
    assert len(list(tmp_path.glob("fault-*"))) == 1
