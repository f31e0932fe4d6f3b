from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pals_core.checkpoint.file import Checkpoint, read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.checkpoint.values import compress, spread
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint, InvalidTable
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import MODEL_SPECS, Spec
from pals_core.training.conversion import in_precision, write_dense
from pals_core.training.trainer import Trainer

ROUNDED = [StoredPrecision.FP16, StoredPrecision.BF16, StoredPrecision.INT8]
ERROR = {StoredPrecision.FP16: 2**-11, StoredPrecision.BF16: 2**-8}


@pytest.fixture(scope="module")
def checkpoint(best_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(best_checkpoint)


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_variant_is_read_as_it_was_rounded_and_measured(
    checkpoint: Checkpoint, series: Table, tmp_path: Path, precision: StoredPrecision
) -> None:
    variant = in_precision(checkpoint, precision, series)
    path = tmp_path / "variant"
    write_checkpoint(path, variant)
    loaded = read_checkpoint(path)
    assert loaded.header == variant.header
    assert all(torch.equal(loaded.weights[name], variant.weights[name]) for name in variant.weights)
    assert all(torch.equal(loaded.masks[name], checkpoint.masks[name]) for name in checkpoint.masks)
    assert loaded.header.metrics is not None
    assert checkpoint.header.metrics is not None
    change = loaded.header.metrics.mse / checkpoint.header.metrics.mse - 1
    assert loaded.header.mse_change == pytest.approx(change, abs=1e-12)
    assert 0 < abs(change) < 0.01
    assert loaded.header.may_be_default
    assert load_forecaster(path).forecast().values.shape == (4, 3)


@pytest.mark.parametrize("precision", ROUNDED)
def test_without_the_series_nothing_is_known_and_a_variant_is_no_default(
    checkpoint: Checkpoint, precision: StoredPrecision
) -> None:
    header = in_precision(checkpoint, precision).header
    assert (header.metrics, header.mse_change, header.may_be_default) == (None, None, False)


def test_a_variant_that_is_one_percent_worse_is_no_default(checkpoint: Checkpoint, series: Table) -> None:
    header = in_precision(checkpoint, StoredPrecision.INT8, series).header
    assert header.model_copy(update={"mse_change": 0.01}).may_be_default
    assert not header.model_copy(update={"mse_change": 0.0101}).may_be_default


def test_full_precision_is_the_checkpoint_itself(checkpoint: Checkpoint, best_checkpoint: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "same", in_precision(checkpoint, StoredPrecision.FP32))
    assert (tmp_path / "same").read_bytes() == best_checkpoint.read_bytes()


def test_what_is_rounded_is_not_rounded_again(checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidCheckpoint, match="in fp16 already"):
        in_precision(in_precision(checkpoint, StoredPrecision.FP16), StoredPrecision.INT8)


def test_another_series_is_refused(checkpoint: Checkpoint, series: Table) -> None:
    longer = Table(series.times[:-1], series.values[:-1], series.columns, series.frequency)
    with pytest.raises(InvalidTable, match="not the series"):
        in_precision(checkpoint, StoredPrecision.FP16, longer)
    renamed = Table(series.times, series.values, ("calm", "rising", "other"), series.frequency)
    with pytest.raises(InvalidTable, match="no column 'noise'"):
        in_precision(checkpoint, StoredPrecision.FP16, renamed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("precision", StoredPrecision)
def test_a_value_is_off_by_at_most_half_a_step(dtype: torch.dtype, precision: StoredPrecision) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 7, 3, dtype=dtype) * torch.logspace(-3, 3, 5).view(5, 1, 1)
    mask = torch.rand(5, 7, 3) < 0.4
    mask[2] = False
    values, scales = compress(weight, mask, precision)
    dense = torch.zeros_like(weight)
    spread(lambda first, stop: values[first:stop], scales, mask, dense)
    assert not dense[~mask].any()
    read, wanted = dense[mask], weight[mask]
    if precision is StoredPrecision.FP32:
        assert torch.equal(read, wanted)
    elif scales is None:
        assert ((read - wanted).abs() <= ERROR[precision] * wanted.abs() * 1.0001 + 1e-7).all()
    else:
        rows = torch.arange(5).view(5, 1, 1).expand(5, 7, 3)[mask]
        reals = torch.view_as_real(read - wanted) if weight.is_complex() else (read - wanted).unsqueeze(1)
        assert (reals.abs().amax(1) <= 0.5001 * scales[rows]).all()
        assert values.abs().amax() == 127
        assert scales[2] == 0


def test_a_row_of_denormal_numbers_is_rounded_to_zero() -> None:
    weight, mask = torch.full((1, 4), 1e-45), torch.ones(1, 4, dtype=torch.bool)
    values, scales = compress(weight, mask, StoredPrecision.INT8)
    dense = torch.ones(1, 4)
    spread(lambda first, stop: values[first:stop], scales, mask, dense)
    assert dense.tolist() == [[0.0] * 4]


def test_a_weight_too_large_for_fp16_is_refused() -> None:
    weight, mask = torch.tensor([[1.0, 70_000.0]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(InvalidCheckpoint, match="70000 is too large for fp16"):
        compress(weight, mask, StoredPrecision.FP16)
    assert compress(weight, mask, StoredPrecision.BF16)[0].isfinite().all()


@pytest.mark.parametrize("name", [spec.model_fields["name"].default for spec in MODEL_SPECS])
def test_a_dense_file_is_what_load_state_dict_takes(
    name: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    sizes = {} if "linear" in name else {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 2}
    patches = {"patch_len": 4, "stride": 2} if name == "patchtst" else {}
    for _ in Trainer(make_spec(model={"name": name} | sizes | patches, training={"epochs": 1}), series, tmp_path).run():
        pass
    checkpoint = read_checkpoint(tmp_path / "epoch-001.pals.safetensors")
    size = write_dense(tmp_path / "dense.safetensors", checkpoint)
    assert size == (tmp_path / "dense.safetensors").stat().st_size
    tensors = load_file(tmp_path / "dense.safetensors")
    model = checkpoint.build()
    for parameter in model.parameters():
        parameter.data = torch.full_like(parameter, np.nan)
    assert not any(model.load_state_dict(tensors))
    assert all(torch.equal(parameter, checkpoint.weights[key]) for key, parameter in model.named_parameters())
    for key in checkpoint.masks:
        assert not tensors[key][~checkpoint.masks[key]].any()
