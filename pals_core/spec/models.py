"""The forecasters and their sizes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pals_core.spec.frozen import FrozenSpec, name_alone


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError(f"moving_avg {length} is even; the moving average needs an odd length")
    return length


MovingAverage = Annotated[
    int,
    Field(ge=1, le=9999, description="Odd length of the moving average that separates the trend."),
    AfterValidator(_odd),
]
PerColumn = Annotated[bool, Field(description="Linear layers of its own for each column instead of shared ones.")]
PublishedAxisOrder = Annotated[
    bool,
    Field(
        description="Read the attention's output with its axes in another order than written, which mixes time steps, "
        "as the authors' program of PALS does; only to compare with it."
    ),
]


class EncoderSpec(FrozenSpec):
    """Sizes shared by the forecasters with a transformer encoder; the defaults are those of arXiv 2305.18382."""

    d_model: int = Field(512, ge=2, le=8192, multiple_of=2, description="Width of the residual stream.")
    d_ff: int = Field(2048, ge=1, le=32768, description="Width of the feed-forward layers.")
    heads: int = Field(8, ge=1, le=128, description="Attention heads; must divide d_model.")
    encoder_layers: int = Field(2, ge=1, le=32, description="Layers of the encoder.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of activations dropped in training.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> EncoderSpec:
        if self.d_model % self.heads:
            raise ValueError(f"heads {self.heads} does not divide d_model {self.d_model}")
        return self


class ForecasterSpec(EncoderSpec):
    """Sizes shared by the encoder–decoder forecasters; the defaults are those of arXiv 2305.18382."""

    decoder_layers: int = Field(1, ge=1, le=32, description="Layers of the decoder.")


class TransformerSpec(ForecasterSpec):
    """Vanilla encoder–decoder Transformer with calendar embedding (arXiv 1706.03762)."""

    name: Literal["transformer"] = "transformer"


class NSTransformerSpec(ForecasterSpec):
    """Non-stationary Transformer: per-window standardisation and de-stationary attention (arXiv 2205.14415)."""

    name: Literal["nstransformer"] = "nstransformer"
    projector_hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (32, 32), min_length=1, max_length=8, description="Hidden sizes of the two projectors that learn τ and Δ."
    )


class InformerSpec(ForecasterSpec):
    """Informer: only the most selective queries attend, and distilling halves the sequence (arXiv 2012.07436)."""

    name: Literal["informer"] = "informer"
    factor: int = Field(
        3,
        ge=1,
        le=100,
        description="Of L queries factor·⌈ln L⌉ attend to all keys; as many keys are sampled to choose them "
        "(arXiv 2012.07436, section 3.2).",
    )
    distil: bool = Field(
        True, description="Halve the sequence after every encoder layer but the last (arXiv 2012.07436, section 3.3)."
    )
    published_axis_order: PublishedAxisOrder = False


class AutoformerSpec(ForecasterSpec):
    """Autoformer: trend and season apart, periods by auto-correlation (arXiv 2106.13008); heads change nothing."""

    name: Literal["autoformer"] = "autoformer"
    factor: int = Field(
        3,
        ge=1,
        le=100,
        description="Of L time delays the ⌊factor·ln L⌋ of highest correlation count (arXiv 2106.13008, equation 6).",
    )
    moving_avg: MovingAverage = 25


class ModeSelect(StrEnum):
    RANDOM = "random"
    LOWEST = "lowest"


class FEDformerSpec(ForecasterSpec):
    """FEDformer with Fourier blocks: Autoformer's skeleton, attention among a few frequencies (arXiv 2201.12740)."""

    name: Literal["fedformer"] = "fedformer"
    modes: int = Field(
        64,
        ge=1,
        le=4096,
        description="Frequencies kept, at most half as many as there are time steps (arXiv 2201.12740, section 3.2).",
    )
    mode_select: ModeSelect = Field(
        ModeSelect.RANDOM, description="Keep frequencies drawn with the training's seed, or the lowest ones."
    )
    moving_avg: MovingAverage = 25
    published_axis_order: PublishedAxisOrder = False


class PatchTSTSpec(EncoderSpec):
    """PatchTST: each column by itself, patches of time steps as tokens (arXiv 2211.14730)."""

    name: Literal["patchtst"] = "patchtst"
    patch_len: int = Field(
        16, ge=1, le=4096, description="Time steps of a patch, at most input_len (arXiv 2211.14730, section 3.1)."
    )
    stride: int = Field(
        8, ge=1, le=4096, description="Steps from one patch to the next, at most patch_len, so that none is left out."
    )

    @model_validator(mode="after")
    def _no_step_left_out(self) -> PatchTSTSpec:
        if self.stride > self.patch_len:
            raise ValueError(f"stride {self.stride} is longer than patch_len {self.patch_len}: steps would be left out")
        return self


class ITransformerSpec(EncoderSpec):
    """iTransformer: each column, and each calendar feature, is one token (arXiv 2310.06625)."""

    name: Literal["itransformer"] = "itransformer"


class DLinearSpec(FrozenSpec):
    """Trend and remainder, one linear layer each (arXiv 2205.13504)."""

    name: Literal["dlinear"] = "dlinear"
    moving_avg: MovingAverage = 25
    per_column: PerColumn = False


class NLinearSpec(FrozenSpec):
    """One linear layer on the window minus its last value (arXiv 2205.13504)."""

    name: Literal["nlinear"] = "nlinear"
    per_column: PerColumn = False


ModelSpec = Annotated[
    TransformerSpec
    | NSTransformerSpec
    | InformerSpec
    | AutoformerSpec
    | FEDformerSpec
    | PatchTSTSpec
    | ITransformerSpec
    | DLinearSpec
    | NLinearSpec,
    Field(discriminator="name"),
    BeforeValidator(name_alone),
]

MODEL_SPECS: tuple[type[FrozenSpec], ...] = (
    NSTransformerSpec,
    TransformerSpec,
    InformerSpec,
    AutoformerSpec,
    FEDformerSpec,
    PatchTSTSpec,
    ITransformerSpec,
    DLinearSpec,
    NLinearSpec,
)
