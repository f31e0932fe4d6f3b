"""What the layers of a network cost, as it is shown."""

from __future__ import annotations

from pydantic import Field

from api.schemas.bodies import ResponseBody
from jobstore.tables import Checkpoint
from pals_core.checkpoint.header import NetworkCost, ProductKind


class CostBody(ResponseBody):
    """Weights, FLOPs of one forecast and bytes."""

    weights: int = Field(description="Maskable weights, a shared one counted once.")
    active: int
    sparsity: float = Field(description="Share of the weights that are off.")
    flops_dense: int = Field(description="FLOPs of one forecast if every weight were on; a multiply-add counts as 2.")
    flops_sparse: int = Field(description="FLOPs of one forecast when weights that are off cost nothing.")
    bytes: int = Field(description="What the checkpoint keeps: the active values and their positions.")


class LayerBody(CostBody):
    """One maskable parameter."""

    name: str
    shape: list[int]
    dtype: str = Field(description="float32, or complex64, of which a multiply-add counts as 8 FLOPs.")


class ProductBody(ResponseBody):
    """What a module computes without a weight, such as attention's products; the same dense and sparse."""

    module: str
    kind: ProductKind
    flops: int


class LayerList(ResponseBody):
    """The layers of a job's best checkpoint in the order of the network."""

    job_id: str
    checkpoint_id: str
    epoch: int
    step: int
    data: list[LayerBody]
    products: list[ProductBody]
    total: CostBody = Field(description="Over all layers; FLOPs with those of the products.")


def layer_list(checkpoint: Checkpoint) -> LayerList:
    """What a checkpoint's layers cost."""
    cost = NetworkCost.model_validate(checkpoint.cost)
    return LayerList(
        job_id=checkpoint.job_id,
        checkpoint_id=checkpoint.id,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        data=[
            LayerBody(
                name=name,
                shape=list(layer.shape),
                dtype=layer.dtype,
                weights=layer.weights,
                active=layer.active,
                sparsity=layer.sparsity,
                flops_dense=layer.flops_dense,
                flops_sparse=layer.flops_sparse,
                bytes=layer.bytes,
            )
            for name, layer in cost.layers.items()
        ],
        products=[ProductBody.model_validate(product.model_dump()) for product in cost.products],
        total=CostBody(
            weights=cost.maskable_parameters,
            active=cost.active_parameters,
            sparsity=cost.sparsity,
            flops_dense=cost.flops_dense,
            flops_sparse=cost.flops_sparse,
            bytes=cost.bytes,
        ),
    )
