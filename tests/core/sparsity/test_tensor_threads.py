from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from pals_core.sparsity.tensor_threads import MOST_AT_ONCE, results_of

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 16])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield min(request.param, MOST_AT_ONCE)
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_tasks_which_are_asked_for_shortly_before_their_turn(threads: int) -> None:
    asked: list[int] = []
    asking: set[int] = set()

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(40):
            asked.append(number)
            asking.add(threading.get_ident())
            yield partial(int, number)

    for place, result in enumerate(results_of(tasks(), CPU)):
        assert result == place
        assert len(asked) <= place + 1 + threads
    assert asked == list(range(40))
    assert asking == {threading.get_ident()}


def test_as_many_work_at_once_as_there_are_threads(threads: int) -> None:
    all_there = threading.Barrier(threads, timeout=30)
    assert len(list(results_of([all_there.wait] * (3 * threads), CPU))) == 3 * threads


def test_an_error_of_a_task_is_the_callers(threads: int) -> None:
    def fail() -> int:
        raise ValueError("no gradient")

    with pytest.raises(ValueError, match="no gradient"):
        list(results_of([int, fail, int], CPU))


def test_off_the_processor_tasks_run_in_the_callers_thread() -> None:
    ran_in = list(results_of([threading.get_ident] * 3, torch.device("meta")))
    assert ran_in == [threading.get_ident()] * 3
