"""Parts of the algorithm with something left out: made to be measured, not to be used."""

from __future__ import annotations

import torch as th

from sb3_rpg.intrinsic import INTRINSIC_REWARDS, RND


class UnnormalizedRND(RND):
    """RND whose bonus is the error itself, times ``scale``: never negative, and fading as the predictor learns."""

    @th.no_grad()
    def bonus_from_errors(self, errors: th.Tensor) -> th.Tensor:
        """
        :param errors: Errors (B,).
        :return: Bonus (B,).
        """
        return self.scale * errors.clamp(max=self.clip)


def register_variants() -> None:
    """Let hyperparameters name them."""
    INTRINSIC_REWARDS.setdefault("rnd_unnormalized", UnnormalizedRND)
