"""Work on one tensor after another; on a processor on a few at once, each in a thread.

What works on whole tensors in such a thread does it with numpy, which stays in it: torch would start a team of threads
for each. It has a memory of its own, some 20 MB, that a training which keeps what it freed keeps as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")

# Memory, not the number of processors, is soon what such work waits for; and each thread has a tensor's keys.
MOST_AT_ONCE = 4


def results_of(tasks: Iterable[Callable[[], T]], device: torch.device) -> Iterator[T]:
    """Yield what each task, for a tensor on `device`, returns, in their order.

    A task is asked for, here and not in a thread, when its turn is near, so that what it holds is not there for all of
    them at once.
    """
    if device.type != "cpu":
        yield from (task() for task in tasks)
        return
    threads = min(torch.get_num_threads(), MOST_AT_ONCE)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[T]] = deque()
        for task in tasks:
            begun.append(pool.submit(task))
            if len(begun) > threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def elements(tensor: Tensor) -> Any:
    """Return what `|`, `^`, `<` and their like are to be applied to: on a processor a numpy array of the same memory.

    Otherwise it is the tensor itself.
    """
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def tensor_of(elements: Any) -> Tensor:
    """Return what came of such elements as a tensor of the same memory."""
    return torch.from_numpy(elements) if isinstance(elements, np.ndarray) else elements
