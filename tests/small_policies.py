"""Small policies and observations for tests of the policy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_rpg.latents import LATENT_SPACES, make_latent_space
from sb3_rpg.policies import RPGPolicy
from tests.conftest import SMALL_POLICY

OBS = spaces.Box(-1, 1, (3,))
ACT = spaces.Box(np.array([-2.0, 0.0], dtype=np.float32), np.array([6.0, 1.0], dtype=np.float32))
DIM = 4


def make_policy(
    latent: str = "gaussian", obs: spaces.Space = OBS, cls: type[RPGPolicy] = RPGPolicy, **kwargs: Any
) -> RPGPolicy:
    th.manual_seed(0)
    arguments = {"latent_space": make_latent_space(latent, DIM), **SMALL_POLICY, **kwargs}
    policy = cls(obs, kwargs.pop("act", ACT), lambda _: 1e-3, **{k: v for k, v in arguments.items() if k != "act"})
    if policy.actor.latent_head is not None:  # as if learned: not the same for all observations
        nn.init.normal_(policy.actor.latent_head[-1].weight)  # type: ignore[arg-type]
    return policy


def observations(n: int = 5) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (n, 3)).astype(np.float32)


every_latent = pytest.mark.parametrize("latent", LATENT_SPACES)
with_latent = pytest.mark.parametrize("latent", [name for name in LATENT_SPACES if name != "none"])
