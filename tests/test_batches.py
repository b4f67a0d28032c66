"""The buffer's samples made ready for the updates: latents drawn anew, episode starts added, bonus of each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th

from sb3_rpg.batches import PolicyBatch, automatic_relabel, map_observations, relabel_latents, with_episode_starts
from sb3_rpg.latents import LATENT_SPACES, make_latent_space
from sb3_rpg.updates import update_actor
from tests.conftest import labelled_vec_env, small_rpg


def test_map_observations_keeps_their_structure() -> None:
    assert th.equal(map_observations(th.ones(2), lambda x: x + 1), th.full((2,), 2.0))  # type: ignore[arg-type]
    mapped = map_observations({"a": th.ones(1), "b": th.zeros(1)}, lambda x: x + 1)
    assert isinstance(mapped, dict) and mapped["a"].item() == 2.0 and mapped["b"].item() == 1.0


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_relabelled_latents_belong_to_the_prior_and_the_others_are_kept(latent: str, fraction: float) -> None:
    th.manual_seed(0)
    space = make_latent_space(latent, 4)
    params = th.zeros(40, space.policy_dim) if space.policy_dim else None
    stored = space.sample(40, params, 1.0, th.device("cpu"))
    latents = relabel_latents(stored, space, fraction)
    n = round(40 * fraction) if space.dim else 0
    assert latents.shape == stored.shape and th.equal(latents[n:], stored[n:])
    if n == 0:
        return
    assert not th.equal(latents[:n], stored[:n])
    if space.policy_dim:  # a learned prior is known by what it drew
        assert all((stored == row).all(dim=1).any() for row in latents[:n])
    elif latent == "hypersphere":
        assert th.allclose(latents.norm(dim=1), th.ones(40), atol=1e-5)
    else:
        assert not any((stored == row).all(dim=1).any() for row in latents[:n])


def test_automatic_relabelling_grows_with_the_length_of_the_stored_episodes() -> None:
    assert automatic_relabel(50.0) == pytest.approx(0.0125)
    assert automatic_relabel(1000.0) == automatic_relabel(1e5) == 0.25
    buffer: Any = small_rpg(labelled_vec_env(2, lengths=(5,))).learn(40).replay_buffer
    assert buffer.mean_episode_length == 5.0
    buffer.reset()
    assert buffer.mean_episode_length == 0.0


def test_episode_starts_are_put_behind_the_batch() -> None:
    batch = PolicyBatch(th.zeros(3, 2), th.ones(3, 4), th.zeros(3, dtype=th.bool))
    longer = with_episode_starts(batch, th.full((2, 2), 7.0), 2)
    assert th.equal(longer.observations[3:], th.full((2, 2), 7.0))  # type: ignore[index]
    assert longer.episode_starts.tolist() == [False] * 3 + [True] * 2 and longer.latents.shape == (5, 4)


def test_both_updates_learn_from_relabelled_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[PolicyBatch] = []

    def spy(twin: Any, batch: PolicyBatch, settings: Any) -> Any:
        batches.append(batch)
        return update_actor(twin, batch, settings)

    monkeypatch.setattr("sb3_rpg.rpg.update_actor", spy)
    model = small_rpg(latent_relabel=0.5).learn(40)
    stored: Any = model.replay_buffer
    known = th.as_tensor(stored.latents[: stored.size()]).flatten(0, 1)

    def is_stored(latents: th.Tensor) -> list[bool]:
        return [bool((known == z).all(dim=1).any()) for z in latents]

    half = len(batches[-1].latents) // 2
    expected = [False] * half + [True] * half
    assert is_stored(batches[-1].latents) == is_stored(model._sample_segments()[0].latents) == expected
