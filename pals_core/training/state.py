"""All that changes while a forecaster is trained, as tensors and plain data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.optim import Optimizer

from pals_core.checkpoint.file import PackedMasks, stored_tensors
from pals_core.checkpoint.header import EpochSummary, Moves
from pals_core.checkpoint.header_part import HeaderPart
from pals_core.checkpoint.positions import decode_positions
from pals_core.checkpoint.values import active_values
from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import SparsityMethod
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.batch_order import BatchOrder
from pals_core.training.device import random_state, set_random_state
from pals_core.training.progress import EpochLosses, LossBuffer
from pals_core.training.selection import BestEpoch, BestSoFar, EarlyStopping, StoppingSoFar

# What Adam and AdamW keep of a parameter.
_STEP = "step"
_MOMENTS = {_STEP, "exp_avg", "exp_avg_sq"}


class PlainState(HeaderPart):
    """What of a training is not a tensor."""

    step: int = Field(ge=0, strict=True)
    density_sum: float = Field(ge=0)
    moves: Moves
    epochs: tuple[EpochSummary, ...]
    losses: EpochLosses
    best: BestSoFar
    stopping: StoppingSoFar
    method: dict[str, JsonValue]


@dataclass
class TrainingState:
    """One training between two optimiser steps.

    The schedules of learning and prune rates follow from the step. Weights and moments of inactive weights are +0.0, so
    a maskable tensor is its active values and its mask.
    """

    model: nn.Module
    masks: MaskSet
    method: SparsityMethod
    optimizer: Optimizer
    order: BatchOrder
    best: BestEpoch
    stopping: EarlyStopping
    losses: LossBuffer
    device: torch.device
    arithmetic: Arithmetic
    step: int = 0  # optimiser steps taken
    density_sum: float = 0.0  # over the steps
    moves: dict[Move, int] = field(default_factory=lambda: dict.fromkeys(Move, 0))  # mask updates so far
    epochs: list[EpochSummary] = field(default_factory=list)
    _packed_masks: PackedMasks | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.order.steps_per_epoch

    @property
    def steps_into_epoch(self) -> int:
        return self.step % self.order.steps_per_epoch

    @property
    def is_of_epoch_end(self) -> bool:
        """Whether the network is still the one whose checkpoint was written last."""
        return self.step > 0 and self.steps_into_epoch == 0

    @property
    def is_best(self) -> bool:
        """Whether the best checkpoint is that of the network as it is."""
        return self.is_of_epoch_end and self.best.epoch == self.epoch

    def packed_masks(self) -> PackedMasks:
        """Return the masks as files keep them."""
        self._packed_masks = PackedMasks.of(self.masks.now(), self._packed_masks)
        return self._packed_masks

    def plain(self) -> PlainState:
        """Return what is not a tensor."""
        return PlainState(
            step=self.step,
            density_sum=self.density_sum,
            moves=self.moves,
            epochs=tuple(self.epochs),
            losses=self.losses.state(),
            best=self.best.state(),
            stopping=self.stopping.state(),
            method=self.method.state_dict(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors, on the CPU: `weight/…`, `mask/…`, `optimizer/…`, `method/…` and `random/…`."""
        masks = self.packed_masks()
        tensors: dict[str, Tensor] = {}
        for name, tensor in stored_tensors(self.model).items():
            of_it = {f"weight/{name}": tensor}
            of_it |= {f"optimizer/{name}/{key}": value for key, value in self.optimizer.state.get(tensor, {}).items()}
            of_it = {key: value.detach().cpu() for key, value in of_it.items()}
            if name in masks:
                alike = [key for key, value in of_it.items() if value.shape == tensor.shape]
                of_it |= zip(alike, active_values(masks[name], *(of_it[key] for key in alike)), strict=True)
                of_it[f"mask/{name}"] = torch.from_numpy(masks.codes[name])
            tensors |= of_it
        tensors |= {f"method/{name}": value.cpu() for name, value in self.method.state_tensors().items()}
        on_cpu, on_gpu = random_state(self.device)
        tensors |= {"random/cpu": on_cpu, "random/order": self.order.state()}
        if on_gpu is not None:
            tensors["random/gpu"] = on_gpu
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def _require_consistent(self, plain: PlainState) -> None:
        """Raise ValueError where a description contradicts itself."""
        length = self.order.steps_per_epoch
        whole = plain.step // length
        ends = [(epoch.epoch, epoch.step) for epoch in plain.epochs]
        if len(ends) != whole or ends != [(epoch, epoch * length) for epoch in range(1, len(ends) + 1)]:
            raise ValueError(f"at step {plain.step} it has {len(ends)} epochs, or they end at other steps")
        if not min(1, whole) <= plain.best.epoch <= whole:
            raise ValueError(f"epoch {plain.best.epoch} of {whole} is its best one")
        if plain.density_sum > plain.step * (1 + 1e-9):
            raise ValueError(f"its densities of {plain.step} steps sum to {plain.density_sum}")

    @torch.no_grad()
    def load(self, plain: PlainState, tensors: Mapping[str, Tensor]) -> None:
        """Take over a training of the same spec; raises KeyError, ValueError or RuntimeError where it does not fit."""
        self._require_consistent(plain)
        masks: dict[str, Tensor] = {}
        for name, tensor in stored_tensors(self.model).items():
            weight = tensors[f"weight/{name}"]
            if name in self.masks.shapes:
                code = tensors[f"mask/{name}"].numpy()
                mask = torch.from_numpy(decode_positions(code, tensor.numel(), len(weight)))
                masks[name] = mask.view(tensor.shape)
                dense = torch.zeros(tensor.shape, dtype=weight.dtype)
                dense[masks[name]] = weight
                weight = dense
            if weight.shape != tensor.shape:
                raise ValueError(f"{name} has the shape {tuple(weight.shape)}")
            tensor.copy_(weight)
        self.masks.load_state_dict(masks)
        self._load_optimizer(masks, tensors, plain.step)
        self.method.load_state(plain.method, _under("method/", tensors))
        self.order.load_state(tensors["random/order"])
        # A state made without a GPU has none of its generator, which then stays as seeded.
        on_gpu = tensors.get("random/gpu") if self.device.type == "cuda" else None
        set_random_state((tensors["random/cpu"], on_gpu), self.device)
        self.losses.load(plain.losses)
        self.best.load(plain.best)
        self.stopping.load(plain.stopping)
        self.step, self.density_sum = plain.step, plain.density_sum
        self.moves = {move: plain.moves[move] for move in Move}
        self.epochs = list(plain.epochs)

    def _load_optimizer(self, masks: Mapping[str, Tensor], tensors: Mapping[str, Tensor], steps: int) -> None:
        """Torch checks none of it, and its fused step would write over the end of a moment that is too small."""
        state: dict[int, dict[str, Tensor]] = {}
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        in_order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for position, parameter in enumerate(in_order):
            name = names[parameter]
            found = _under(f"optimizer/{name}/", tensors)
            if found and set(found) != _MOMENTS:
                raise ValueError(f"the optimiser has {sorted(found)} of {name}")
            for key, value in found.items():
                moment = value
                if name in masks and value.ndim:
                    moment = torch.zeros(parameter.shape, dtype=value.dtype)
                    moment[masks[name]] = value
                fitting = torch.zeros(()) if key == _STEP else parameter
                if moment.dtype != fitting.dtype or moment.shape != fitting.shape:
                    raise ValueError(f"the optimiser's {key} of {name} is {moment.dtype} of {tuple(moment.shape)}")
                state.setdefault(position, {})[key] = moment
        if steps and not state:
            raise ValueError("the optimiser's moments are missing")
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
