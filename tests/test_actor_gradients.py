"""The actor's gradient, path by path, and what pi(z|s1) learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_rpg.policies import RPGPolicy
from sb3_rpg.updates import update_actor
from tests.conftest import parameters_of
from tests.single_updates import (
    CPU,
    DIM,
    STATE,
    actor_step,
    fp32,
    make_batch,
    make_policy,
    make_settings,
    moved,
    neither,
    no_reward,
    no_value,
    silence,
)

# --------------------------------------------------- paths to the action head


def actor_gradient(prepare: Callable[[RPGPolicy], object], **settings: Any) -> float:
    """Norm of the action head's gradient, with entropy, posterior, reward and value switched off unless asked for."""
    policy = make_policy(sgd=True)
    prepare(policy)
    before = parameters_of(policy.actor.action_head)
    actor_step(policy, **{"ent_coef": 0.0, "beta": 0.0, "model_terminations": False, "horizon": 2, **settings})
    after = parameters_of(policy.actor.action_head)
    return sum((after[name] - before[name]).square().sum().item() for name in before) ** 0.5


def test_with_every_path_switched_off_the_actor_gets_no_gradient() -> None:
    assert actor_gradient(neither) == 0.0


@pytest.mark.parametrize(
    ("prepare", "settings"),
    [(no_value, {}), (no_reward, {}), (neither, {"beta": 1.0}), (neither, {"ent_coef": 1.0})],
    ids=["reward", "value", "posterior", "entropy"],
)
def test_each_path_alone_reaches_the_actor(prepare: Callable[[RPGPolicy], object], settings: dict[str, Any]) -> None:
    assert actor_gradient(prepare, **settings) > 1e-4
    assert actor_gradient(prepare, **settings, horizon=1) > 1e-4


def test_reward_is_differentiated_through_the_dynamics_and_through_the_action() -> None:
    def through_state(policy: RPGPolicy) -> None:
        no_value(policy)
        silence(policy.world_model.reward, slice(STATE, None))

    def through_action(policy: RPGPolicy) -> None:
        no_value(policy)
        silence(policy.world_model.reward, slice(0, STATE))

    def through_neither(policy: RPGPolicy) -> None:
        through_state(policy)
        through_action(policy)

    assert actor_gradient(through_state, horizon=1) > 1e-4
    assert actor_gradient(through_action, horizon=1) > 1e-4
    assert actor_gradient(through_neither, horizon=1) == 0.0


def test_posterior_is_differentiated_through_states_and_actions() -> None:
    def through_state(policy: RPGPolicy) -> None:
        neither(policy)
        silence(policy.posterior, slice(STATE, None))

    def through_action(policy: RPGPolicy) -> None:
        neither(policy)
        silence(policy.posterior, slice(0, STATE))

    assert actor_gradient(through_action, beta=1.0, horizon=1) > 1e-4
    # The first state is not imagined, the second is
    assert actor_gradient(through_state, beta=1.0, horizon=1) == 0.0
    assert actor_gradient(through_state, beta=1.0, horizon=2) > 1e-4


def test_termination_is_differentiated_where_something_is_lost_by_it() -> None:
    def constant_value(policy: RPGPolicy) -> None:
        neither(policy)
        last: Any = policy.world_model.values.layers[-1]
        nn.init.ones_(last.bias)

    assert actor_gradient(constant_value) == 0.0
    assert actor_gradient(constant_value, model_terminations=True) > 1e-4


def test_only_the_first_value_head_leads_the_actor() -> None:
    def silence_head(head: int) -> Callable[[RPGPolicy], None]:
        def prepare(policy: RPGPolicy) -> None:
            no_reward(policy)
            last: Any = policy.world_model.values.layers[-1]
            with th.no_grad():
                last.weight[head] = 0.0

        return prepare

    assert actor_gradient(silence_head(0)) == 0.0
    assert actor_gradient(silence_head(1)) == pytest.approx(actor_gradient(no_reward))


# ------------------------------------------------------------------ pi(z|s1)


def value_of_z(weights: list[float]) -> Callable[..., th.Tensor]:
    """Values that depend on z alone."""
    return lambda states, z, n_heads=None: (z * th.tensor(weights)).sum(dim=-1).expand(n_heads or 2, *states.shape[:-1])


def test_learned_gaussian_follows_the_value_through_z() -> None:
    policy = make_policy("learned_gaussian", sgd=True)
    neither(policy)
    policy.world_model.predict_values = value_of_z([1.0, -1.0, 0.0, 0.0])  # type: ignore[method-assign]
    last: Any = policy.actor.latent_head[-1]  # type: ignore[index]
    actor_step(policy, beta=0.0, ent_coef=0.0, latent_ent_coef=0.0, horizon=1, model_terminations=False)
    # V_est = 0.9 z_1 - 0.9 z_2; half of the batch are starts
    assert th.allclose(last.bias[:4].detach(), th.tensor([0.45, -0.45, 0.0, 0.0]), atol=1e-5)


def test_learned_gaussians_entropy_is_raised_with_its_weight() -> None:
    policy = make_policy("learned_gaussian", sgd=True)
    neither(policy)
    last: Any = policy.actor.latent_head[-1]  # type: ignore[index]
    actor_step(policy, beta=0.0, ent_coef=0.0, latent_ent_coef=2.0, model_terminations=False)
    # d entropy / d raw = d log_std / d raw = 4 sigmoid'(log 3) = 4 * 3/4 * 1/4, weighted by 2 and the share of starts
    assert th.allclose(last.bias[4:].detach(), th.full((4,), 2.0 * 0.5 * 0.75), atol=1e-4)
    assert th.allclose(last.bias[:4].detach(), th.zeros(4), atol=1e-5)


@pytest.mark.parametrize("latent", ["learned_gaussian", "categorical", "mixed"])
def test_pi_of_z_learns_from_episode_starts_alone(latent: str) -> None:
    policy = make_policy(latent)
    assert "latent_head" not in moved(policy, lambda: actor_step(policy, n_starts=0))
    assert "latent_head" in moved(policy, lambda: actor_step(policy, n_starts=1))


@pytest.mark.parametrize("latent", ["categorical", "mixed"])
def test_q_is_regressed_on_the_value_estimate_of_each_category(latent: str) -> None:
    policy = make_policy(latent)
    neither(policy)
    n = policy.latent_space.n_categories
    values = [float(c) for c in range(n)]
    policy.world_model.predict_values = value_of_z(values + [0.0] * (policy.latent_space.dim - n))  # type: ignore[method-assign]
    settings = make_settings(beta=0.0, ent_coef=0.0, horizon=1, latent_ent_coef=50.0, model_terminations=False)
    for seed in range(150):
        batch = make_batch(policy, batch=32, n_starts=32)
        th.manual_seed(100 + seed)
        update_actor(fp32(policy), batch, settings)
    params = policy.actor.latent_params(policy.world_model.encoder(batch.observations))
    assert params is not None
    assert th.allclose(params[:, :n].mean(dim=0), 0.9 * th.tensor(values), atol=0.3)


def test_z_of_starts_is_drawn_and_its_entropy_measured_at_the_temperature() -> None:
    policy = make_policy("categorical")
    head: Any = policy.actor.latent_head
    with th.no_grad():
        head[-1].weight.zero_()
        head[-1].bias.copy_(th.arange(DIM, dtype=th.float32))
    seen: list[th.Tensor] = []
    act = policy.actor.act

    def watched(states: th.Tensor, z: th.Tensor, *args: Any) -> Any:
        seen.append(z)
        return act(states, z, *args)

    policy.actor.act = watched  # type: ignore[method-assign]
    batch = make_batch(policy, 4000, 2000)
    metrics, _ = update_actor(fp32(policy), batch, make_settings(latent_ent_coef=0.5))
    probabilities = th.softmax(th.arange(DIM) / 0.5, dim=0)
    assert th.allclose(seen[0][:2000].mean(dim=0), probabilities, atol=0.05)  # four standard errors at most
    assert th.equal(seen[0][2000:], batch.latents[2000:])
    entropy = -(probabilities * probabilities.log()).sum()
    assert metrics["latent_entropy"].item() == pytest.approx(entropy.item(), abs=1e-4)


def test_the_entropy_of_z_that_is_measured_is_that_of_starts() -> None:
    policy = make_policy("categorical")
    head: Any = policy.actor.latent_head
    nn.init.normal_(head[-1].weight)
    batch = make_batch(policy, 40, 10)
    params = policy.actor.latent_params(policy.world_model.encoder(batch.observations))
    entropies = policy.latent_space.entropy(40, params, 0.3, CPU)
    metrics, _ = update_actor(fp32(policy), batch, make_settings(latent_ent_coef=0.3))
    assert metrics["latent_entropy"].item() == pytest.approx(entropies[:10].mean().item(), abs=1e-4)
    assert abs(entropies[:10].mean() - entropies.mean()) > 1e-3
