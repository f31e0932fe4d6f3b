"""Torch's defaults as this package's code takes them to be, whatever its caller has set them to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Have tensors made in single precision, on the processor and with gradients; the caller's settings come back.

    A caller's own defaults, or `torch.inference_mode()` around a call, would otherwise go into the networks that are
    built, and could not be taken out of them. Usable as a decorator.
    """
    before = torch.get_default_dtype()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        # Entered where it is needed alone: it makes every call of torch slower.
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
