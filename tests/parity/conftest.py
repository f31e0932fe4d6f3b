"""Reference numbers and real series, from folders named by the environment or lying next to the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

_NEXT_TO_CHECKOUT = Path(__file__).resolve().parents[3] / "shared"


def _folder(variable: str, name: str) -> Path | None:
    folder = Path(os.environ[variable]) if variable in os.environ else _NEXT_TO_CHECKOUT / name
    return folder if folder.is_dir() else None


def _found_or_skipped(folder: Path | None, variable: str) -> Path:
    if folder is None:
        reason = f"no such folder: set {variable}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of golden vectors computed by the published programs."""
    return _found_or_skipped(_folder("PALS_REFERENCE_DIR", "reference"), "PALS_REFERENCE_DIR")


@pytest.fixture(scope="session")
def series_dir() -> Path:
    """Folder of the real series the golden windows were cut from."""
    return _found_or_skipped(_folder("PALS_SERIES_DIR", "data"), "PALS_SERIES_DIR")


def _files_with(key: str) -> Iterator[Path]:
    """Reference files whose header has `key`."""
    folder = _folder("PALS_REFERENCE_DIR", "reference")
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        with safe_open(path, framework="pt") as file:
            if key in (file.metadata() or {}):
                yield path


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per reference file; `model_file` takes those whose model the test module has a mapping for."""
    if "model_file" in metafunc.fixturenames:
        module = metafunc.module
        files = [path for path in _files_with("config") if module.name_of(path) in module.MODELS]
        metafunc.parametrize("model_file", files, ids=[path.stem for path in files])
    if "windows_file" in metafunc.fixturenames:
        files = list(_files_with("seq_len,label_len,pred_len"))
        metafunc.parametrize("windows_file", files, ids=[path.stem for path in files])
