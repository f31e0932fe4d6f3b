"""Networks whose parameters are filled from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWING_IN_PLACE = (Tensor.uniform_, Tensor.normal_)


class WithoutValues(TorchFunctionMode):
    """While it is active, what would be drawn from the global random state keeps the values its memory happens to have.

    Building a network then takes no time for numbers that would be overwritten, touches no memory of its parameters
    and leaves the random state alone. What is drawn from a generator of one's own, or computed, is as always.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING_IN_PLACE:
            return args[0]
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
