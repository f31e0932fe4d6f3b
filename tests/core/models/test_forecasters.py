"""Every forecaster, at every size: shapes, gradients, causality and independence of its neighbours in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pals_core.data.lengths import window_lengths
from pals_core.errors import InvalidSpec
from pals_core.models.registry import FORECASTERS, build_forecaster
from pals_core.models.required_lengths import length_problems
from pals_core.spec import MODEL_SPECS, Spec

NAMES = sorted(FORECASTERS)
LINEAR = ("dlinear", "nlinear")
WITHOUT_DECODER = ("dlinear", "itransformer", "nlinear", "patchtst")
SMALL = {"d_model": 16, "d_ff": 24, "heads": 4, "dropout": 0.0}
VARIANTS: list[dict[str, Any]] = [
    {"name": "transformer", **SMALL},
    {"name": "transformer", **SMALL, "encoder_layers": 3, "decoder_layers": 2, "d_ff": 7},
    {"name": "nstransformer", **SMALL, "projector_hidden": [8]},
    {"name": "nstransformer", **SMALL, "projector_hidden": [5, 3, 6], "decoder_layers": 2},
    {"name": "informer", **SMALL},
    {"name": "informer", **SMALL, "factor": 1, "encoder_layers": 1, "decoder_layers": 2},
    {"name": "informer", **SMALL, "factor": 40, "encoder_layers": 4, "published_axis_order": True},
    {"name": "informer", **SMALL, "distil": False, "encoder_layers": 3, "heads": 1},
    {"name": "autoformer", **SMALL},
    {"name": "autoformer", **SMALL, "factor": 1, "moving_avg": 1, "encoder_layers": 3, "decoder_layers": 2},
    {"name": "autoformer", **SMALL, "factor": 50, "moving_avg": 5, "encoder_layers": 1, "d_ff": 7},
    {"name": "fedformer", **SMALL},
    {"name": "fedformer", **SMALL, "modes": 2, "encoder_layers": 3, "decoder_layers": 2, "heads": 1},
    {"name": "fedformer", **SMALL, "modes": 1, "mode_select": "lowest", "published_axis_order": True, "heads": 8},
    {"name": "patchtst", **SMALL, "patch_len": 2, "stride": 1},
    {"name": "patchtst", **SMALL, "patch_len": 2, "stride": 2, "encoder_layers": 3, "d_ff": 7},
    {"name": "patchtst", **SMALL, "patch_len": 12, "stride": 5},
    {"name": "itransformer", **SMALL},
    {"name": "itransformer", **SMALL, "encoder_layers": 3, "heads": 1},
    {"name": "dlinear"},
    {"name": "dlinear", "per_column": True, "moving_avg": 1},
    {"name": "nlinear"},
    {"name": "nlinear", "per_column": True},
]
SIZES: list[dict[str, int]] = [
    {},
    {"columns": 1},
    {"columns": 300},
    {"features": 0},
    {"horizon": 1, "label_len": 0},
    {"horizon": 37, "label_len": 12},
    {"input_len": 2, "label_len": 1},
    {"input_len": 7, "label_len": 3, "horizon": 11, "columns": 2, "features": 6},
    {"input_len": 31, "label_len": 17, "horizon": 2},
]


def model_spec(name: str, **fields: Any) -> dict[str, Any]:
    sizes = {} if name in LINEAR else SMALL
    patches = {"patch_len": 4, "stride": 2} if name == "patchtst" else {}
    return {"name": name, **sizes, **patches, **fields}


def parse(
    model: dict[str, Any], *, input_len: int = 12, label_len: int = 6, horizon: int = 5, seed: int = 2020
) -> Spec:
    data = {"input_len": input_len, "label_len": label_len, "horizon": horizon}
    return Spec.model_validate({"data": data, "model": model, "training": {"seed": seed}})


def build(model: dict[str, Any], *, columns: int = 3, features: int = 4, weights: int = 0, **fields: int) -> nn.Module:
    torch.manual_seed(weights)
    return build_forecaster(parse(model, **fields), columns, features)


def cases() -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Every variant at every size, but for lengths it refuses."""
    possible = []
    for model in VARIANTS:
        for sizes in SIZES:
            lengths = {name: size for name, size in sizes.items() if name not in ("columns", "features")}
            spec = parse(model, **lengths)
            if not length_problems(spec.model, window_lengths(spec.data)):
                possible.append((model, sizes))
    return possible


def inputs(
    batch: int = 2, *, input_len: int = 12, label_len: int = 6, horizon: int = 5, columns: int = 3, features: int = 4
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    decoder_len = label_len + horizon
    shapes = [(input_len, columns), (input_len, features), (decoder_len, columns), (decoder_len, features)]
    return [torch.randn(batch, *shape, generator=generator) for shape in shapes]


def test_every_model_of_the_spec_can_be_built() -> None:
    assert {spec.model_fields["name"].default for spec in MODEL_SPECS} == set(FORECASTERS)


@pytest.mark.parametrize(("model", "sizes"), cases(), ids=str)
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


def test_only_lengths_without_a_patch_or_a_frequency_are_left_out() -> None:
    everything = [(model, sizes) for model in VARIANTS for sizes in SIZES]
    left_out = [(model["name"], sizes) for model, sizes in everything if (model, sizes) not in cases()]
    assert left_out == [("fedformer", SIZES[4])] * 3 + [("patchtst", SIZES[6]), ("patchtst", SIZES[7])]


@pytest.mark.parametrize("model", VARIANTS, ids=str)
def test_evaluation_draws_no_random_numbers_and_repeats_itself(model: dict[str, Any]) -> None:
    forecaster, batch = build(model | ({} if model["name"] in LINEAR else {"dropout": 0.5})).eval(), inputs()
    before = torch.get_rng_state()
    with torch.no_grad():
        once, again = forecaster(*batch), forecaster(*batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(once, again)


@pytest.mark.parametrize("model", VARIANTS, ids=str)
def test_a_forecast_does_not_depend_on_its_neighbours_in_the_batch(model: dict[str, Any]) -> None:
    forecaster, batch = build(model).eval(), inputs(batch=7)
    with torch.no_grad():
        together = forecaster(*batch)
        alone = torch.cat([forecaster(*(tensor[place : place + 1] for tensor in batch)) for place in range(7)])
    assert_close(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["transformer", "nstransformer", "informer"])
def test_a_step_of_the_forecast_does_not_see_later_steps_of_the_decoder(name: str) -> None:
    # The circular convolution of the embedding reaches one step ahead, and from the first step to the last.
    # Informer chooses its queries without a mask, so all of them are kept here.
    model = model_spec(name, **({"factor": 100} if name == "informer" else {}))
    forecaster, (x_enc, x_mark_enc, x_dec, x_mark_dec) = build(model, horizon=9).eval(), inputs(horizon=9)
    changed = x_mark_dec.clone()
    changed[:, 6 + 4 :] += 1.0
    with torch.no_grad():
        before = forecaster(x_enc, x_mark_enc, x_dec, x_mark_dec)
        after = forecaster(x_enc, x_mark_enc, x_dec, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", NAMES)
def test_some_read_the_decoders_seed_the_others_make_their_own(name: str) -> None:
    forecaster, batch = build(model_spec(name)).eval(), inputs()
    changed = [*batch]
    changed[2] = batch[2] + 1
    with torch.no_grad():
        reads = not torch.equal(forecaster(*batch), forecaster(*changed))
    assert reads == (name in ("transformer", "informer"))


@pytest.mark.parametrize("name", NAMES)
def test_only_models_with_a_decoder_read_the_horizons_calendar(name: str) -> None:
    forecaster, batch = build(model_spec(name)).eval(), inputs()
    changed = [*batch]
    changed[3] = batch[3] + 1
    with torch.no_grad():
        reads = not torch.equal(forecaster(*batch), forecaster(*changed))
    assert reads == (name not in WITHOUT_DECODER)


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


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LINEAR)))
def test_dropout_acts_in_training_alone(name: str) -> None:
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
def test_the_state_holds_what_was_learnt_or_drawn_and_nothing_that_follows_from_the_spec(name: str) -> None:
    forecaster = build(model_spec(name))
    parameters = {label for label, _ in forecaster.named_parameters(remove_duplicate=False)}
    buffers = {label.rpartition(".")[2] for label in set(forecaster.state_dict()) - parameters}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert buffers == {
        "informer": {"sampled_keys"} | statistics,
        "fedformer": {"frequencies", "query_frequencies", "key_frequencies"},
        "patchtst": statistics,
    }.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_state_carried_over_is_the_same_forecaster(name: str) -> None:
    lengths = {"input_len": 64, "horizon": 60}
    model = model_spec(name, **({"modes": 5} if name == "fedformer" else {}))
    one = build(model, seed=1, **lengths)
    one.train()(*inputs(batch=4, **lengths))
    other = build(model, seed=2, weights=1, **lengths)
    other.load_state_dict(one.state_dict())
    batch = inputs(**lengths)
    with torch.no_grad():
        assert torch.equal(one.eval()(*batch), other.eval()(*batch))


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("informer", "decoder.layers.0.cross_attention.sampled_keys"),
        ("fedformer", "encoder.layers.0.attention.block.frequencies"),
    ],
)
def test_what_a_model_draws_once_follows_from_the_training_seed_alone(name: str, drawn: str) -> None:
    model, lengths = model_spec(name, **({"modes": 5} if name == "fedformer" else {})), {"input_len": 64}
    states = [
        build(model, seed=seed, weights=weights, **lengths).state_dict() for seed, weights in ((7, 0), (7, 1), (8, 0))
    ]
    assert torch.equal(states[0][drawn], states[1][drawn])
    assert not torch.equal(states[0][drawn], states[2][drawn])


@pytest.mark.parametrize("model", VARIANTS, ids=str)
def test_a_network_can_be_described_without_taking_memory(model: dict[str, Any]) -> None:
    with torch.device("meta"):
        described = build(model)
    assert {tensor.device.type for tensor in described.state_dict().values()} == {"meta"}
    shapes = {label: tensor.shape for label, tensor in build(model).state_dict().items()}
    assert {label: tensor.shape for label, tensor in described.state_dict().items()} == shapes


def test_layers_of_a_fedformer_share_one_block_per_role_which_counts_once() -> None:
    forecaster = build(model_spec("fedformer", encoder_layers=3, decoder_layers=2, heads=2, modes=4))
    blocks = {label: weight.shape for label, weight in forecaster.named_parameters() if weight.is_complex()}
    assert blocks == {
        "encoder.layers.0.attention.block.weight": (2, 8, 8, 4),
        "decoder.layers.0.self_attention.block.weight": (2, 8, 8, 4),
        "decoder.layers.0.cross_attention.block.weight": (2, 8, 8, 4),
    }
    assert forecaster.encoder.layers[0].attention.block is forecaster.encoder.layers[2].attention.block


def test_a_fedformer_keeps_at_most_half_as_many_frequencies_as_steps() -> None:
    forecaster = build(model_spec("fedformer", modes=64), input_len=13, label_len=1, horizon=8)
    assert forecaster.encoder.layers[0].attention.block.frequencies.tolist() == list(range(6))
    assert forecaster.decoder.layers[0].self_attention.block.frequencies.tolist() == list(range(4))


def test_a_patchtst_forecasts_every_column_by_itself() -> None:
    forecaster, (x_enc, *rest) = build(model_spec("patchtst")).eval(), inputs()
    changed = x_enc.clone()
    changed[:, :, 0] += torch.randn(12)
    with torch.no_grad():
        before, after = forecaster(x_enc, *rest), forecaster(changed, *rest)
    assert_close(before[:, :, 1:], after[:, :, 1:], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, :, 0], after[:, :, 0])


def test_an_itransformer_knows_no_order_of_columns() -> None:
    forecaster, (x_enc, *rest) = build(model_spec("itransformer")).eval(), inputs()
    order = [2, 0, 1]
    with torch.no_grad():
        assert_close(forecaster(x_enc[:, :, order], *rest), forecaster(x_enc, *rest)[:, :, order], rtol=0, atol=1e-5)


def test_an_nlinear_follows_the_level_of_its_window() -> None:
    for per_column in (False, True):
        forecaster, (x_enc, *rest) = build(model_spec("nlinear", per_column=per_column)), inputs()
        with torch.no_grad():
            assert_close(forecaster(x_enc + 100, *rest), forecaster(x_enc, *rest) + 100, rtol=0, atol=1e-4)
            nn.init.zeros_(forecaster.linear.weight)
            nn.init.zeros_(forecaster.linear.bias)
            assert_close(forecaster(x_enc, *rest), x_enc[:, -1:].expand(-1, 5, -1))


@pytest.mark.parametrize(("name", "layer"), [("dlinear", "trend"), ("nlinear", "linear")])
def test_per_column_layers_learn_each_column_by_itself(name: str, layer: str) -> None:
    forecaster = build({"name": name, "per_column": True})
    forecaster(*inputs())[:, :, 1].sum().backward()
    gradient = forecaster.get_submodule(layer).weight.grad
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


def test_an_unresolved_spec_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="resolve"):
        build_forecaster(Spec.model_validate({"data": {"horizon": 3}}), 1, 4)


@pytest.mark.parametrize(
    ("model", "lengths", "advice"),
    [
        (model_spec("patchtst", patch_len=16, stride=8), {"input_len": 15}, "at most 15"),
        (model_spec("fedformer"), {"label_len": 0, "horizon": 1}, "label_len of at least 1"),
    ],
    ids=["patchtst", "fedformer"],
)
def test_lengths_a_model_cannot_work_on_are_refused(
    model: dict[str, Any], lengths: dict[str, int], advice: str
) -> None:
    with pytest.raises(InvalidSpec, match=advice) as refusal:
        build(model, **lengths)
    assert [problem.message for problem in refusal.value.problems] == [refusal.value.message]
