from __future__ import annotations

import torch

from pals_core.training.batch_order import BatchOrder

CPU = torch.device("cpu")


def test_every_epoch_has_whole_batches_of_distinct_windows_in_another_order() -> None:
    order = BatchOrder(windows=23, batch_size=5, seed=1)
    epochs = [torch.cat(order.rest_of_epoch(0, CPU)).tolist() for _ in range(3)]
    assert order.steps_per_epoch == 4
    assert all(len(set(epoch)) == 20 and set(epoch) <= set(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_order_is_taken_up_within_an_epoch_and_at_its_end() -> None:
    straight, resumed = BatchOrder(23, 5, seed=1), BatchOrder(23, 5, seed=2)
    first = straight.rest_of_epoch(0, CPU)
    resumed.load_state(straight.state())
    assert torch.equal(torch.stack(resumed.rest_of_epoch(3, CPU)), torch.stack(first[3:]))
    straight.end_epoch()
    resumed.load_state(straight.state())
    assert torch.equal(torch.stack(resumed.rest_of_epoch(0, CPU)), torch.stack(straight.rest_of_epoch(0, CPU)))
