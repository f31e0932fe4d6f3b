"""Where a training runs, what it may disturb, and how its failures read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from pals_core.errors import ErrorCode, TrainingFailed
from pals_core.spec import DeviceChoice
from pals_core.torch_defaults import own_torch_defaults

Item = TypeVar("Item")

# The global random state is one for all threads. Of one thread, a training may be within another one.
_turn = threading.RLock()


def choose_device(name: str) -> torch.device:
    """Return the device named `auto`, `cpu` or `cuda`; raises TrainingFailed for a GPU that is not there."""
    if name == DeviceChoice.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingFailed("device cuda was asked for; this machine has none", code=ErrorCode.DEVICE_UNAVAILABLE)
    return device


def with_own_torch_state(items: Iterator[Item], device: torch.device, deterministic: bool) -> Iterator[Item]:
    """Yield `items`, the code behind them having global settings of torch of its own.

    Its defaults are the package's own. Dropout and initial weights draw from torch's global state, and the number of
    CPU threads shows in the last bits of sums. What the consumer draws or sets between two items, or another training,
    so changes nothing here, and nothing here changes it for the consumer; iterators of several threads take turns. On a
    GPU, `deterministic` allows only algorithms that repeat themselves (on a CPU all do), and single precision is just
    that, where cuDNN by default multiplies ten bits of each number.
    """
    strict = deterministic and device.type == "cuda"
    if strict:
        # Read when the first matrix product of the process starts cuBLAS.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    own, own_threads = random_state(device), torch.get_num_threads()
    while True:
        try:
            with (
                _turn,
                own_torch_defaults(),
                _algorithms_that_repeat(strict),
                _all_bits_multiplied() if device.type == "cuda" else nullcontext(),
            ):
                outer, outer_threads = random_state(device), torch.get_num_threads()
                set_random_state(own, device)
                torch.set_num_threads(own_threads)
                try:
                    item = next(items)
                finally:
                    own, own_threads = random_state(device), torch.get_num_threads()
                    set_random_state(outer, device)
                    torch.set_num_threads(outer_threads)
        except StopIteration:
            return
        yield item


@contextmanager
def _algorithms_that_repeat(strict: bool) -> Iterator[None]:
    """Have torch refuse others where that is asked for; where it is not, leave what the consumer asks for."""
    if not strict:
        yield
        return
    outer, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(outer, warn_only=warn_only)


@contextmanager
def _all_bits_multiplied() -> Iterator[None]:
    """Have a GPU multiply single precision as it is, not rounded to TF32."""
    products: Any = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "ieee"
        yield
    finally:
        for product, precision in zip(products, before, strict=True):
            product.fp32_precision = precision


def with_readable_failures(items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items`; without memory, or an algorithm that repeats itself where one is asked for, TrainingFailed."""
    try:
        yield from items
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory() from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):
            raise _out_of_memory() from error
        if "deterministic" in str(error) and torch.are_deterministic_algorithms_enabled():
            message = f"deterministic: true is not possible here; leave it out, or train on the CPU: {error}"
            raise TrainingFailed(message[:1000], code=ErrorCode.NOT_DETERMINISTIC) from error
        raise


def _out_of_memory() -> TrainingFailed:
    return TrainingFailed(
        "the device ran out of memory; lower batch_size, input_len or the model's sizes", code=ErrorCode.OUT_OF_MEMORY
    )


RandomState = tuple[torch.Tensor, torch.Tensor | None]


def random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def seed_random_state(seed: int, device: torch.device) -> None:
    """Seed what a training on the device draws from, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
