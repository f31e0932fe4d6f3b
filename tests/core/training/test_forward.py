"""The arithmetic of a training: which one is chosen, and what it may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.spec import MODEL_SPECS, Precision, Spec
from pals_core.training import forward
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.events import Finished, MaskUpdate, Started
from pals_core.training.forward import ForwardPass, choose_arithmetic, gains_by_bf16
from pals_core.training.trainer import Trainer
from pals_core.training.validation import all_windows, mean_squared_error

MakeSpec = Callable[..., Spec]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = {"d_model": 16, "d_ff": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
SMALL |= {"patch_len": 4, "stride": 2, "dropout": 0.1}


@pytest.mark.parametrize(
    ("model", "asked", "hardware", "chosen"),
    [
        ({"name": "nstransformer", "d_model": 64}, "auto", True, "bf16"),
        ({"name": "nstransformer", "d_model": 64}, "auto", False, "fp32"),
        ({"name": "nstransformer", "d_model": 32}, "auto", True, "fp32"),
        ({"name": "dlinear"}, "auto", True, "fp32"),
        ({"name": "dlinear"}, "bf16", False, "bf16"),
        ({"name": "nstransformer", "d_model": 512}, "fp32", True, "fp32"),
    ],
)
def test_bfloat16_is_chosen_where_the_hardware_gains_by_it_and_the_model_is_wide(
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, object],
    asked: str,
    hardware: bool,
    chosen: str,
) -> None:
    monkeypatch.setattr(forward, "gains_by_bf16", lambda device: hardware)
    spec = make_spec(model=model, training={"precision": asked})
    assert choose_arithmetic(spec, CPU).precision == chosen


@pytest.mark.parametrize(
    ("asked", "device", "possible", "compiled"),
    [("auto", GPU, True, True), ("auto", GPU, False, False), ("auto", CPU, True, False), ("off", GPU, True, False)],
)
def test_only_a_gpu_compiles_and_only_where_it_can(
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: torch.device,
    possible: bool,
    compiled: bool,
) -> None:
    monkeypatch.setattr(forward, "gains_by_bf16", lambda device: True)
    monkeypatch.setattr(forward, "_can_compile", lambda: possible)
    assert choose_arithmetic(make_spec(training={"compile": asked}), device).compiled is compiled


@pytest.mark.parametrize(
    ("triton", "programs", "cc", "possible"),
    [
        (True, ["gcc"], None, True),
        (True, ["clang"], None, True),
        (True, ["mycc"], "mycc", True),
        (True, [], None, False),
        (True, ["gcc"], "mycc", False),
        (False, ["gcc"], None, False),
    ],
)
def test_compiling_takes_triton_and_a_c_compiler(
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    triton: bool,
    programs: list[str],
    cc: str | None,
    possible: bool,
) -> None:
    for program in programs:
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if cc is not None:
        monkeypatch.setenv("CC", cc)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(forward, "gains_by_bf16", lambda device: True)
    assert choose_arithmetic(make_spec(), GPU).compiled is possible


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "maker", "gains"),
    [
        (True, True, "Intel", True),
        (False, True, "Intel", False),
        (False, True, "AMD", True),
        (False, False, "AMD", False),
    ],
)
def test_a_cpu_gains_by_bfloat16_with_amx_and_amds_by_avx512(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, maker: str, gains: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(forward, "has_avx512_of", lambda asked: asked == maker)
    assert gains_by_bf16(CPU) is gains


@pytest.mark.parametrize(("capability", "gains"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_gains_by_bfloat16_from_compute_capability_8_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], gains: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert gains_by_bf16(GPU) is gains


@pytest.mark.parametrize("name", [str(spec.model_fields["name"].default) for spec in MODEL_SPECS])
def test_in_bfloat16_weights_stay_single_and_masks_hold(
    series: Table, make_spec: MakeSpec, tmp_path: Path, name: str
) -> None:
    fields = next(spec for spec in MODEL_SPECS if spec.model_fields["name"].default == name).model_fields
    sizes = {field: value for field, value in SMALL.items() if field in fields}
    spec = make_spec(model={"name": name} | sizes, training={"precision": "bf16", "epochs": 2, "learning_rate": 1e-3})

    events = list(Trainer(spec, series, tmp_path).run())

    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert started.precision is Precision.BF16
    assert any(isinstance(event, MaskUpdate) for event in events)
    assert isinstance(finished, Finished)
    assert finished.result.sparsity > 0
    checkpoint = read_checkpoint(tmp_path / f"epoch-{finished.result.epoch:03}.pals.safetensors")
    for parameter, mask in checkpoint.masks.items():
        weight = checkpoint.weights[parameter]
        assert weight.dtype in (torch.float32, torch.complex64)
        assert not weight[~mask].any()
        # Master weights move by less than bfloat16 can tell apart.
        real = torch.view_as_real(weight) if weight.is_complex() else weight
        assert not torch.equal(real, real.bfloat16().float())

    # The test errors are those of the checkpoint as it forecasts: in single precision.
    windows = make_windows(series, spec.data, CPU, torch.float32)
    network = ForwardPass(checkpoint.build(), CPU, Arithmetic())
    single = mean_squared_error(network, windows.test, all_windows(windows.test, CPU))
    assert single == pytest.approx(finished.result.metrics.mse, rel=1e-12)


def test_a_compiled_network_trains_to_the_same_forecasts(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiler(model, backend="aot_eager"))
    results = []
    for compiled in (False, True):
        monkeypatch.setattr(
            "pals_core.training.loop.choose_arithmetic",
            lambda spec, device, compiled=compiled: Arithmetic(Precision.FP32, compiled),
        )
        folder = tmp_path / str(compiled)
        folder.mkdir()
        finished = list(Trainer(make_spec(model={"name": "transformer"} | TRANSFORMER), series, folder).run())[-1]
        assert isinstance(finished, Finished)
        results.append(finished.result)
    eager, compiled_result = results
    assert compiled_result.metrics.mse == pytest.approx(eager.metrics.mse, rel=1e-3)
    assert compiled_result.sparsity == eager.sparsity


def test_evaluations_are_not_compiled(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[bool] = []

    def watched(model: torch.nn.Module) -> Callable[..., torch.Tensor]:
        def run(*inputs: torch.Tensor) -> torch.Tensor:
            modes.append(model.training)
            return model(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", watched)
    monkeypatch.setattr(
        "pals_core.training.loop.choose_arithmetic", lambda spec, device: Arithmetic(Precision.FP32, compiled=True)
    )
    started, *_, finished = Trainer(make_spec(), series, tmp_path).run()
    assert isinstance(started, Started) and isinstance(finished, Finished)
    assert modes == [True] * started.total_steps


TRANSFORMER = {name: value for name, value in SMALL.items() if name not in ("patch_len", "stride")} | {"dropout": 0.0}
