from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
import torch

from pals_core.data.table import Table
from pals_core.errors import ErrorCode, TrainingFailed
from pals_core.spec import Spec
from pals_core.training import device as device_module
from pals_core.training.device import (
    choose_device,
    seed_random_state,
    with_own_torch_state,
    with_readable_failures,
)
from pals_core.training.events import Finished, StateSaved
from pals_core.training.trainer import Trainer

CPU = torch.device("cpu")


def draws(seed: int) -> Iterator[float]:
    torch.manual_seed(seed)
    while True:
        yield float(torch.rand(()))


def test_two_random_sequences_do_not_disturb_each_other() -> None:
    alone = with_own_torch_state(draws(1), CPU, False)
    expected = [next(alone) for _ in range(4)]

    torch.manual_seed(99)
    outer_alone = torch.rand(3)
    torch.manual_seed(99)
    first, second = with_own_torch_state(draws(1), CPU, False), with_own_torch_state(draws(2), CPU, False)
    seen, outer = [], []
    for _ in range(3):
        seen.append(next(first))
        next(second)
        outer.append(torch.rand(()))
    seen.append(next(first))

    assert seen == expected
    assert torch.equal(torch.stack(outer), outer_alone)


def test_counts_of_cpu_threads_do_not_disturb_each_other() -> None:
    def counts(own: int) -> Iterator[int]:
        torch.set_num_threads(own)
        while True:
            yield torch.get_num_threads()

    before = torch.get_num_threads()
    one, two = (with_own_torch_state(counts(own), CPU, False) for own in (1, 2))
    try:
        torch.set_num_threads(3)
        assert [(next(one), next(two), torch.get_num_threads()) for _ in range(3)] == [(1, 2, 3)] * 3
    finally:
        torch.set_num_threads(before)


def test_random_sequences_of_several_threads_do_not_disturb_each_other() -> None:
    def patient(seed: int) -> Iterator[float]:
        for draw in draws(seed):
            time.sleep(0.001)  # another thread may go on
            yield draw

    alone = {seed: list(islice(with_own_torch_state(draws(seed), CPU, False), 50)) for seed in range(4)}
    with ThreadPoolExecutor() as threads:
        together = threads.map(lambda seed: list(islice(with_own_torch_state(patient(seed), CPU, False), 50)), alone)
        assert dict(zip(alone, together, strict=True)) == alone


def test_what_the_consumer_asks_of_algorithms_stays() -> None:
    def told() -> Iterator[tuple[bool, bool]]:
        while True:
            yield torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert next(with_own_torch_state(told(), CPU, True)) == (True, True)
        assert next(told()) == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_training_seeds_no_generator_but_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append(("cuda", seed)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded.append(("all", seed)))
    before = torch.get_rng_state()
    try:
        seed_random_state(7, CPU)
        drawn = torch.rand(3)
        torch.default_generator.manual_seed(7)
        assert torch.equal(torch.rand(3), drawn)
    finally:
        torch.set_rng_state(before)
    assert not seeded


def test_a_gpu_multiplies_single_precision_as_it_is_for_the_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def precisions() -> tuple[str, str]:
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision

    def told() -> Iterator[tuple[str, str]]:
        while True:
            yield precisions()

    monkeypatch.setattr(device_module, "random_state", lambda device: (torch.get_rng_state(), None))
    before = precisions()
    on_gpu, on_cpu = (with_own_torch_state(told(), torch.device(kind), False) for kind in ("cuda", "cpu"))
    for _ in range(2):
        assert next(on_gpu) == ("ieee", "ieee")
        assert next(on_cpu) == precisions() == before != ("ieee", "ieee")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("model", ["nstransformer", "informer", "autoformer", "fedformer", "patchtst", "dlinear"])
def test_a_deterministic_training_repeats_itself_and_resumes_on_its_device(
    model: str, device: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    sizes = {} if model == "dlinear" else {"d_model": 8, "d_ff": 16, "heads": 2}
    sizes |= {"patch_len": 4, "stride": 2} if model == "patchtst" else {}
    spec = make_spec(model={"name": model} | sizes, training={"epochs": 2, "deterministic": True})

    def best(name: str, stops: int) -> bytes:
        folder, state = tmp_path / name, None
        folder.mkdir()
        for _ in range(stops):
            events = Trainer(spec, series, folder, device=device, resume_from=state, state_interval_seconds=0).run()
            state = Path(next(event for event in events if isinstance(event, StateSaved)).path)
            events.close()
        (*_, last) = Trainer(spec, series, folder, device=device, resume_from=state).run()
        assert isinstance(last, Finished)
        return (folder / f"epoch-{last.result.epoch:03}.pals.safetensors").read_bytes()

    assert best("again", stops=0) == best("resumed", stops=3) == best("whole", stops=0)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingFailed) as caught:
        choose_device("cuda")
    assert caught.value.code is ErrorCode.DEVICE_UNAVAILABLE
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_is_said_plainly(error: BaseException) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise error

    items = with_readable_failures(fails())
    assert next(items) == 1
    with pytest.raises(TrainingFailed) as caught:
        next(items)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


def test_an_operation_that_does_not_repeat_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Iterator[int]:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set …")
        yield 1

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(TrainingFailed, match="cumsum_cuda_kernel") as caught:
        next(with_readable_failures(fails()))
    assert caught.value.code is ErrorCode.NOT_DETERMINISTIC


def test_other_runtime_errors_stay_what_they_are() -> None:
    def fails() -> Iterator[int]:
        raise RuntimeError("shapes differ")
        yield 1

    with pytest.raises(RuntimeError, match="shapes differ"):
        next(with_readable_failures(fails()))
