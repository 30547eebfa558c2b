"""The abstract state: a few tokens, stamped with the encoder that made them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LatentState:
    """Latent tokens of one tick.

    Attributes:
        tokens: (n, d) float32, standardised.
        time_us: when the images were taken.
        encoder_digest: identity of the encoder; states of different encoders never mix.
    """

    tokens: NDArray[np.float32]
    time_us: int
    encoder_digest: str

    def require(self, other: LatentState) -> None:
        """Raise ValueError if `other` comes from another encoder."""
        if other.encoder_digest != self.encoder_digest:
            raise ValueError(f"latents of encoders {self.encoder_digest} and {other.encoder_digest} do not mix")
