from __future__ import annotations

import pytest
import torch
from torch import nn

from pals_core.sparsity.masks import MaskSet


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.fourier = nn.Parameter(torch.randn(2, 3, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(2, 3))
        self.again = self.linear


def masks_of(network: nn.Module) -> MaskSet:
    return MaskSet(network.named_parameters())


def test_every_parameter_with_two_axes_is_maskable_and_no_bias() -> None:
    masks = masks_of(Network())
    assert masks.active == {"linear.weight": 24, "fourier": 6}
    assert masks.maskable_parameters == 30
    assert masks.total_parameters == 30 + 4 + 8 + 6


def test_sparsity_is_the_share_of_maskable_weights_that_are_off() -> None:
    masks = masks_of(Network())
    assert masks.sparsity == 0
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:2] = False
    masks["linear.weight"] = mask
    assert masks.sparsity == 12 / 30
    assert masks.share_of_all_parameters == 12 / 48


def test_inactive_weights_and_their_moments_are_zero_after_apply() -> None:
    torch.manual_seed(0)
    network = Network()
    masks = masks_of(network)
    optimizer = torch.optim.Adam(network.parameters(), fused=False)
    for _ in range(2):
        optimizer.zero_grad()
        (network.linear(torch.randn(5, 6)).pow(2).sum() + network.fourier.abs().pow(2).sum()).backward()
        optimizer.step()
    for name in masks:
        masks[name] = torch.rand(masks[name].shape) < 0.5
    before = {name: masks.parameter(name).detach().clone() for name in masks}

    masks.apply(optimizer)

    for name in masks:
        parameter, off = masks.parameter(name), ~masks[name]
        assert off.any()
        assert torch.equal(parameter[~off], before[name][~off])
        assert not parameter[off].any()
        for moment in ("exp_avg", "exp_avg_sq"):
            value = optimizer.state[parameter][moment]
            assert not value[off].any()
            assert value[~off].all()


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
def test_masked_gradients_train_as_masks_applied_after_every_step(
    optimizer_class: type[torch.optim.Adam],
) -> None:
    weights = []
    for mask_gradients in (True, False):
        torch.manual_seed(0)
        network = Network()
        masks = masks_of(network)
        masks.start_sparse({"linear.weight": 10, "fourier": 3}, torch.Generator().manual_seed(1))
        masks.apply()
        optimizer = optimizer_class(network.parameters(), lr=0.1, weight_decay=0.1, fused=False)
        for _ in range(5):
            optimizer.zero_grad()
            (network.linear(torch.randn(5, 6)).pow(2).sum() + network.fourier.abs().pow(2).sum()).backward()
            if mask_gradients:
                masks.apply_to_gradients()
            optimizer.step()
            if not mask_gradients:
                masks.apply(optimizer)
        for name in masks:
            off = torch.view_as_real(masks.parameter(name) + 0j)[~masks[name]]
            assert not off.any()
            assert not off.signbit().any()
        weights.append([parameter.detach().clone() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("active_before", [10, 24], ids=["sparse", "dense"])
def test_one_application_after_a_change_does_what_one_before_and_one_after_it_would(active_before: int) -> None:
    ends = []
    for once in (True, False):
        torch.manual_seed(0)
        network = Network()
        masks = masks_of(network)
        masks.start_sparse({"linear.weight": active_before, "fourier": 3}, torch.Generator().manual_seed(1))
        masks.apply()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=False)
        for _ in range(3):
            optimizer.zero_grad()
            (network.linear(torch.randn(5, 6)).pow(2).sum() + network.fourier.abs().pow(2).sum()).backward()
            optimizer.step()
            before = masks.now()
            if not once:
                masks.apply(optimizer)
            masks["linear.weight"] = torch.rand(4, 6) < 0.5
            masks.apply(optimizer, before if once else None)
        state = optimizer.state[network.linear.weight]
        ends.append([network.linear.weight.detach(), network.fourier.detach(), state["exp_avg"], state["exp_avg_sq"]])
        assert not torch.equal(before["linear.weight"], masks["linear.weight"])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_an_inactive_weight_is_a_positive_zero() -> None:
    network = Network()
    masks = masks_of(network)
    with torch.no_grad():
        network.linear.weight.fill_(-1.0)
    masks["linear.weight"] = torch.zeros(4, 6, dtype=torch.bool)
    masks.apply()
    assert not network.linear.weight.signbit().any()


def test_a_sparse_start_draws_the_asked_number_reproducibly() -> None:
    first, second = masks_of(Network()), masks_of(Network())
    for masks in (first, second):
        masks.start_sparse({"linear.weight": 7, "fourier": 2}, torch.Generator().manual_seed(3))
    assert first.active == {"linear.weight": 7, "fourier": 2}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_saved_masks_are_taken_over_whole() -> None:
    saved, loaded = masks_of(Network()), masks_of(Network())
    saved.start_sparse({"linear.weight": 7, "fourier": 2}, torch.Generator().manual_seed(3))
    loaded.load_state_dict(saved.now())
    assert loaded.active == saved.active
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_masks_that_do_not_fit_are_refused() -> None:
    masks = masks_of(Network())
    with pytest.raises(ValueError, match="other parameters"):
        masks.load_state_dict({"linear.weight": torch.ones(4, 6, dtype=torch.bool)})
    with pytest.raises(ValueError, match="shape"):
        masks["fourier"] = torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="boolean"):
        masks["fourier"] = torch.ones(2, 3)
