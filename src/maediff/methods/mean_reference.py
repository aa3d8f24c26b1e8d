"""The mean reference of several trained methods: what one of them draws wrongly, the others may draw rightly.

reference = mean over the methods k of reference_k;  the residual is taken as the first of them takes it
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from maediff.methods.base import Method, Prediction
from maediff.methods.residual import residual_of


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MeanReferenceConfig:
    """The configs of the methods, the first of which decides about the residual."""

    methods: tuple[Any, ...]


class MeanReference(Method):
    """Nothing to train: made of methods that are."""

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.config = MeanReferenceConfig(tuple(method.config for method in methods))

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """All methods get the same seed."""
        brain = x > 0 if brain is None else brain
        drawn = [
            method.predict(
                x, slice_ids=slice_ids, seed=seed, brain=brain, batch_size=batch_size
            ).reconstruction  # type: ignore[operator]
            for method in self.methods
        ]
        reference = torch.stack(drawn).mean(dim=0)
        return Prediction(residual_of(x, reference, brain, self.config.methods[0]), reference)
