"""Latents drawn, ranked and acted with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_rpg.latents import LATENT_SPACES
from sb3_rpg.modes import FixedLatent, best_latent, candidate_latents, latent_values, sample_latents
from tests.conftest import labelled_vec_env, small_rpg

OBS = np.array([0.0, 1.0, 0.0], dtype=np.float32)
WITH_Z = [name for name in LATENT_SPACES if name != "none"]


@pytest.mark.parametrize("latent", WITH_Z)
def test_draws_candidates_and_values(latent: str) -> None:
    model = small_rpg(latent=latent).learn(20)
    dim = model.latent_space.dim
    drawn, candidates = sample_latents(model, OBS, 7), candidate_latents(model, OBS)
    assert drawn.shape == (7, dim) and candidates.shape[1] == dim
    assert np.array_equal(candidates, candidate_latents(model, OBS))
    for horizon in (0, 2):
        values = latent_values(model, OBS, candidates, horizon)
        assert values.shape == (len(candidates),)
        assert np.array_equal(best_latent(model, OBS, horizon=horizon), candidates[values.argmax()])
    with th.no_grad():
        state = model.policy.actor.encoder(th.as_tensor(OBS[None]))
        expected = model.world_model.values(th.cat([state, th.as_tensor(candidates[:1])], dim=-1)).mean()
    assert latent_values(model, OBS, candidates)[0] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("latent", ["gaussian", "hypersphere", "learned_gaussian"])
def test_the_best_candidate_is_what_planning_chooses(latent: str) -> None:
    model = small_rpg(latent=latent).learn(20)
    planned: Any = model.predict(OBS, deterministic=True, plan_every=0)[1]
    assert np.allclose(planned[0][0], best_latent(model, OBS, horizon=model.plan_horizon))


def test_the_best_of_n_draws() -> None:
    model = small_rpg().learn(20)
    th.manual_seed(0)
    drawn = sample_latents(model, OBS, 9)
    th.manual_seed(0)
    best = best_latent(model, OBS, n=9)
    assert np.array_equal(best, drawn[latent_values(model, OBS, drawn).argmax()])


def test_an_evaluation_with_one_z_uses_no_other() -> None:
    model = small_rpg().learn(20)
    z = sample_latents(model, OBS, 1)[0]
    env = labelled_vec_env(2, lengths=(3, 5))
    seen = []
    predict = model.policy.predict

    def spy(obs: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        actions, new_state = predict(obs, state, *args, **kwargs)
        seen.append(new_state[0])
        return actions, new_state

    model.policy.predict = spy  # type: ignore[method-assign, assignment]
    evaluate_policy(FixedLatent(model, z), env, 6, warn=False)
    assert len(seen) > 10 and all(np.array_equal(latents, np.tile(z, (2, 1))) for latents in seen)


def test_errors() -> None:
    model = small_rpg()
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        sample_latents(model, OBS, 0)
    with pytest.raises(ValueError, match="`obs` holds 2 observations; pass one"):
        sample_latents(model, np.zeros((2, 3), dtype=np.float32), 3)
    with pytest.raises(ValueError, match="`horizon` must be at least 0, got -1"):
        latent_values(model, OBS, np.zeros((2, 3)), horizon=-1)
    with pytest.raises(ValueError, match=r"`state` holds a latent of shape \(2, 4\)"):
        latent_values(model, OBS, np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"`latent` has the shape \(2, 3\), expected \(3,\)"):
        FixedLatent(model, np.zeros((2, 3)))
