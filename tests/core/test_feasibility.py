"""Open fields are filled from the table, and what cannot run is refused before it does."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data.profile import Finding, FindingCode, Layout, Severity, Span, TableProfile
from pals_core.feasibility import check, plan, resolve
from pals_core.spec import PalsMethodSpec, Spec, UpdatingMethodSpec


def profile(
    steps: int = 966, frequency: str | None = "W-TUE", columns: tuple[str, ...] = ("a", "b", "OT"), *findings: Finding
) -> TableProfile:
    return TableProfile(
        layout=Layout.WIDE,
        time_column="date",
        columns=columns,
        rows=steps,
        steps=steps,
        start=None,
        end=None,
        frequency=frequency,
        findings=findings,
    )


def spec(horizon: int = 24, **fields: Any) -> Spec:
    data = {"horizon": horizon, **fields.pop("data", {})}
    return Spec.model_validate({"data": data, **fields})


def finding(code: FindingCode, column: str | None = None, *, cured: bool = False) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code=code,
        message="something is wrong",
        remedy="mend it",
        row=7,
        column=column,
        cured_by_missing_policy=cured,
    )


# --- resolve --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frequency", "input_len", "label_len"),
    [("h", 96, 48), ("15min", 96, 48), ("D", 96, 48), ("W-TUE", 36, 18), ("MS", 36, 18), (None, 96, 48)],
)
def test_lengths_follow_the_frequency(frequency: str | None, input_len: int, label_len: int) -> None:
    data = resolve(spec(), profile(17_420, frequency)).data
    assert (data.input_len, data.label_len, data.targets) == (input_len, label_len, ("a", "b", "OT"))


@pytest.mark.parametrize(("steps", "interval"), [(17_420, 20), (966, 4), (120, 1), (10, 1)])
def test_the_update_interval_is_at_most_a_quarter_of_an_epoch(steps: int, interval: int) -> None:
    method = resolve(spec(), profile(steps)).method
    assert isinstance(method, PalsMethodSpec)
    assert method.update_interval == interval
    for name in ("granet", "gmp", "rigl", "set"):
        method = resolve(spec(method=name), profile(steps)).method
        assert isinstance(method, UpdatingMethodSpec)
        assert method.update_interval == interval


def test_what_is_given_stays() -> None:
    given_spec = spec(
        data={"targets": ["b"], "series": "joint", "input_len": 20, "label_len": 0},
        method={"name": "pals", "update_interval": 7},
    )
    assert resolve(given_spec, profile()) == given_spec


def test_resolving_twice_changes_nothing() -> None:
    once = resolve(spec(), profile())
    assert resolve(once, profile()) == once


# --- check ----------------------------------------------------------------------------------------


def test_the_defaults_run_on_a_usual_table() -> None:
    assert check(spec(), profile()) == ()


@pytest.mark.parametrize(
    ("fields", "table", "pointer", "hint"),
    [
        ({"data": {"targets": ["a", "ot"]}}, profile(), "/data/targets/1", "'OT'"),
        ({"horizon": 98}, profile(), "/data/horizon", "at most 97 fits"),
        (
            {"horizon": 60, "data": {"split": {"train": 400, "validation": 80, "test": 50}}},
            profile(),
            "/data/horizon",
            "at most 50 fits",
        ),
        ({"data": {"input_len": 700}}, profile(), "/data/input_len", "at most 652 fits"),
        ({"data": {"split": {"train": 900, "validation": 60, "test": 60}}}, profile(), "/data/split", "1020"),
        ({"training": {"batch_size": 1000}}, profile(), "/training/batch_size", "at most 617 fits"),
        ({"data": {"label_len": 37}}, profile(), "/data/label_len", "longer than input_len 36"),
        ({"data": {"input_len": 12}, "model": "patchtst"}, profile(), "/model/patch_len", "at most 12"),
        ({"horizon": 1, "data": {"label_len": 0}, "model": "fedformer"}, profile(), "/data/label_len", "at least 1"),
        ({}, profile(5), "/data/input_len", "longer table"),
        ({}, profile(966, "fortnight"), None, "not known"),
        ({}, profile(0, None), "/data/input_len", "longer table"),
    ],
)
def test_each_obstacle_is_named_with_its_field_and_a_way_out(
    fields: dict[str, Any], table: TableProfile, pointer: str | None, hint: str
) -> None:
    (problem,) = check(spec(**fields), table)
    assert problem.pointer == pointer
    assert hint in problem.message


def test_the_largest_horizon_named_does_fit() -> None:
    assert check(spec(97), profile()) == ()
    assert check(spec(data={"input_len": 652}, training={"batch_size": 1}), profile()) == ()


def test_errors_in_the_table_count_for_the_targets_alone() -> None:
    table = profile(966, "W-TUE", ("a", "b"), finding(FindingCode.NON_NUMERIC_CELL, "b"))
    (problem,) = check(spec(), table)
    assert (problem.pointer, problem.row, problem.column) == ("/data/targets", 7, "b")
    assert "mend it" in problem.message
    assert check(spec(data={"targets": ["a"]}), table) == ()


@pytest.mark.parametrize("policy", ["interpolate", "ffill"])
def test_a_missing_policy_cures_gaps_and_nothing_else(policy: str) -> None:
    gaps = profile(966, "W-TUE", ("a",), finding(FindingCode.MISSING_TIMES, cured=True))
    assert [problem.pointer for problem in check(spec(), gaps)] == ["/data/missing"]
    assert check(spec(data={"missing": policy}), gaps) == ()
    doubled = profile(966, "W-TUE", ("a",), finding(FindingCode.DUPLICATE_TIME))
    assert [problem.pointer for problem in check(spec(data={"missing": policy}), doubled)] == [None]


# --- known-future columns ---------------------------------------------------------------------------


def test_targets_are_all_columns_but_the_known_future_ones() -> None:
    asked = spec(data={"known_future": ["b"]})
    assert resolve(asked, profile()).data.targets == ("a", "OT")
    assert check(asked, profile()) == ()
    (problem,) = check(spec(data={"known_future": ["a", "b", "OT"]}), profile())
    assert problem.pointer == "/data/known_future"
    assert "nothing to forecast" in problem.message


@pytest.mark.parametrize("model", ["dlinear", "nlinear", "patchtst", "itransformer"])
def test_a_known_future_is_refused_by_what_does_not_read_it(model: str) -> None:
    (problem,) = check(spec(data={"known_future": ["b"]}, model=model), profile())
    assert problem.pointer == "/data/known_future"
    assert model in problem.message
    assert "nstransformer" in problem.message


@pytest.mark.parametrize("model", ["transformer", "nstransformer", "informer", "autoformer", "fedformer"])
def test_a_known_future_is_taken_by_what_reads_it(model: str) -> None:
    assert check(spec(data={"known_future": ["b"]}, model=model), profile()) == ()


def test_unknown_and_faulty_known_future_columns_are_pointed_at() -> None:
    (problem,) = check(spec(data={"known_future": ["a", "ot"]}), profile())
    assert problem.pointer == "/data/known_future/1"
    assert "'OT'" in problem.message
    table = profile(966, "W-TUE", ("a", "b"), finding(FindingCode.NON_NUMERIC_CELL, "b"))
    (problem,) = check(spec(data={"known_future": ["b"]}), table)
    assert problem.pointer == "/data/known_future"


# --- pooled series ----------------------------------------------------------------------------------


def long_profile(*ranges: tuple[int, int]) -> TableProfile:
    """Daily series s0, s1 … from one day of 2020 to another, the last included."""
    first = datetime(2020, 1, 1)
    spans = tuple(
        Span(start=first + timedelta(days=start), end=first + timedelta(days=end), steps=end - start + 1)
        for start, end in ranges
    )
    steps = max(end for _, end in ranges) + 1
    return profile(steps, "D", tuple(f"s{place}" for place in range(len(ranges)))).model_copy(
        update={"layout": Layout.LONG, "spans": spans}
    )


SHORT: dict[str, Any] = {"input_len": 20, "label_len": 10}


def test_a_long_table_is_pooled_and_a_wide_one_joint_unless_asked_otherwise() -> None:
    table = long_profile((0, 299), (0, 299))
    assert resolve(spec(), table).data.series == "pooled"
    assert resolve(spec(), profile()).data.series == "joint"
    assert resolve(spec(data={"series": "joint"}), table).data.series == "joint"
    assert resolve(spec(data={"series": "pooled"}), profile()).data.series == "pooled"


def test_pooled_windows_are_counted_for_each_series_by_itself() -> None:
    table = long_profile((0, 299), (50, 249), (150, 299))
    planned = plan(spec(5, data=SHORT), table)
    alone = [plan(spec(5, data=SHORT), long_profile(span)) for span in ((0, 299), (50, 249), (150, 299))]
    for part in ("train", "validation", "test"):
        assert getattr(planned.windows, part) == sum(getattr(one.windows, part) for one in alone)
    assert planned.steps_per_epoch == planned.windows.train // 32
    wide = plan(spec(5, data=SHORT | {"series": "pooled"}), profile())
    assert wide.windows.train == 3 * plan(spec(5, data=SHORT), profile()).windows.train


def test_each_series_without_room_is_named() -> None:
    table = long_profile((0, 299), (280, 299), (0, 299), (200, 299))
    problems = check(spec(15, data=SHORT), table)
    assert [(problem.pointer, problem.column) for problem in problems] == [
        ("/data/input_len", "s1"),
        ("/data/horizon", "s3"),
    ]
    assert all("leave the series out of the targets" in problem.message for problem in problems)
    assert check(spec(15, data=SHORT | {"targets": ["s0", "s2"]}), table) == ()


def test_unequal_ranges_matter_to_joint_series_alone() -> None:
    table = long_profile((0, 299), (50, 249), (0, 299))
    assert check(spec(5, data=SHORT), table) == ()
    (problem,) = check(spec(5, data=SHORT | {"series": "joint"}), table)
    assert (problem.pointer, problem.column) == ("/data/series", "s1")
    assert "'s0'" in problem.message
    assert check(spec(5, data=SHORT | {"series": "joint", "targets": ["s2", "s0"]}), table) == ()
    assert check(spec(5, data=SHORT | {"series": "joint", "targets": ["s1"]}), table) == ()


def test_a_known_future_series_reaches_over_those_it_is_for() -> None:
    table = long_profile((0, 299), (50, 249), (50, 299))
    asked = spec(5, data=SHORT | {"known_future": ["s2"]})
    (problem,) = check(asked, table)
    assert (problem.pointer, problem.column) == ("/data/known_future/0", "s2")
    assert "'s0'" in problem.message
    assert check(spec(5, data=SHORT | {"targets": ["s1"], "known_future": ["s2"]}), table) == ()


def test_thousands_of_series_are_checked_at_once() -> None:
    table = long_profile(*[(number % 50, 299) for number in range(2000)])
    assert check(spec(5, data=SHORT), table) == ()


# --- resampling -------------------------------------------------------------------------------------


def test_steps_and_defaults_follow_the_slower_frequency() -> None:
    table = profile(17_420, "h").model_copy(
        update={"start": datetime(2016, 7, 1), "end": datetime(2018, 6, 26, 19), "spans": ()}
    )
    asked = spec(3, data={"resample": "W"}, training={"batch_size": 8})
    data = resolve(asked, table).data
    assert data.resample is not None
    assert (data.resample.frequency, data.resample.aggregation) == ("W-SUN", "mean")
    assert data.input_len == 36
    # The first of July is a Friday, the last day a Tuesday: 103 whole weeks between.
    assert plan(asked, table).windows.train == int(103 * 0.7) - 36 - 3 + 1
    assert check(asked, table) == ()
    assert resolve(resolve(asked, table), table) == resolve(asked, table)


def test_pooled_series_are_resampled_over_their_own_ranges() -> None:
    table = long_profile((0, 699), (3, 602))
    planned = plan(spec(2, data={"resample": "W", "input_len": 4}), table)
    alone = [plan(spec(2, data={"resample": "W", "input_len": 4}), long_profile(span)) for span in ((0, 699), (3, 602))]
    assert planned.windows.train == sum(one.windows.train for one in alone)


@pytest.mark.parametrize("frequency", ["D", "h", "W-TUE", "fortnight", "10D"])
def test_a_frequency_that_is_not_slower_is_the_one_problem(frequency: str) -> None:
    (problem,) = check(spec(data={"resample": frequency}), profile())
    assert problem.pointer == "/data/resample/frequency"


# --- plan -----------------------------------------------------------------------------------------


def illness(**method: Any) -> Spec:
    return spec(method={"name": "pals", "update_interval": 5, **method})


def test_the_published_illness_training_is_planned() -> None:
    planned = plan(illness(), profile())
    windows = planned.windows
    assert (windows.train, windows.validation, windows.test) == (617, 74, 170)
    assert (planned.steps_per_epoch, planned.total_steps, planned.updates) == (19, 190, 25)


def test_reachable_sparsity_lies_within_one_update_of_the_published_programs() -> None:
    published = (0.18, 0.33, 0.43, 0.50, 0.54, 0.58, 0.60)
    reachable = plan(illness(), profile()).reachable_sparsity
    for ours, theirs in zip(reachable, published, strict=False):
        # An update that shrinks takes at most ζ₀·(γ − 1) = 5 % of the active weights.
        assert ours - 0.005 <= theirs <= 1 - (1 - ours) * 0.95 + 0.005
    assert reachable[6:] == (reachable[6],) * 4


def test_each_shrink_leaves_one_minus_zeta_times_gamma_minus_one() -> None:
    (reached,) = plan(illness(prune_rate=0.4, prune_rate_min=0.4), profile()).reachable_sparsity[-1:]
    assert reached == pytest.approx(1 - (1 - 0.4 * 0.1) ** 25)


def test_a_larger_factor_reaches_further_until_max_sparsity() -> None:
    assert plan(illness(prune_rate_factor=1.2), profile()).reachable_sparsity[-1] > 0.8
    capped = plan(illness(prune_rate_factor=1.2, max_sparsity=0.5), profile()).reachable_sparsity
    assert 0.5 <= capped[-1] < 0.55


def test_a_prune_rate_that_ends_at_zero_stops_shrinking() -> None:
    cosine_to_zero = illness(prune_rate_min=0, final_update_fraction=1, update_interval=19)
    reachable = plan(cosine_to_zero, profile()).reachable_sparsity
    assert reachable == tuple(sorted(reachable))


def test_a_sparse_start_is_where_it_starts() -> None:
    reachable = plan(illness(initial_density=0.05), profile()).reachable_sparsity
    assert list(reachable) == pytest.approx([0.95] * 10)


def test_dense_training_has_no_updates() -> None:
    planned = plan(spec(method="dense"), profile())
    assert (planned.updates, planned.reachable_sparsity) == (0, ())


@pytest.mark.parametrize("method", ["rigl", "set", "static"])
def test_a_sparse_start_at_its_target_stays_there(method: str) -> None:
    planned = plan(spec(method={"name": method, "sparsity": 0.7}), profile())
    assert planned.reachable_sparsity == (0.7,) * 10
    assert (planned.updates > 0) == (method != "static")


@pytest.mark.parametrize(
    ("method", "initial"), [({"name": "gmp"}, 0.0), ({"name": "granet", "initial_density": 0.5}, 0.5)]
)
def test_gradual_pruning_follows_the_cubic_to_its_target(method: dict[str, Any], initial: float) -> None:
    planned = plan(spec(method=method | {"sparsity": 0.9, "update_interval": 5}), profile())
    assert planned.updates == 25
    after = {epoch: planned.reachable_sparsity[epoch - 1] for epoch in (1, 4, 7, 10)}
    expected = {
        epoch: 0.9 + (initial - 0.9) * (1 - done / 25) ** 3 for epoch, done in ((1, 3), (4, 15), (7, 25), (10, 25))
    }
    assert after == pytest.approx(expected)


@pytest.mark.parametrize("method", ["gmp", "granet", "rigl", "set"])
def test_a_target_without_an_update_is_refused_with_the_interval_that_has_one(method: str) -> None:
    def asked(interval: int) -> Spec:
        return spec(method={"name": method, "final_update_fraction": 0.5, "update_interval": interval})

    (problem,) = check(asked(60), profile())
    assert problem.pointer == "/method/update_interval"
    assert "at most 57 fits" in problem.message
    assert plan(asked(60), profile()).updates == 0
    assert check(asked(57), profile()) == ()
    assert plan(asked(57), profile()).updates == 1
    single = spec(method=method, training={"epochs": 1, "batch_size": 600})
    (problem,) = check(single, profile())
    assert problem.message.endswith("train for more epochs, or raise final_update_fraction")
    assert "fits" not in problem.message


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    (problem,) = check(spec(training={"warmup_steps": 190}), profile())
    assert problem.pointer == "/training/warmup_steps"
    assert "at most 189 fits" in problem.message
    assert check(spec(training={"warmup_steps": 189}), profile()) == ()


def test_very_long_trainings_are_planned_at_once() -> None:
    long = spec(
        method={"name": "pals", "update_interval": 1, "prune_rate_factor": 1.0001},
        training={"epochs": 10_000, "batch_size": 1},
    )
    planned = plan(long, profile(100_000_000, "s"))
    assert planned.updates > 10**11
    assert planned.reachable_sparsity[-1] == pytest.approx(0.9, abs=0.05)


@given(
    st.integers(0, 3000),
    st.integers(1, 200),
    st.integers(2, 200),
    st.integers(1, 64),
    st.sampled_from(["transformer", "dlinear"]),
    st.sampled_from(["pals", "static"]),
)
def test_what_passes_the_check_has_windows_in_every_part_and_a_step(
    steps: int, horizon: int, input_len: int, batch_size: int, model: str, method: str
) -> None:
    asked = spec(
        horizon, data={"input_len": input_len}, training={"batch_size": batch_size}, model=model, method=method
    )
    table = profile(steps, "h")
    planned = plan(asked, table)
    windows = planned.windows
    feasible = min(windows.train, windows.validation, windows.test) > 0 and planned.steps_per_epoch > 0
    assert (check(asked, table) == ()) is feasible


def test_neither_torch_nor_pandas_is_imported() -> None:
    code = "import sys, pals_core.feasibility; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
