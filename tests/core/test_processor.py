from __future__ import annotations

import pytest
import torch

from pals_core.processor import multiplies_bf16


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "multiplies"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_cpu_multiplies_bfloat16_with_amx_or_avx512(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, multiplies: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert multiplies_bf16() is multiplies
