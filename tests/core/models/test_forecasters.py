"""Every forecaster, at every size: shapes, gradients, causality and independence of its neighbours in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pals_core.errors import InvalidSpec
from pals_core.models.registry import FORECASTERS, build_forecaster
from pals_core.spec import MODEL_SPECS, Spec

NAMES = sorted(FORECASTERS)
SMALL = {"d_model": 16, "d_ff": 24, "heads": 4, "dropout": 0.0}
VARIANTS: list[dict[str, Any]] = [
    {"name": "transformer", **SMALL},
    {"name": "transformer", **SMALL, "encoder_layers": 3, "decoder_layers": 2, "d_ff": 7},
    {"name": "nstransformer", **SMALL, "projector_hidden": [8]},
    {"name": "nstransformer", **SMALL, "projector_hidden": [5, 3, 6], "decoder_layers": 2},
    {"name": "dlinear"},
    {"name": "dlinear", "per_column": True, "moving_avg": 1},
]


def model_spec(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, **({} if name == "dlinear" else SMALL), **fields}


def build(
    model: dict[str, Any],
    *,
    input_len: int = 12,
    label_len: int = 6,
    horizon: int = 5,
    columns: int = 3,
    features: int = 4,
) -> nn.Module:
    data = {"input_len": input_len, "label_len": label_len, "horizon": horizon}
    torch.manual_seed(0)
    return build_forecaster(Spec.model_validate({"data": data, "model": model}), columns, features)


def inputs(
    batch: int = 2, *, input_len: int = 12, label_len: int = 6, horizon: int = 5, columns: int = 3, features: int = 4
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    decoder_len = label_len + horizon
    shapes = [(input_len, columns), (input_len, features), (decoder_len, columns), (decoder_len, features)]
    return [torch.randn(batch, *shape, generator=generator) for shape in shapes]


def test_every_model_of_the_spec_can_be_built() -> None:
    assert {spec.model_fields["name"].default for spec in MODEL_SPECS} == set(FORECASTERS)


@pytest.mark.parametrize("model", VARIANTS, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"columns": 1},
        {"columns": 300},
        {"features": 0},
        {"horizon": 1, "label_len": 0},
        {"horizon": 37, "label_len": 12},
        {"input_len": 2, "label_len": 1},
        {"input_len": 7, "label_len": 3, "horizon": 11, "columns": 2, "features": 6},
    ],
    ids=str,
)
def test_forecasts_have_the_horizons_shape_and_every_parameter_learns(
    model: dict[str, Any], sizes: dict[str, int]
) -> None:
    forecaster = build(model, **sizes)
    output = forecaster(*inputs(**sizes))
    assert output.shape == (2, sizes.get("horizon", 5), sizes.get("columns", 3))
    assert output.isfinite().all()
    output.square().mean().backward()
    for name, parameter in forecaster.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert sum(float(parameter.grad.abs().sum()) for parameter in forecaster.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("model", VARIANTS, ids=str)
def test_a_forecast_does_not_depend_on_its_neighbours_in_the_batch(model: dict[str, Any]) -> None:
    forecaster, batch = build(model).eval(), inputs(batch=7)
    with torch.no_grad():
        together = forecaster(*batch)
        alone = torch.cat([forecaster(*(tensor[place : place + 1] for tensor in batch)) for place in range(7)])
    assert_close(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["transformer", "nstransformer"])
def test_a_step_of_the_forecast_does_not_see_later_steps_of_the_decoder(name: str) -> None:
    # The circular convolution of the embedding reaches one step ahead, and from the first step to the last.
    forecaster, (x_enc, x_mark_enc, x_dec, x_mark_dec) = build(model_spec(name), horizon=9).eval(), inputs(horizon=9)
    changed = x_mark_dec.clone()
    changed[:, 6 + 4 :] += 1.0
    with torch.no_grad():
        before = forecaster(x_enc, x_mark_enc, x_dec, x_mark_dec)
        after = forecaster(x_enc, x_mark_enc, x_dec, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_the_transformer_reads_the_seed_and_the_nstransformer_its_own() -> None:
    batch = inputs()
    changed = [*batch]
    changed[2] = batch[2] + 1
    with torch.no_grad():
        transformer, nstransformer = (build(model_spec(name)).eval() for name in ("transformer", "nstransformer"))
        assert not torch.equal(transformer(*batch), transformer(*changed))
        assert torch.equal(nstransformer(*batch), nstransformer(*changed))


def test_the_nstransformer_follows_the_level_of_its_window() -> None:
    forecaster = build(model_spec("nstransformer")).eval()
    for projector in (forecaster.tau_projector, forecaster.delta_projector):
        nn.init.zeros_(projector.output.weight)
    x_enc, *rest = inputs()
    with torch.no_grad():
        assert_close(forecaster(10 * x_enc + 3, *rest), 10 * forecaster(x_enc, *rest) + 3, rtol=1e-3, atol=1e-3)


def test_the_nstransformer_copes_with_a_window_that_does_not_vary() -> None:
    x_enc, *rest = inputs()
    output = build(model_spec("nstransformer"))(torch.full_like(x_enc, 4.0), *rest)
    output.sum().backward()
    assert output.isfinite().all()


def test_dropout_acts_in_training_alone() -> None:
    for name in ("transformer", "nstransformer"):
        forecaster, batch = build(model_spec(name, dropout=0.5)), inputs()
        with torch.no_grad():
            assert not torch.equal(forecaster.train()(*batch), forecaster(*batch))
            assert torch.equal(forecaster.eval()(*batch), forecaster(*batch))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_first_weights(name: str) -> None:
    one, other = build(model_spec(name)), build(model_spec(name))
    for (label, left), right in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right), label


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_not_part_of_the_checkpoint(name: str) -> None:
    forecaster = build(model_spec(name))
    assert set(forecaster.state_dict()) == {label for label, _ in forecaster.named_parameters()}


def test_per_column_layers_learn_each_column_by_itself() -> None:
    forecaster = build({"name": "dlinear", "per_column": True})
    forecaster(*inputs())[:, :, 1].sum().backward()
    gradient = forecaster.trend.weight.grad
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


def test_an_unresolved_spec_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="resolve"):
        build_forecaster(Spec.model_validate({"data": {"horizon": 3}}), 1, 4)
