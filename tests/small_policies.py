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
    latent: str = "gaussian",
    obs: spaces.Space = OBS,
    cls: type[RPGPolicy] = RPGPolicy,
    act: spaces.Box = ACT,
    **kwargs: Any,
) -> RPGPolicy:
    th.manual_seed(0)
    policy = cls(obs, act, lambda _: 1e-3, **{"latent_space": make_latent_space(latent, DIM), **SMALL_POLICY, **kwargs})
    if policy.actor.latent_head is not None:  # as if learned: not the same for all observations
        last = policy.actor.latent_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight)
    return policy


def observations(n: int = 5) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (n, 3)).astype(np.float32)


every_latent = pytest.mark.parametrize("latent", LATENT_SPACES)
with_latent = pytest.mark.parametrize("latent", [name for name in LATENT_SPACES if name != "none"])
