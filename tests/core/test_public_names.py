from __future__ import annotations

import subprocess
import sys

import pytest

import pals_core


def test_every_public_name_is_there_and_listed() -> None:
    assert pals_core.__all__ == sorted(pals_core.__all__)
    assert dir(pals_core) == pals_core.__all__
    for name in pals_core.__all__:
        assert getattr(pals_core, name) is not None


def test_the_names_users_need_are_public() -> None:
    needed = {"train", "Trainer", "load_forecaster", "read_table", "read_checkpoint", "Spec", "Table", "PalsError"}
    assert needed <= set(pals_core.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        pals_core.trian  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "pals_core",
        "pals_core.spec",
        "pals_core.training.events",
        "pals_core.checkpoint.container",
        "pals_core.sparsity.schedule",
        "pals_core.forecast.rows",
    ],
)
def test_plain_modules_load_neither_torch_nor_pandas(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
