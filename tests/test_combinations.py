"""Options in combinations that nobody has thought of: each has to learn, go on, be saved, loaded and predict."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_rpg import RPG, Ramp
from sb3_rpg.latents import LATENT_SPACES
from tests.conftest import changed, labelled_vec_env, parameters_of, small_rpg

POLICIES = {"vector": "MlpPolicy", "dict": "MultiInputPolicy", "image": "CnnPolicy"}

OPTIONS: dict[str, list[Any]] = {
    "latent": list(LATENT_SPACES),
    "latent_dim": [2, 5],
    "horizon": [1, 3, 5],
    "target_horizon": [None, 1, 4],
    "head_steps": [None, 1, 2],
    "plan_every": [None, 0, 2],
    "precision": ["fp32", "bf16"],
    "buffer_size": [5, 17, 1000],
    "learning_starts": [0, 10, 25],
    "train_freq": ["auto", 1, 4],
    "gradient_steps": [1, 2, -1],
    "policy_delay": [1, 3],
    "target_update_interval": [1, 3],
    "batch_size": [1, 2, 8],
    "actor_batch_size": [None, 1, 8],
    "ent_coef": ["auto", 0.0, 0.1],
    "latent_relabel": ["auto", 0.0, 0.5],
    "latent_ent_coef": ["auto", 0, 1.0, Ramp(1.0, 0.0, start=0, end=40)],
    "beta": [0, 0.1],
    "posterior_baseline": [True, False],
    "intrinsic_reward": ["auto", None],
    "entropy_in_target": [True, False],
    "max_grad_norm": [0, 1.0],
    "reward_scale": ["auto", 0.5],
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in OPTIONS.items()}),
    kind=st.sampled_from(list(POLICIES)),
    n_envs=st.integers(1, 3),
    lengths=st.lists(st.sampled_from([1, 2, 5, 9, 60]), min_size=1, max_size=3),
    terminates=st.booleans(),
    normalize=st.booleans(),
    action_shape=st.sampled_from([(1,), (2,), (2, 3)]),
)
def test_options_in_combination(
    options: dict[str, Any],
    kind: str,
    n_envs: int,
    lengths: list[int],
    terminates: bool,
    normalize: bool,
    action_shape: tuple[int, ...],
) -> None:
    env: VecEnv = labelled_vec_env(n_envs, lengths=lengths, terminates=terminates, space=kind, action_shape=action_shape)
    if normalize and kind != "image":
        env = VecNormalize(env)
    model = small_rpg(env, POLICIES[kind], **options)
    model.learn(30).learn(40, StopTrainingOnMaxEpisodes(2), reset_num_timesteps=False).learn(20, reset_num_timesteps=False)
    assert model._n_updates > 0
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())

    file = io.BytesIO()
    model.save(file)
    loaded = RPG.load(file, device="cpu")
    assert changed(parameters_of(model.policy), loaded.policy) == set()
    obs = model.observation_space.sample()
    expected, actions = (m.predict(obs, deterministic=True)[0] for m in (model, loaded))
    assert model.action_space.contains(actions) and np.array_equal(actions, expected)
    assert RPG.load(file, env=env, device="cpu").learn(15).num_timesteps >= 15
