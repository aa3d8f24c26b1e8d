"""The mean reference of several trained methods, which averages out the errors of each.

reference = mean over the methods k of reference_k
residual  = the residual of the first method, with this reference
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from maediff.methods.base import Method
from maediff.methods.residual import ComparisonConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MeanReferenceConfig:
    """Settings of each method. The first method determines the residual."""

    methods: tuple[Any, ...]


class MeanReference(Method):
    """Mean of the healthy references of trained methods, with nothing to train itself.

    Args:
        methods: at least one method with a network. All of them get the same seed.
    """

    config: MeanReferenceConfig

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.config = MeanReferenceConfig(tuple(method.config for method in methods))

    @property
    def residual_config(self) -> ComparisonConfig:
        """Settings of the first method."""
        config: ComparisonConfig = self.config.methods[0]
        return config

    def healthy_reference(
        self,
        x: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the mean of the references, in [0, 1]."""
        references = [
            method.healthy_reference(x, brain, slice_ids, seed, batch_size)
            for method in cast("Iterable[Method]", self.methods)
        ]
        return torch.stack(references).mean(dim=0)
