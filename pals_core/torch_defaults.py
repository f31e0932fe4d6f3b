"""Torch's defaults as this package's code takes them to be, whatever its caller has set them to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

# Precisions are the same for all threads, unlike the rest: whoever comes first sets them, and the last sets them back.
_lock = threading.Lock()
_users = 0
_callers = ExitStack()


@contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Have tensors made in single precision, on the processor, with gradients and without automatic casts.

    A caller's own defaults, or `torch.inference_mode()` around a call, would otherwise go into the networks that are
    built, and could not be taken out of them; a lower precision of products into all that is computed. They come back
    at the end. Usable as a decorator.
    """
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        # Entered where they are needed alone: the first makes every call of torch slower.
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                settings.enter_context(torch.autocast(device, enabled=False))
        settings.enter_context(_single_precision())
        yield


@contextmanager
def _single_precision() -> Iterator[None]:
    global _users
    with _lock:
        if not _users:
            _set_single_precision()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _callers.close()


def _set_single_precision() -> None:
    _callers.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    # What torch.set_float32_matmul_precision has a processor do.
    products: Any = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    for product in products:
        if (precision := product.fp32_precision) not in ("none", "ieee"):
            _callers.callback(setattr, product, "fp32_precision", precision)
            product.fp32_precision = "ieee"
