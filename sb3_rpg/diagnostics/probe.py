"""Puts a model's networks and stored steps into the measures."""

from typing import TYPE_CHECKING

import torch as th

from sb3_rpg.diagnostics import measures
from sb3_rpg.diagnostics.samples import Block, Steps, newest_block, recent_steps, take
from sb3_rpg.intrinsic import uniform_transition_batch
from sb3_rpg.schedules import initial_coefficient

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG
    from sb3_rpg.updates import UpdateSettings

#: steps of a batch of different z
N_RECENT = 512
#: consecutive steps that values are compared with
N_BLOCK = 1024
#: the newest of them, that the model's rollouts start from
N_HELD_OUT = 256
#: those that the right one must be told from
N_OTHERS = 128
#: latents and states that the spread over z is measured on
N_LATENTS, N_STATES = 16, 64


@th.no_grad()
def measure(model: "RPG") -> dict[str, float]:
    """
    Everything that the detectors judge by; changes nothing but the random generators' states.

    :param model: a model with stored transitions, after its first updates
    :return: numbers by name; NaN where something cannot be judged, such as z's information without z
    """
    training = model.policy.training
    model.policy.set_training_mode(False)  # batch normalisation must not learn from this
    try:
        settings = model.update_settings()
        recent, block = recent_steps(model, N_RECENT), newest_block(model, N_BLOCK)
        found = {
            **_latent_measures(model, recent, settings),
            **_reward_measures(model, recent, settings),
            **_model_measures(model, block),
            **_value_measures(model, block, settings),
            **_bonus_measures(model),
        }
    finally:
        model.policy.set_training_mode(training)
    # Read all at once, since each reading waits for an accelerator
    values = th.stack([value.float().reshape(()).to(model.device) for value in found.values()]).tolist()
    return dict(zip(found, values, strict=True))


def _latent_measures(model: "RPG", recent: Steps, settings: "UpdateSettings") -> dict[str, th.Tensor]:
    space, policy = model.latent_space, model.policy
    if space.dim == 0:
        return {}
    states = policy.world_model.encoder(recent.observations)
    starts = states
    if len(model.replay_buffer.start_index) > 0:
        starts = policy.world_model.encoder(model.replay_buffer.sample_starts(N_RECENT, model.get_vec_normalize_env()))
    params = policy.actor.latent_params(starts)
    temperature = settings.latent_ent_coef
    entropy = space.entropy(len(starts), params, temperature, starts.device)
    outputs = policy.posterior(states, recent.actions)
    matched = space.posterior_log_prob(outputs, recent.latents)
    unmatched = space.posterior_log_prob(outputs[:N_OTHERS], recent.latents[N_OTHERS:].unsqueeze(1))
    # The same states with many z
    some = states[:N_STATES]
    drawn = space.sample(len(starts), params, temperature, starts.device)[:N_LATENTS]
    z = drawn.unsqueeze(1).expand(-1, len(some), -1)
    repeated = some.expand(len(z), -1, -1)
    actions = policy.actor.action_head.mode(th.cat([repeated, z], dim=-1).flatten(0, 1)).view(*z.shape[:2], -1)
    values = policy.world_model.predict_values(starts[:N_STATES].expand(len(z), -1, -1), z).mean(dim=0)
    return {
        "information": measures.information(matched[N_OTHERS:], unmatched),
        "posterior_bound": measures.posterior_bound(matched, entropy),
        "posterior_bound_max": entropy.mean() + space.best_posterior_log_prob,
        "action_spread_over_z": measures.spread_over_latents(actions),
        "value_spread_over_z": measures.spread_over_latents(values),
    }


def _reward_measures(model: "RPG", recent: Steps, settings: "UpdateSettings") -> dict[str, th.Tensor]:
    policy = model.policy
    states = policy.world_model.encoder(recent.observations)
    _, log_probs = policy.actor.act(states, recent.latents)
    posterior = policy.posterior.reward(states, recent.actions, recent.latents, settings.posterior_baseline)
    terms = {
        "extrinsic": recent.extrinsic,
        "bonus": recent.bonus,
        "posterior": settings.beta * posterior,
        "entropy": settings.ent_coef * log_probs,
    }
    shares = measures.shares_of_spread(terms)
    found = {f"share_{name}": share for name, share in shares.items()}
    exploration = shares["bonus"] + shares["posterior"]
    found["exploration_share"] = exploration / (exploration + shares["extrinsic"]).clamp_min(1e-12)
    entropy = -log_probs.mean()
    found.update(ent_coef=th.as_tensor(settings.ent_coef), action_entropy=entropy, beta=th.as_tensor(settings.beta))
    if model.ent_coef_optimizer is not None:
        assert isinstance(model.target_entropy, float) and isinstance(model.ent_coef, str)
        found["ent_coef_change"] = found["ent_coef"] / initial_coefficient("ent_coef", model.ent_coef)
        found["entropy_gap"] = (entropy - model.target_entropy) / recent.actions.shape[-1]
    return found


def _model_measures(model: "RPG", block: Block) -> dict[str, th.Tensor]:
    """The model's rollouts along the stored actions of the newest steps, twice as long as those that it learns from."""
    n_rows, n_envs = block.last.shape
    n_steps = min(2 * model.horizon, n_rows)
    first = max(0, n_rows - n_steps + 1 - max(1, N_HELD_OUT // n_envs))
    begin = th.arange(first, n_rows - n_steps + 1, device=block.last.device)
    rows = begin + th.arange(n_steps, device=begin.device).unsqueeze(-1)  # (K, rows)
    goes_on = th.cat([th.ones_like(block.last[begin]).unsqueeze(0), ~block.last[rows[:-1]]])  # (K, rows, E)
    mask = goes_on.float().cumprod(dim=0).flatten(1)  # (K, B)
    index = (rows.unsqueeze(-1) * n_envs + th.arange(n_envs, device=rows.device)).flatten(1)  # (K, B)
    steps, world, target = block.steps, model.world_model, model.world_model_target
    rollout = world.replay(world.encoder(take(steps.observations, index[0])), steps.actions[index])
    real_states = target.encoder(take(steps.next_observations, index.flatten())).view_as(rollout.states)
    errors = measures.state_errors(rollout.states, real_states, mask)
    horizon = min(model.horizon, n_steps)
    counted = mask[:horizon]
    imagined = measures.discounted_sum(world.predict_rewards(rollout)[:horizon], counted, model.gamma)
    real = measures.discounted_sum((steps.extrinsic + steps.bonus)[index][:horizon], counted, model.gamma)
    bias, error = measures.return_bias(imagined, real)
    found = {f"model_error_step_{k + 1}": value for k, value in enumerate(errors)}
    # Where episodes are shorter than the horizon, the last step that they reach; NaN where all observations are alike
    judged = int((~errors[:horizon].isnan()).sum())
    return {**found, "model_error": errors[max(judged, 1) - 1], "model_return_bias": bias, "model_return_error": error}


def _value_measures(model: "RPG", block: Block, settings: "UpdateSettings") -> dict[str, th.Tensor]:
    steps, shape = block.steps, block.last.shape
    states = model.world_model.encoder(steps.observations)
    values = model.world_model.predict_values(states, steps.latents).mean(dim=0)
    # What a value is the sum of (updates.model_targets)
    posterior = model.posterior.reward(states, steps.actions, steps.latents, settings.posterior_baseline)
    rewards = steps.extrinsic + steps.bonus + settings.beta * posterior
    if settings.entropy_in_target:
        rewards = rewards - settings.ent_coef * model.actor.act(states, steps.latents)[1]
    sums, weights = measures.returns_to_go(rewards.view(shape), steps.terminated.view(shape), block.last, model.gamma)
    reached = measures.reached_value(sums, weights)
    return {
        "value": values.mean(),
        "value_reached": reached,
        "value_bias": values.mean() - reached,
        "value_bias_relative": measures.relative_bias(values, reached, sums),
    }


def _bonus_measures(model: "RPG") -> dict[str, th.Tensor]:
    if model.bonus is None:
        return {}
    batch = uniform_transition_batch(model.replay_buffer, N_RECENT)
    errors = model.bonus.errors(*batch)
    bonus = model.bonus.bonus_from_errors(errors)
    return {"bonus_error": errors.mean(), "bonus_spread": bonus.std(correction=0) / max(abs(model.bonus.scale), 1e-12)}
