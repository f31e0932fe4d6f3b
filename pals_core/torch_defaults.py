"""Torch's defaults as this package's code takes them to be, whatever its caller has set them to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# The default type is one for all threads, unlike the others: whoever comes first sets it, and the last sets it back.
_lock = threading.Lock()
_users = 0
_callers_dtype = torch.float32


@contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Have tensors made in single precision, on the processor, with gradients and without automatic casts.

    A caller's own defaults, or `torch.inference_mode()` around a call, would otherwise go into the networks that are
    built, and could not be taken out of them. They come back at the end. Usable as a decorator.
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
    global _users, _callers_dtype
    with _lock:
        if not _users:
            _callers_dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                torch.set_default_dtype(_callers_dtype)
