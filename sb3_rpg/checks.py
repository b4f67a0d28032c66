"""Bad input is refused before training starts, or at the step where it arrives, by an error that names the remedy."""

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from sb3_rpg.buffers import LatentBufferMixin
from sb3_rpg.latents import LatentSpace
from sb3_rpg.precision import PRECISIONS
from sb3_rpg.schedules import extremes, initial_coefficient

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def require_integer(name: str, value: Any, minimum: int, remedy: str = "") -> None:
    """
    :param name: the argument's name
    :param value: what the user gave
    :param minimum: what it must be at least
    :param remedy: what to give instead
    :raises ValueError: if it is no integer or too small
    """
    ok = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= minimum
    _require(bool(ok), f"`{name}` must be an integer of at least {minimum}, got {value!r}{remedy and '; ' + remedy}")


def require_number(name: str, value: Any, in_range: Callable[[Any], bool], wanted: str) -> None:
    """
    :param name: the argument's name
    :param value: what the user gave
    :param in_range: whether a finite number will do
    :param wanted: the range in words
    :raises ValueError: if it is no finite number, or out of its range
    """
    ok = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and in_range(value)
    _require(ok, f"`{name}` must be a number {wanted}, got {value!r}")


def check_arguments(model: "RPG") -> None:
    """
    :param model: freshly constructed, before its networks exist
    :raises ValueError: naming the argument, its value and the remedy
    """
    require_integer("horizon", model.horizon, 1, "3 is the paper's, 1 fits episodes of a single step")
    if model.target_horizon is not None:
        require_integer("target_horizon", model.target_horizon, 1, "1 is the fastest, None means `horizon`")
    require_integer("policy_delay", model.policy_delay, 1)
    if model.head_steps is not None:
        require_integer("head_steps", model.head_steps, 1, "1 is the fastest, None means all")
    require_integer("target_update_interval", model.target_update_interval, 1)
    require_integer("batch_size", model.batch_size, 1)
    require_integer("buffer_size", model.buffer_size, 1)
    require_number("learning_starts", model.learning_starts, lambda x: x >= 0, "of at least 0")
    frequency = model.train_freq[0] if isinstance(model.train_freq, tuple) and model.train_freq else model.train_freq
    if isinstance(frequency, (int, float)):
        require_integer("train_freq", frequency, 1, "steps, or (number, 'step' or 'episode'), or 'auto'")
    require_integer("intrinsic_batch_size", model.intrinsic_batch_size, 1)
    require_number("novelty_share", model.novelty_share, lambda x: 0 <= x <= 1, "in [0, 1]; 0 draws all uniformly")
    require_number("novelty_exponent", model.novelty_exponent, lambda x: x >= 0, "of at least 0; 2 is usual")
    if model.actor_batch_size is not None:
        require_integer("actor_batch_size", model.actor_batch_size, 1)
    require_integer("plan_horizon", model.plan_horizon, 1)
    if model.plan_every is not None:
        require_integer("plan_every", model.plan_every, 0, "None never plans, 0 plans at an episode's start only")
    require_integer("gradient_steps", model.gradient_steps, -1, "-1 means as many as steps were collected")
    require_number("gamma", model.gamma, lambda x: 0 < x <= 1, "in (0, 1]")
    require_number("tau", model.tau, lambda x: 0 < x <= 1, "in (0, 1]")
    require_number("value_weight_decay", model.value_weight_decay, lambda x: x > 0, "above 0; 1 weighs all steps alike")
    require_number("max_grad_norm", model.max_grad_norm, lambda x: x >= 0, "of at least 0 (0: no clipping)")
    require_number("model_lr_factor", model.model_lr_factor, lambda x: x > 0, "above 0")
    require_number("ent_coef_lr_factor", model.ent_coef_lr_factor, lambda x: x > 0, "above 0")
    if model.latent_relabel != "auto":
        require_number("latent_relabel", model.latent_relabel, lambda x: 0 <= x <= 1, "in [0, 1], or 'auto'")
    _require(model.precision in PRECISIONS, f"`precision` must be one of {', '.join(PRECISIONS)}, got {model.precision!r}")
    known = {"consistency", "reward", "value", "termination"}
    unknown = set(model.loss_weights) - known
    _require(not unknown, f"`loss_weights` has unknown terms {sorted(unknown)}; known: {', '.join(sorted(known))}")
    for name, weight in model.loss_weights.items():
        require_number(f"loss_weights[{name!r}]", weight, lambda x: x >= 0, "of at least 0 (0: switched off)")
    _require(
        model.n_steps == 1,
        f"`n_steps={model.n_steps}` is not supported: RPG's returns over several steps are imagined; "
        "use `horizon` and `target_horizon` instead",
    )
    _require(
        not model.use_sde,
        "`use_sde=True` is not supported: z, constant within an episode, is RPG's exploration that is consistent in time",
    )
    _require(
        not model.optimize_memory_usage,
        "`optimize_memory_usage=True` is not supported: segments need the final observation of each episode; "
        "reduce `buffer_size` instead",
    )
    _require(
        "device" not in model.intrinsic_reward_kwargs,
        f"`intrinsic_reward_kwargs`={model.intrinsic_reward_kwargs} has a `device`: it is the model's, give it to RPG",
    )
    _check_entropy(model)


def _check_entropy(model: "RPG") -> None:
    for name in ("ent_coef", "latent_ent_coef"):
        if isinstance(value := getattr(model, name), str):
            initial_coefficient(name, value)
    if model.target_entropy != "auto":
        try:
            valid = math.isfinite(float(model.target_entropy))
        except (TypeError, ValueError):
            valid = False
        _require(valid, f"`target_entropy` must be a number or 'auto', got {model.target_entropy!r}")


def check_latent_target_entropy(space: LatentSpace, target: Any) -> None:
    """
    :param space: what z is
    :param target: "auto", or what the user gave as ``latent_target_entropy``
    :raises ValueError: if pi(z|s1) is learned and nobody says at which entropy, or at one that it cannot have
    """
    known = space.policy_dim == 0 or target != "auto" or math.isfinite(space.default_target_entropy)
    _require(
        known,
        f"`latent_target_entropy='auto'` has no value for latent={space.name!r}, which defines no `default_target_entropy`; "
        "give a number of nats, or a number as `latent_ent_coef`",
    )
    if space.policy_dim == 0 or target == "auto":
        return
    (lowest, highest), (least, most) = extremes(target), space.entropy_range
    # A target beyond the range would have alpha_z grow or shrink without end
    slack = 1e-6 * max(1.0, abs(most))
    _require(
        least - slack <= lowest and highest <= most + slack,
        f"`latent_target_entropy={target!r}` is out of reach: pi(z|s1) of latent={space.name!r} can have {least:.4g} to "
        f"{most:.4g} nats; a number as `latent_ent_coef` fixes alpha_z itself",
    )


def check_action_space(space: spaces.Box) -> None:
    """
    :param space: the action space
    :raises ValueError: if actions cannot be scaled to [-1, 1] and back
    """
    _require(
        np.issubdtype(space.dtype, np.floating),
        f"`action_space`={space} has actions of type {space.dtype}, in which those between -1 and 1 would be stored as 0: "
        "declare it with dtype=np.float32, and round in the environment",
    )
    with np.errstate(over="ignore"):
        width = (space.high - space.low).astype(np.float32)
    for wrong, remedy in (
        (width <= 0, "leave the dimension out by a wrapper that adds its one value"),
        (~np.isfinite(width), "give bounds that actions really reach, as gymnasium.wrappers.RescaleAction does"),
    ):
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"`action_space`={space} reaches from {space.low[where]} to {space.high[where]} in dimension "
                f"{where[0] if len(where) == 1 else where}, which cannot be scaled to [-1, 1]: {remedy}"
            )


def check_horizon(env: VecEnv, horizon: int) -> None:
    """
    :param env: the training environment
    :param horizon: K
    :raises ValueError: if K steps are more than an episode can have; environments in other processes are not asked
    """
    if isinstance(env.unwrapped, SubprocVecEnv):
        # A spec that holds a function cannot leave its process, and trying to ends the process
        return
    try:
        specs = env.get_attr("spec")
    except AttributeError:  # vector environments without gymnasium's specs have no declared limit
        return
    for spec in specs:
        limit = getattr(spec, "max_episode_steps", None)
        if limit is not None and horizon > limit:
            raise ValueError(
                f"`horizon={horizon}` is longer than an episode of {spec.id} can be (max_episode_steps={limit}); "
                f"use `horizon={limit}` or less"
            )


def check_finite(kind: str, values: Any, num_timesteps: int, env_index: int | None = None) -> None:
    """
    :param kind: "observation" or "reward"
    :param values: an array, or a dict of arrays
    :param num_timesteps: environment steps so far, for the message
    :param env_index: the environment that the values are from; None: their first dimension is that of the environments
    :raises ValueError: if a value is NaN or infinite; nothing of the step has been stored then
    """
    for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
        array = np.asarray(value)  # Discrete observations at an episode's end are integers
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            entry, env = "" if key is None else f"[{key!r}]", where[0] if env_index is None else env_index
            raise ValueError(
                f"the environment returned a non-finite {kind}{entry} ({array[tuple(where)]}) in environment {env} "
                f"at step {num_timesteps}; fix the environment, or wrap it in a VecCheckNan to find the cause. "
                "Nothing of this step was stored: the model can still be saved."
            )


def check_normalization(env: VecNormalize | None, num_timesteps: int) -> None:
    """
    :param env: the training environment's normalisation, if any
    :param num_timesteps: environment steps so far, for the message
    :raises ValueError: if its statistics are NaN or infinite, as they stay for ever after the environment has returned such a
        value, however healthy it is then
    """
    if env is None:
        return
    kinds = {"observation": env.obs_rms if env.norm_obs else {}, "reward": env.ret_rms if env.norm_reward else {}}
    for kind, statistics in kinds.items():
        for moments in statistics.values() if isinstance(statistics, dict) else [statistics]:
            if not (np.isfinite(moments.mean).all() and np.isfinite(moments.var).all()):
                raise ValueError(
                    f"VecNormalize's statistics of the {kind} are not finite at step {num_timesteps}: it has taken in what "
                    "the environment returned before. They are lost: load those of the last checkpoint, or wrap the mended "
                    "environment in a new VecNormalize. The model can still be saved."
                )


def check_action(action: np.ndarray, num_timesteps: int) -> None:
    """
    :param action: what the policy is about to do, (n_envs, ...)
    :param num_timesteps: environment steps so far, for the message
    :raises ValueError: if a value is NaN or infinite, before the environment gets to see it
    """
    if not np.isfinite(action).all():
        raise ValueError(
            f"the policy's action at step {num_timesteps} is not finite ({action.tolist()}): its networks have diverged. Load "
            "the last checkpoint, and lower `learning_rate`, or check `ent_coef`, `beta` and the size of the rewards"
        )


def check_replay_buffer(model: "RPG") -> None:
    """
    :param model: whose replay buffer was loaded
    :raises ValueError: if the buffer was not filled by a model like this one
    """
    buffer = model.replay_buffer
    _require(
        isinstance(buffer, LatentBufferMixin),
        f"the loaded replay buffer is a {type(buffer).__name__}, which holds no latents: it was saved by another algorithm; "
        "add its transitions with replay_buffer.extend() instead",
    )
    wanted_class = model.replay_buffer_class
    assert wanted_class is not None
    _require(
        isinstance(buffer, wanted_class),
        f"the loaded replay buffer is a {type(buffer).__name__}, the model's is a {wanted_class.__name__}: make or load "
        "the model with the `replay_buffer_class` that the buffer was saved with",
    )
    expected = {
        "observation space": (buffer.observation_space, model.observation_space),
        "action space": (buffer.action_space, model.action_space),
        "width of z": (buffer.latent_dim, model.latent_space.dim),
        "kind of z": (buffer.latent_name or model.latent_space.name, model.latent_space.name),
        "number of environments": (buffer.n_envs, model.n_envs),
    }
    for name, (found, wanted) in expected.items():
        _require(
            found == wanted,
            f"the loaded replay buffer has another {name} than the model: {found} instead of {wanted}; "
            "load the buffer that was saved with this model",
        )
