"""One update of the world model and one of the policy: who is changed by what, and the values that they work with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_rpg.batches import take_steps
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.precision import Twin
from sb3_rpg.updates import actor_with_latent, model_targets, update_actor, update_world_model
from tests.conftest import changed, parameters_of
from tests.single_updates import (
    CPU,
    DIM,
    STATE,
    WEIGHTS,
    actor_step,
    every_latent,
    fp32,
    make_batch,
    make_policy,
    make_segments,
    make_settings,
    moved,
    silence,
    world_model_step,
)

MODEL = {"encoder", "action_embedding", "initial_hidden", "gru", "decoder", "reward", "termination", "values"}

# ------------------------------------------------------- who is changed by what


@every_latent
def test_world_models_update_changes_the_world_model_alone(latent: str) -> None:
    policy = make_policy(latent)
    assert moved(policy, lambda: world_model_step(policy)) == MODEL


def test_terminations_are_learned_only_where_they_have_been_seen() -> None:
    policy = make_policy()
    assert moved(policy, lambda: world_model_step(policy, model_terminations=False)) == MODEL - {"termination"}


@every_latent
def test_actors_update_changes_actor_and_posterior_alone(latent: str) -> None:
    policy = make_policy(latent)
    expected = {"action_head"}
    expected |= {"posterior"} if latent != "none" else set()
    expected |= {"latent_head"} if latent in ("learned_gaussian", "categorical", "mixed") else set()
    assert moved(policy, lambda: actor_step(policy)) == expected


@pytest.mark.parametrize(
    ("term", "untouched"),
    [
        ("consistency", {"reward", "termination", "values"}),
        ("reward", {"termination", "values"}),
        ("value", {"reward", "termination"}),
        ("termination", {"reward", "values"}),
    ],
)
def test_each_term_of_eq_4_trains_its_own_head_and_the_dynamics(term: str, untouched: set[str]) -> None:
    policy = make_policy()
    weights = {**dict.fromkeys(WEIGHTS, 0.0), term: 1.0}
    assert moved(policy, lambda: world_model_step(policy, loss_weights=weights)) == MODEL - untouched


@every_latent
def test_the_posteriors_step_does_not_change_the_actor(latent: str) -> None:
    first, second = make_policy(latent), make_policy(latent)
    if second.posterior.net is not None:
        second.posterior.optimizer = th.optim.SGD(second.posterior.parameters(), lr=0.0)
    actor_step(first)
    actor_step(second)
    assert changed(parameters_of(first.actor), second.actor) == set()


def test_posteriors_step_is_maximum_likelihood_on_the_imagined_steps() -> None:
    policy = make_policy(sgd=True)
    before, reference = parameters_of(policy.posterior), copy.deepcopy(policy)
    batch = make_batch(policy, n_starts=0)
    th.manual_seed(3)
    with th.no_grad():
        states = reference.world_model.encoder(batch.observations)
        reference.latent_space.sample(6, None, 1.0, CPU)  # drawn for starts, of which there are none
        rollout = reference.world_model.imagine(states, actor_with_latent(reference.actor, batch.latents), 3)
    loss = -reference.posterior.log_prob(rollout.states_before, rollout.actions, batch.latents).mean()
    loss.backward()
    metrics = actor_step(policy, n_starts=0)
    assert metrics["posterior_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in reference.posterior.named_parameters():
        assert parameter.grad is not None
        step = before[name] - parameters_of(policy.posterior)[name]
        assert th.allclose(step, parameter.grad, atol=1e-5), name


def test_nothing_is_clipped_but_model_and_actor() -> None:
    free, clipped = make_policy(sgd=True), make_policy(sgd=True)
    before = parameters_of(free)
    norm = actor_step(free)["actor_grad_norm"]
    assert norm.item() == 0.0  # not measured where not clipped
    reported = actor_step(clipped, max_grad_norm=1e-3)["actor_grad_norm"]

    def length(policy: RPGPolicy, part: str) -> float:
        after = parameters_of(policy)
        return sum((after[n] - before[n]).square().sum().item() for n in after if n.startswith(part)) ** 0.5

    assert length(clipped, "actor.action_head") == pytest.approx(1e-3, rel=1e-2)
    assert length(free, "actor.action_head") == pytest.approx(reported.item(), rel=1e-3)
    assert length(clipped, "posterior") == pytest.approx(length(free, "posterior"), rel=1e-3)

    model = make_policy(sgd=True)
    assert world_model_step(model, max_grad_norm=1e-3)["model_grad_norm"].item() > 1e-3
    steps = [parameters_of(model)[name] - before[name] for name in before if name.startswith("world_model.")]
    assert sum(step.square().sum().item() for step in steps) ** 0.5 == pytest.approx(1e-3, rel=1e-2)


# ------------------------------------------------------------- value of Eq. 3


@pytest.mark.parametrize("terminations", [True, False])
@pytest.mark.parametrize("baseline", [True, False])
def test_actors_loss_is_minus_eq_3_step_by_step(terminations: bool, baseline: bool) -> None:
    policy = make_policy()
    batch, model, gamma = make_batch(policy, n_starts=0), policy.world_model, 0.9
    with th.no_grad():
        th.manual_seed(3)
        th.randn(6, DIM)  # z for starts, of which there are none
        state = model.encoder(batch.observations)
        hidden = model.initial_hidden(state)
        sums, alive, total = th.zeros(6), th.ones(6), th.zeros(6)
        for k in range(3):
            action, log_prob = policy.actor.act(state, batch.latents)
            told = policy.posterior.log_prob(state, action, batch.latents)
            if baseline:
                told = told + 0.5 * batch.latents.square().sum(-1) / 0.4**2 - policy.latent_space.best_posterior_log_prob
            bonus = 0.5 * told - 0.1 * log_prob
            embedding = model.action_embedding(action)
            hidden = model.gru(embedding, hidden)
            state = model.decoder(hidden)
            both = th.cat([state, embedding], dim=1)
            sums = sums + gamma**k * alive * (model.reward(both)[:, 0] + bonus)
            if terminations:
                alive = alive * (1 - th.sigmoid(model.termination(both)[:, 0]))
            value = model.predict_values(state, batch.latents)[0]
            total = total + 0.97**k * (sums + gamma ** (k + 1) * alive * value)
    expected = -(total / (1 + 0.97 + 0.97**2)).mean()
    metrics = actor_step(policy, n_starts=0, model_terminations=terminations, posterior_baseline=baseline)
    assert metrics["actor_loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert metrics["value_estimate"].item() == pytest.approx(-expected.item(), rel=1e-4)


def latents_acted_with(policy: RPGPolicy, n_starts: int) -> th.Tensor:
    seen: list[th.Tensor] = []
    act = policy.actor.act
    policy.actor.act = lambda states, z: (seen.append(z), act(states, z))[1]  # type: ignore[method-assign, func-returns-value]
    actor_step(policy, n_starts=n_starts)
    assert len(seen) == 3 and all(th.equal(z, seen[0]) for z in seen)
    return seen[0]


@pytest.mark.parametrize("n_starts", [0, 2, 6])
def test_z_is_drawn_anew_for_episode_starts_and_kept_for_all_else(n_starts: int) -> None:
    policy = make_policy()
    stored, z = make_batch(policy).latents, latents_acted_with(policy, n_starts)
    assert th.equal(z[n_starts:], stored[n_starts:])
    assert th.all(z[:n_starts] != stored[:n_starts])


# --------------------------------------------------------- targets of Eq. 4


def test_target_values_are_0_after_a_termination_and_bootstrap_else() -> None:
    policy, segments = make_policy(), make_segments()
    targets = model_targets(policy, segments, segments.rewards, make_settings())
    assert targets.values[0, 0].item() == 0.0
    assert th.all(targets.values.flatten()[1:] != 0)
    # A truncated step, of which the buffer says terminated = 0, keeps its value
    open_end = segments._replace(terminated=th.zeros_like(segments.terminated))
    assert model_targets(policy, open_end, segments.rewards, make_settings()).values[0, 0].item() != 0.0
    assert th.equal(targets.rewards, segments.rewards) and th.equal(targets.mask, segments.mask)
    assert not any(tensor.requires_grad for tensor in targets)
    states = policy.world_model_target.encoder(segments.next_observations.view(-1, 3))  # type: ignore[union-attr]
    assert th.allclose(targets.states, states.view(3, 6, STATE), atol=1e-6)


def test_targets_are_the_minimum_over_heads_of_the_average_over_steps() -> None:
    policy, segments = make_policy(), make_segments()
    silence(policy.world_model_target.reward)
    calls = []

    def predict_values(states: th.Tensor, z: th.Tensor, n_heads: int | None = None) -> th.Tensor:
        calls.append(states.shape)
        steps = th.tensor([[0.0, 10.0], [6.0, 3.0]])  # by head and step
        return steps.unsqueeze(-1).expand(-1, -1, states.shape[1])

    policy.world_model_target.predict_values = predict_values  # type: ignore[method-assign]
    settings = make_settings(beta=0.0, gamma=1.0, value_weight_decay=1.0, model_terminations=False)
    targets = model_targets(policy, segments, segments.rewards, settings)
    # Means over steps are 5 and 4.5; the mean of the minima would be 1.5, of the last step alone 3
    assert th.allclose(targets.values.flatten()[1:], th.tensor(4.5))
    assert calls == [(2, 18, STATE)]


def test_each_target_is_imagined_with_its_own_segments_z() -> None:
    policy, segments = make_policy(), make_segments()
    silence(policy.world_model_target.reward)
    policy.world_model_target.predict_values = (  # type: ignore[method-assign]
        lambda states, z, n_heads=None: z[:, 0].expand(2, *states.shape[:-1])
    )
    settings = make_settings(beta=0.0, gamma=1.0, model_terminations=False)
    targets = model_targets(policy, segments, segments.rewards, settings)
    expected = segments.latents[:, 0].expand(3, -1) * (1 - segments.terminated)
    assert th.allclose(targets.values, expected)


def target_values(change: Callable[[RPGPolicy], object] = lambda policy: None, **settings: Any) -> th.Tensor:
    policy, segments = make_policy(), make_segments()
    change(policy)
    th.manual_seed(3)
    return model_targets(policy, segments, segments.rewards, make_settings(**settings)).values


def perturb(module: nn.Module) -> None:
    with th.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)


def test_targets_come_from_the_target_networks_acted_in_by_the_current_policy() -> None:
    expected = target_values()
    assert th.equal(target_values(lambda policy: perturb(policy.world_model)), expected)
    assert not th.allclose(target_values(lambda policy: perturb(policy.world_model_target)), expected)
    assert not th.allclose(target_values(lambda policy: perturb(policy.actor.action_head)), expected)


def test_targets_have_the_posterior_term_and_only_if_asked_for_the_entropy() -> None:
    expected = target_values()
    assert not th.allclose(target_values(beta=0.0), expected)
    assert th.equal(target_values(ent_coef=5.0), expected)
    assert not th.allclose(target_values(entropy_in_target=True), expected)
    assert th.equal(target_values(horizon=1), expected) and not th.allclose(target_values(target_horizon=1), expected)


def test_values_of_drawn_steps_are_those_of_all_steps_at_their_places() -> None:
    policy, segments = make_policy(), make_segments()
    steps = th.stack([th.arange(6) % 3])
    assert isinstance(segments.next_observations, th.Tensor)
    chosen = take_steps(segments.next_observations, steps)
    alone = segments._replace(
        next_observations=chosen, terminated=take_steps(segments.terminated, steps), mask=take_steps(segments.mask, steps)
    )
    th.manual_seed(3)
    rewards = take_steps(segments.rewards, steps)
    some = model_targets(policy, segments, rewards, make_settings(), steps)
    th.manual_seed(3)
    expected = model_targets(policy, alone, rewards, make_settings())
    assert th.allclose(some.values, expected.values, atol=1e-6) and th.equal(some.head_mask, expected.mask)
    assert th.equal(some.terminated, alone.terminated) and len(some.states) == len(segments.rewards)


def test_world_models_losses_are_those_of_the_replayed_steps() -> None:
    policy, segments = make_policy(), make_segments()
    th.manual_seed(3)
    targets = model_targets(policy, segments, segments.rewards, make_settings())
    with th.no_grad():
        model = policy.world_model
        rollout = model.replay(model.encoder(segments.observations), segments.actions)
        errors = (rollout.states - targets.states).square().mean(dim=-1) * segments.mask
        values = model.predict_values(rollout.states, segments.latents)
        value_errors = ((values - targets.values).square() * segments.mask).sum()
        reward_errors = ((model.predict_rewards(rollout) - segments.rewards).square() * segments.mask).sum()
    metrics = world_model_step(policy)
    assert metrics["consistency_loss"].item() == pytest.approx(errors.sum().item() / 18, rel=1e-4)
    assert metrics["value_loss"].item() == pytest.approx(value_errors.item() / 18, rel=1e-4)
    assert metrics["reward_loss"].item() == pytest.approx(reward_errors.item() / 18, rel=1e-4)
    for k in range(3):
        expected = errors[k].sum() / segments.mask[k].sum()
        assert metrics[f"model_error_step_{k + 1}"].item() == pytest.approx(expected.item(), rel=1e-4)
    for name, tensor in {"value": values, "target_value": targets.values, "reward": segments.rewards}.items():
        assert metrics[name].item() == pytest.approx(tensor.mean().item(), rel=1e-4), name


# ------------------------------------------------------------- metrics, others


@every_latent
@pytest.mark.parametrize("n_starts", [0, 6])
def test_metrics_are_finite_numbers_without_gradients(latent: str, n_starts: int) -> None:
    policy = make_policy(latent)
    metrics = {**world_model_step(policy, max_grad_norm=1.0), **actor_step(policy, n_starts, max_grad_norm=1.0)}
    expected = {f"{name}_loss" for name in (*WEIGHTS, "actor")} | {f"model_error_step_{k}" for k in (1, 2, 3)}
    expected |= {"model_grad_norm", "actor_grad_norm", "value", "target_value", "reward", "value_estimate"}
    expected |= {"action_entropy", "beta_term"}
    expected |= {"posterior_loss", "posterior_accuracy"} if latent != "none" else set()
    expected |= {"latent_entropy"} | ({"latent_loss"} if policy.actor.latent_head is not None else set())
    assert set(metrics) == expected
    for name, value in metrics.items():
        assert value.shape == () and th.isfinite(value) and not value.requires_grad, name
    if latent == "none":
        assert metrics["beta_term"].item() == metrics["latent_entropy"].item() == 0.0


def test_log_probs_for_alpha_are_those_of_all_imagined_actions() -> None:
    policy = make_policy()
    metrics, log_probs = update_actor(fp32(policy), make_batch(policy), make_settings())
    assert log_probs.shape == (3, 6) and not log_probs.requires_grad
    assert metrics["action_entropy"].item() == pytest.approx(-log_probs.mean().item())


@every_latent
def test_bfloat16_changes_losses_little(latent: str) -> None:
    results = []
    for dtype in (th.float32, th.bfloat16):
        policy = make_policy(latent)
        twin, segments, batch = Twin(policy, dtype), make_segments(latent_dim=policy.latent_space.dim), make_batch(policy)
        th.manual_seed(3)
        metrics = update_world_model(twin, segments, segments.rewards, make_settings())
        th.manual_seed(4)
        results.append({**metrics, **update_actor(twin, batch, make_settings())[0]})
    for name, expected in results[0].items():
        if not name.endswith(("_norm", "_accuracy")):
            assert results[1][name].item() == pytest.approx(expected.item(), rel=0.1, abs=0.05), name
            assert results[1][name].dtype == th.float32, name


def test_the_step_of_pi_of_z_is_clipped_too() -> None:
    policy = make_policy("learned_gaussian", sgd=True)
    before = parameters_of(policy.actor.latent_head)  # type: ignore[arg-type]
    actor_step(policy, max_grad_norm=1e-3)
    after = parameters_of(policy.actor.latent_head)  # type: ignore[arg-type]
    assert sum((after[n] - before[n]).square().sum().item() for n in before) ** 0.5 == pytest.approx(1e-3, rel=1e-2)


def test_beta_term_is_beta_times_what_the_posterior_tells() -> None:
    metrics = actor_step(make_policy(), beta=0.3)
    assert metrics["beta_term"].item() == pytest.approx(-0.3 * metrics["posterior_loss"].item(), rel=1e-4)
