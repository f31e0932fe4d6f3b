"""A whole training: data, model, method and recipe."""

from __future__ import annotations

from pydantic import Field

from pals_core.spec.data import DataSpec
from pals_core.spec.frozen import FrozenSpec
from pals_core.spec.methods import MethodSpec, PalsMethodSpec
from pals_core.spec.models import ModelSpec, NSTransformerSpec
from pals_core.spec.training import TrainingSpec


class Spec(FrozenSpec):
    """A whole training: all but the horizon has a default."""

    data: DataSpec
    model: ModelSpec = Field(default_factory=NSTransformerSpec, description="The forecaster, or just its name.")
    method: MethodSpec = Field(default_factory=PalsMethodSpec, description="How it becomes sparse, or just its name.")
    training: TrainingSpec = Field(default_factory=TrainingSpec)
