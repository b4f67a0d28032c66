"""A policy and batches for tests of single updates: one step of the world model, or one of the actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_rpg.batches import PolicyBatch
from sb3_rpg.buffers import SegmentSamples
from sb3_rpg.latents import LATENT_SPACES, make_latent_space
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.precision import Twin
from sb3_rpg.updates import UpdateSettings, update_actor, update_world_model
from tests.conftest import SMALL_POLICY, changed, parameters_of

OBS, ACT, DIM, STATE = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), 4, 8
CPU = th.device("cpu")
WEIGHTS = {"consistency": 1.0, "reward": 1.0, "value": 1.0, "termination": 1.0}


every_latent = pytest.mark.parametrize("latent", LATENT_SPACES)


def make_policy(latent: str = "gaussian", sgd: bool = False) -> RPGPolicy:
    """With ``sgd``, one step moves every parameter by exactly its gradient."""
    th.manual_seed(0)
    optimizer: dict[str, Any] = {"optimizer_class": th.optim.SGD, "optimizer_kwargs": {}} if sgd else {}
    space = make_latent_space(latent, DIM)
    policy = RPGPolicy(OBS, ACT, lambda _: 1.0 if sgd else 1e-2, latent_space=space, **SMALL_POLICY, **optimizer)
    for layer in (policy.world_model.termination[-1], policy.world_model_target.termination[-1]):
        nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    return policy


def make_settings(**kwargs: Any) -> UpdateSettings:
    defaults: dict[str, Any] = {
        "horizon": 3,
        "target_horizon": 2,
        "gamma": 0.9,
        "value_weight_decay": 0.97,
        "ent_coef": 0.1,
        "beta": 0.5,
        "posterior_baseline": False,
        "latent_ent_coef": 0.3,
        "loss_weights": WEIGHTS,
        "max_grad_norm": 0.0,
        "entropy_in_target": False,
        "model_terminations": True,
    }
    return UpdateSettings(**{**defaults, **kwargs})


def make_segments(n_steps: int = 3, batch: int = 6, latent_dim: int = DIM) -> SegmentSamples:
    th.manual_seed(1)
    mask, terminated = th.ones(n_steps, batch), th.zeros(n_steps, batch)
    mask[1:, 0] = 0.0
    terminated[0, 0] = 1.0
    return SegmentSamples(
        th.randn(batch, 3),
        th.randn(n_steps, batch, 3),
        th.rand(n_steps, batch, 2) * 2 - 1,
        th.randn(n_steps, batch),
        terminated,
        mask,
        th.randn(batch, latent_dim),
        th.zeros(batch, dtype=th.bool),
        th.arange(batch),
    )


def make_batch(policy: RPGPolicy, batch: int = 6, n_starts: int = 3) -> PolicyBatch:
    th.manual_seed(2)
    space = policy.latent_space
    params = th.zeros(batch, space.policy_dim) if space.policy_dim else None
    return PolicyBatch(th.randn(batch, 3), space.sample(batch, params, 1.0, CPU), th.arange(batch) < n_starts)


def fp32(policy: RPGPolicy) -> Twin[RPGPolicy]:
    """Trained as it is, in float32."""
    return Twin(policy, th.float32)


def world_model_step(policy: RPGPolicy, **settings: Any) -> dict[str, th.Tensor]:
    segments = make_segments(latent_dim=policy.latent_space.dim)
    th.manual_seed(3)
    return update_world_model(fp32(policy), segments, segments.rewards, make_settings(**settings))


def actor_step(policy: RPGPolicy, n_starts: int = 3, **settings: Any) -> dict[str, th.Tensor]:
    batch = make_batch(policy, n_starts=n_starts)
    th.manual_seed(3)
    return update_actor(fp32(policy), batch, make_settings(**settings))[0]


def moved(policy: RPGPolicy, step: Callable[[], object]) -> set[str]:
    """The parts of the policy that a step changes."""
    parts: dict[str, nn.Module | None] = {
        **dict(policy.world_model.named_children()),
        "action_head": policy.actor.action_head,
        "latent_head": policy.actor.latent_head,
        "posterior": policy.posterior,
        "target": policy.world_model_target,
    }
    before = {name: parameters_of(part) for name, part in parts.items() if part is not None}
    step()
    assert all(parameter.grad is None for parameter in policy.parameters()), "a gradient was left behind"
    assert all(p.requires_grad for name, p in policy.named_parameters() if not name.startswith("world_model_target."))
    return {name for name, part in parts.items() if part is not None and changed(before[name], part)}


def silence(network: nn.Module, columns: slice | None = None) -> None:
    """Make an MLP's output 0, or independent of some of its inputs."""
    layers: list[Any] = [layer for layer in network.modules() if hasattr(layer, "weight")]
    layer = layers[-1] if columns is None else layers[0]
    with th.no_grad():
        if columns is None:
            layer.weight.zero_()
            layer.bias.zero_()
        else:
            layer.weight[:, columns] = 0.0


def no_reward(policy: RPGPolicy) -> None:
    silence(policy.world_model.reward)


def no_value(policy: RPGPolicy) -> None:
    silence(policy.world_model.values)


def neither(policy: RPGPolicy) -> None:
    no_reward(policy)
    no_value(policy)
