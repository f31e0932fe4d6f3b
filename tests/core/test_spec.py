"""The spec accepts what makes sense, refuses what does not, and says where."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pals_core.spec import METHOD_SPECS, MODEL_SPECS, DataSpec, Spec
from pals_core.spec.problems import problem_of


def spec(**fields: Any) -> Spec:
    return Spec.model_validate({"data": {"horizon": 24}, **fields})


def test_a_horizon_is_enough() -> None:
    assert spec().model.name == "nstransformer"
    assert spec().method.name == "pals"
    assert spec().data.targets is None


def test_bare_names_stand_for_their_defaults() -> None:
    short = spec(model="dlinear", method="dense")
    assert short == spec(model={"name": "dlinear"}, method={"name": "dense"})


def test_a_bare_frequency_is_short_for_its_mean() -> None:
    data = DataSpec.model_validate({"horizon": 24, "resample": "D"})
    assert data == DataSpec.model_validate({"horizon": 24, "resample": {"frequency": "D", "aggregation": "mean"}})


def test_a_spec_survives_json() -> None:
    one = spec(
        model={"name": "transformer", "heads": 4},
        data={
            "horizon": 3,
            "targets": ["a"],
            "known_future": ["b"],
            "series": "pooled",
            "resample": {"frequency": "W-SUN", "aggregation": "last"},
            "split": {"train": 0.6, "validation": 0.2},
        },
    )
    assert Spec.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {}},
        {"data": {"horizon": 0}},
        {"data": {"horizon": 24, "colour": "red"}},
        {"data": {"horizon": 24, "targets": []}},
        {"data": {"horizon": 24, "targets": ["a", "a"]}},
        {"data": {"horizon": 24, "known_future": ["a", "a"]}},
        {"data": {"horizon": 24, "targets": ["a", "b"], "known_future": ["b"]}},
        {"data": {"horizon": 24, "series": "apart"}},
        {"data": {"horizon": 24, "resample": ""}},
        {"data": {"horizon": 24, "resample": {"aggregation": "sum"}}},
        {"data": {"horizon": 24, "resample": {"frequency": "D", "aggregation": "median"}}},
        {"data": {"horizon": 24, "input_len": 10, "label_len": 11}},
        {"data": {"horizon": 24, "split": {"train": 0.7, "validation": 0.1, "test": 0.1}}},
        {"data": {"horizon": 24, "split": {"train": 100, "validation": 0.1, "test": 10}}},
        {"data": {"horizon": 24, "split": {"train": 100.5, "validation": 10, "test": 10}}},
        {"model": "lstm"},
        {"model": {"name": "transformer", "d_model": 10, "heads": 4}},
        {"model": {"name": "transformer", "d_model": 7, "heads": 7}},
        {"model": {"name": "transformer", "dropout": float("nan")}},
        {"model": {"name": "nstransformer", "projector_hidden": []}},
        {"model": {"name": "dlinear", "moving_avg": 24}},
        {"model": {"name": "autoformer", "moving_avg": 24}},
        {"model": {"name": "fedformer", "moving_avg": 2}},
        {"model": {"name": "fedformer", "mode_select": "highest"}},
        {"model": {"name": "informer", "factor": 0}},
        {"model": {"name": "patchtst", "patch_len": 8, "stride": 9}},
        {"model": {"name": "patchtst", "d_model": 10, "heads": 4}},
        {"model": {"name": "itransformer", "decoder_layers": 1}},
        {"method": {"name": "pals", "prune_rate_factor": 1}},
        {"method": {"name": "pals", "prune_rate_factor": 2}},
        {"method": {"name": "pals", "loss_tolerance": 0.9}},
        {"method": {"name": "pals", "min_sparsity": 0.9, "max_sparsity": 0.5}},
        {"method": {"name": "pals", "prune_rate": 0.1, "prune_rate_min": 0.2}},
        {"method": {"name": "dense", "prune_rate": 0.1}},
        {"method": {"name": "granet", "prune_rate": 0.1, "prune_rate_min": 0.2}},
        {"method": {"name": "granet", "sparsity": 0.5, "initial_density": 0.4}},
        {"method": {"name": "granet", "growth": "magnitude"}},
        {"method": {"name": "gmp", "sparsity": 1}},
        {"method": {"name": "gmp", "prune_rate": 0.5}},
        {"method": {"name": "rigl", "sparsity": 0}},
        {"method": {"name": "rigl", "allocation": "global"}},
        {"method": {"name": "set", "growth": "gradient"}},
        {"method": {"name": "static", "update_interval": 5}},
        {"training": {"epochs": 0}},
        {"training": {"weight_decay": 0.1}},
        {"training": {"gradient_clip": 0}},
        {"training": {"schedule": "step"}},
        {"training": {"optimizer": "sgd"}},
        {"training": {"learning_rate": float("inf")}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"data": {"horizon": True}}, ["/data/horizon"]),
        ({"data": {"horizon": 24, "input_len": False}}, ["/data/input_len"]),
        ({"data": {"horizon": 24, "split": {"train": True}}}, ["/data/split/train"]),
        (
            {"data": {"horizon": 24}, "model": {"name": "informer", "d_model": True, "dropout": False, "distil": True}},
            ["/model/d_model", "/model/dropout"],
        ),
        (
            {"data": {"horizon": 24}, "method": {"name": "pals", "update_interval": True, "expand": False}},
            ["/method/update_interval"],
        ),
    ],
)
def test_true_and_false_are_no_numbers(fields: dict[str, Any], wrong: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Spec.model_validate(fields)
    problems = [problem_of(error, fields, error["loc"]) for error in refused.value.errors()]
    assert [(problem.pointer, problem.message) for problem in problems] == [
        (pointer, "must be a number, not true or false") for pointer in wrong
    ]


@pytest.mark.parametrize(("sparsity", "density"), [(0.7, 0.3), (0.8, 0.2), (0.85, 0.15), (0.95, 0.05)])
def test_granet_may_start_at_its_target(sparsity: float, density: float) -> None:
    assert spec(method={"name": "granet", "sparsity": sparsity, "initial_density": density})


def test_a_published_mistake_is_made_only_when_asked_for() -> None:
    for name in ("informer", "fedformer"):
        assert spec(model=name).model.model_dump()["published_axis_order"] is False


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().data.horizon = 3


@pytest.mark.parametrize("model", [*MODEL_SPECS, *METHOD_SPECS], ids=lambda model: model.__name__)
def test_every_field_is_explained(model: Any) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert name == "name" or field.description, name
