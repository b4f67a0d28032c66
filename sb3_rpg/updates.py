"""
One update of the world model, one of the policy: networks and a batch in, gradients and metrics out.

They join the networks with the equations of :mod:`sb3_rpg.losses`; they know neither environment nor buffer. K: steps,
B: batch, H: value heads.
"""

from typing import NamedTuple

import torch as th

from sb3_rpg import losses
from sb3_rpg.actor import LatentActor
from sb3_rpg.batches import PolicyBatch, map_observations, take_steps
from sb3_rpg.buffers import SegmentSamples
from sb3_rpg.mixture import ChoiceRecorder, MixtureHead
from sb3_rpg.networks import frozen
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.precision import Twin
from sb3_rpg.world_model import ActFn, Rollout, WorldModel


class UpdateSettings(NamedTuple):
    """What an update needs to know beside networks and batch; its numbers may change from update to update."""

    #: K of the actor's imagined steps (Eq. 3)
    horizon: int
    #: imagined steps of the value's target
    target_horizon: int
    gamma: float
    #: weight of each further step in V_est's mean
    value_weight_decay: float
    #: alpha; a tensor where it is learned, so that reading it waits for no device
    ent_coef: float | th.Tensor
    #: beta
    beta: float
    #: whether what beta weighs is relative to a posterior that knows nothing
    posterior_baseline: bool
    #: alpha_z
    latent_ent_coef: float | th.Tensor
    #: weights of the terms of Eq. 4, by name
    loss_weights: dict[str, float]
    #: gradients are clipped to this norm; 0: not
    max_grad_norm: float
    #: whether the value's target has the action-entropy term
    entropy_in_target: bool
    #: whether terminations have been seen, so that imagined steps must reckon with them
    model_terminations: bool


def actor_with_latent(actor: LatentActor, z: th.Tensor) -> ActFn:
    """
    :param actor: the actor
    :param z: (B, latent_dim), kept for all imagined steps
    :return: the policy to imagine with
    """
    return lambda states: actor.act(states, z)


def imagined_value(
    model: WorldModel,
    policy: RPGPolicy,
    rollout: Rollout,
    z: th.Tensor,
    settings: UpdateSettings,
    ent_coef: float | th.Tensor,
    n_heads: int | None = None,
) -> tuple[th.Tensor, th.Tensor]:
    """
    V_est of an imagined rollout: rewards, the bound's terms r' and bootstrapped values put into Eq. 3.

    :param model: where it was imagined
    :param policy: owner of p_phi
    :param rollout: imagined with z
    :param z: (B, latent_dim)
    :param settings: discount, beta, ...
    :param ent_coef: alpha of the action-entropy term
    :param n_heads: evaluate only the first so many value heads
    :return: V_est (H, B), what beta weighs (K, B)
    """
    rewards = model.predict_rewards(rollout)
    posterior_rewards = policy.posterior.reward(rollout.states_before, rollout.actions, z, settings.posterior_baseline)
    intrinsic = settings.beta * posterior_rewards - ent_coef * rollout.log_probs
    values = model.predict_values(rollout.states, z, n_heads).transpose(0, 1)  # (K, H, B)
    continues = None
    if settings.model_terminations:
        continues = 1.0 - th.sigmoid(model.predict_terminations(rollout))
    estimate = losses.value_estimate(rewards, intrinsic, values, settings.gamma, settings.value_weight_decay, continues)
    return estimate, posterior_rewards


@th.no_grad()
def model_targets(
    policy: RPGPolicy,
    segments: SegmentSamples,
    rewards: th.Tensor,
    settings: UpdateSettings,
    steps: th.Tensor | None = None,
) -> losses.ModelTargets:
    """
    Targets of Eq. 4: encoded next observations, and V_est from them, imagined in the target networks by the *current*
    policy; the minimum of the heads after averaging over steps (4.3.1).

    :param policy: all networks
    :param segments: the batch
    :param rewards: what the reward head learns, extrinsic and intrinsic, (M, B)
    :param settings: horizon, discount, ...
    :param steps: the M of K steps that the heads learn from, see :func:`~sb3_rpg.batches.draw_steps`
    :return: the targets
    """
    target, (n_steps, batch) = policy.world_model_target, segments.mask.shape
    next_states = target.encoder(map_observations(segments.next_observations, lambda x: x.flatten(0, 1)))
    next_states = next_states.view(n_steps, batch, -1)
    terminated = take_steps(segments.terminated, steps)
    z = segments.latents.repeat(len(terminated), 1)
    starts = take_steps(next_states, steps).flatten(0, 1)
    rollout = target.imagine(starts, actor_with_latent(policy.actor, z), settings.target_horizon)
    ent_coef = settings.ent_coef if settings.entropy_in_target else 0.0
    estimate, _ = imagined_value(target, policy, rollout, z, settings, ent_coef)
    values = estimate.min(dim=0).values.view_as(terminated) * (1.0 - terminated)
    head_mask = take_steps(segments.mask, steps)
    return losses.ModelTargets(next_states.float(), segments.mask, rewards, values, terminated, head_mask)


def update_world_model(
    twin: Twin[RPGPolicy],
    segments: SegmentSamples,
    rewards: th.Tensor,
    settings: UpdateSettings,
    steps: th.Tensor | None = None,
) -> dict[str, th.Tensor]:
    """
    One gradient step on Eq. 4 for encoder, dynamics, reward, termination and values.

    :param twin: all networks
    :param segments: K replayed steps
    :param rewards: what the reward head learns, (M, B)
    :param settings: weights, horizons, ...
    :param steps: the M of K steps that the heads learn from, see :func:`~sb3_rpg.batches.draw_steps`; None: all
    :return: metrics, 0-d tensors
    """
    policy = twin.network
    model = policy.world_model
    targets = model_targets(policy, segments, rewards, settings, steps)
    rollout = model.replay(model.encoder(segments.observations), segments.actions)
    learned = rollout._replace(states=take_steps(rollout.states, steps), embeddings=take_steps(rollout.embeddings, steps))
    predicted_rewards = model.predict_rewards(learned)
    values = model.predict_values(learned.states, segments.latents)
    logits = model.predict_terminations(learned) if settings.model_terminations else None
    terms, step_errors = losses.model_losses(rollout.states.float(), predicted_rewards, values, logits, targets)
    loss = th.stack([settings.loss_weights[name] * term for name, term in terms.items()]).sum()
    metrics = {f"{name}_loss": term.detach() for name, term in terms.items()}
    loss.backward()
    metrics["model_grad_norm"] = twin.step(twin.master.world_model.optimizer, settings.max_grad_norm)
    metrics.update({f"model_error_step_{k + 1}": error for k, error in enumerate(step_errors)})
    metrics["value"] = values.detach().mean()
    metrics["target_value"] = targets.values.mean()
    metrics["reward"] = rewards.mean()
    return metrics


def update_actor(
    twin: Twin[RPGPolicy], batch: PolicyBatch, settings: UpdateSettings
) -> tuple[dict[str, th.Tensor], th.Tensor]:
    """
    One gradient step for pi(a|s,z), p_phi and, where it is learned, pi(z|s1).

    Imagined starts that are an episode's first step draw z anew, every other keeps the stored z (4.3.1). pi(z|s1) learns
    from those first steps, of which the caller mixes as many into the batch as it wants.

    :param twin: all networks
    :param batch: where to start from
    :param settings: horizon, coefficients, ...
    :return: metrics (0-d tensors), and log pi(a|s,z) of the imagined actions (K, B) for alpha's own loss
    """
    policy, master = twin.network, twin.master
    model, actor, posterior = policy.world_model, policy.actor, policy.posterior
    space, temperature = policy.latent_space, settings.latent_ent_coef
    starts = batch.episode_starts
    with frozen([*model.parameters(), *posterior.parameters()]):
        with th.no_grad():
            states = model.encoder(batch.observations)
        params = actor.latent_params(states)
        z_new = space.sample(len(states), params, temperature, states.device)
        z = th.where(starts.unsqueeze(-1), z_new, batch.latents)
        head = actor.action_head
        choices = ChoiceRecorder(head, z) if isinstance(head, MixtureHead) else None
        rollout = model.imagine(states, choices or actor_with_latent(actor, z), settings.horizon)
        estimate, posterior_rewards = imagined_value(model, policy, rollout, z, settings, settings.ent_coef, n_heads=1)
        loss = losses.actor_loss(estimate)
        metrics = {
            "actor_loss": loss.detach(),
            "value_estimate": estimate.detach().mean(),
            "action_entropy": -rollout.log_probs.detach().mean(),
            "beta_term": settings.beta * posterior_rewards.detach().mean(),
        }
        if choices is not None:
            with th.no_grad():
                baseline = model.predict_values(states, z, n_heads=1)[0]
            loss = loss + losses.choice_loss(choices.log_probs, estimate, baseline)
            metrics["mixture_entropy"] = choices.entropy
        if params is not None:
            weight = starts.float() / starts.sum().clamp_min(1)  # mean over the episode starts
            if space.n_categories:
                q, chosen = params[:, : space.n_categories], z.detach()[:, : space.n_categories]
                latent_loss = losses.category_value_loss(q, chosen, estimate[0], weight)
            else:
                # The actor's loss already carries V_est's gradient to pi(z|s1), as a mean over the whole batch
                log_prob = (space.log_prob(z, params, temperature) * starts).mean()
                latent_loss = temperature * log_prob
            loss = loss + latent_loss
            metrics["latent_loss"] = latent_loss.detach()
            entropies = space.entropy(len(states), params.detach(), temperature, states.device)
            metrics["latent_entropy"] = (entropies * weight).sum()
        else:
            metrics["latent_entropy"] = space.entropy(1, None, temperature, states.device).mean()
    loss.backward()
    metrics["actor_grad_norm"] = twin.step(master.actor.optimizer, settings.max_grad_norm)
    if actor.latent_head is not None:
        twin.step(master.actor.latent_optimizer, settings.max_grad_norm)
    if posterior.net is not None:
        metrics.update(update_posterior(twin, rollout, z.detach()))
    return metrics, rollout.log_probs.detach()


def update_posterior(twin: Twin[RPGPolicy], rollout: Rollout, z: th.Tensor) -> dict[str, th.Tensor]:
    """
    One gradient step for p_phi by likelihood on the actor's imagined (s, a, z), detached (4.2); not clipped.

    :param twin: all networks
    :param rollout: imagined with z
    :param z: (B, latent_dim)
    :return: metrics, 0-d tensors
    """
    posterior, space = twin.network.posterior, twin.network.latent_space
    outputs = posterior(rollout.states_before.detach(), rollout.actions.detach())
    z = z.expand(*outputs.shape[:-1], -1)
    loss = losses.posterior_loss(space.posterior_log_prob(outputs, z))
    loss.backward()
    twin.step(twin.master.posterior.optimizer)
    return {"posterior_loss": loss.detach(), "posterior_accuracy": space.posterior_accuracy(outputs.detach(), z)}
