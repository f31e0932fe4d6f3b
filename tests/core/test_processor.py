from __future__ import annotations

import pytest
import torch

from pals_core.processor import compresses_fast, multiplies_bf16


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "multiplies"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_cpu_multiplies_bfloat16_with_amx_or_avx512(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, multiplies: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert multiplies_bf16() is multiplies


@pytest.mark.parametrize(
    ("processor", "fast"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_f": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_f": False}, False),
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_vp2intersect": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_vp2intersect": False}, False),
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, False),
        ({"cpu_name": "another", "avx512_f": True, "avx512_vp2intersect": True}, False),
        ({}, False),
    ],
    ids=["Intel", "Intel with AVX2", "Zen 5", "Zen 4", "AMD, not said", "another maker's", "not said"],
)
def test_a_cpu_compresses_fast_if_it_is_intels_or_amds_newest(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, object], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert compresses_fast() is fast
