"""RPG as an off-policy algorithm of Stable-Baselines3: its arguments, and what is made of them."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TrainFreq, TrainFrequencyUnit
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_rpg.allocator import keep_freed_memory
from sb3_rpg.buffer_registry import latent_buffer_class
from sb3_rpg.callbacks import WorldModelCallback
from sb3_rpg.checks import (
    check_action_space,
    check_arguments,
    check_horizon,
    check_latent_target_entropy,
    check_replay_buffer,
    require_integer,
)
from sb3_rpg.diagnostics import DiagnosticsCallback
from sb3_rpg.intrinsic import INTRINSIC_REWARDS, IntrinsicReward, is_image, make_intrinsic_reward
from sb3_rpg.latents import LatentSpace, make_latent_space
from sb3_rpg.metrics import Metrics
from sb3_rpg.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, PlanningConfig, RPGPolicy
from sb3_rpg.precision import Twin, autocast_context, resolve_precision
from sb3_rpg.schedules import Coefficient, initial_coefficient, make_automatic_coefficient, make_coefficient
from sb3_rpg.training import LatentTraining

LOSS_WEIGHTS = {"consistency": 10000.0, "reward": 10.0, "value": 1.0, "termination": 1.0}


class RPG(LatentTraining):
    """
    Reparameterized Policy Gradient (Huang et al., ICML 2023, arXiv 2307.10710).

    A policy conditioned on a latent z, drawn once an episode, is a generative model of many good trajectories. It
    maximises reward + beta log p(z|s,a) - alpha log pi(a|s,z), differentiated through a learned latent world model; an RND
    bonus explores. Arguments that SAC has too keep SAC's names and meanings.

    :param policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy" or a subclass of :class:`~sb3_rpg.policies.RPGPolicy`
    :param env: environment with a Box action space, or its id
    :param learning_rate: of actor and posterior, a number or a function of the remaining progress
    :param buffer_size: transitions kept
    :param learning_starts: environment steps before the first update; they are acted by the untrained policy, not
        uniformly, as its z already makes whole episodes differ
    :param batch_size: B, segments an update
    :param tau: share of the online networks in the target networks at each of their updates
    :param gamma: discount factor
    :param train_freq: as in SB3; "auto": one update follows as many vector steps as there are in ten environment steps, or one
        if that is more. (The paper: five environment steps, and the actor at every second update.)
    :param gradient_steps: as in SB3; updates after each rollout
    :param action_noise: as in SB3; rarely of use here
    :param replay_buffer_class: ``ReplayBuffer``, ``DictReplayBuffer`` or ``HerReplayBuffer`` (their latent variants are
        used), or a subclass of a latent variant
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: not supported: segments need ``next_observations``
    :param n_steps: must be 1: see ``horizon`` and ``target_horizon``
    :param ent_coef: alpha: "auto_<initial value>" to learn it, else as ``beta``
    :param target_update_interval: updates between two of the target networks'
    :param target_entropy: of pi(a|s,z) in nats when alpha is learned; "auto": minus the number of action dimensions
    :param use_sde: must be False: z is the exploration that is consistent in time
    :param sde_sample_freq: see ``use_sde``
    :param use_sde_at_warmup: see ``use_sde``
    :param stats_window_size: as in SB3
    :param tensorboard_log: as in SB3
    :param policy_kwargs: see :class:`~sb3_rpg.policies.RPGPolicy`
    :param verbose: as in SB3
    :param seed: as in SB3
    :param device: as in SB3
    :param latent: "gaussian" (fixed prior), "learned_gaussian", "categorical", "mixed", "hypersphere", "none" (which is
        MBSAC), or a :class:`~sb3_rpg.latents.LatentSpace`
    :param latent_dim: width of z; number of categories of a categorical z
    :param latent_kwargs: further arguments of the latent space
    :param beta: weight of log p_phi(z|s,a) in the reward: smaller, z is ignored; larger, modes are told apart but not
        used. With a categorical z try 0.05, see `docs/algorithm.md`. A number, a function of the remaining progress, or
        a :class:`~sb3_rpg.schedules.Ramp`
    :param posterior_baseline: whether, for a z of fixed prior, ``beta`` weighs log p_phi(z|s,a) less that of a posterior that
        knows nothing, see :meth:`~sb3_rpg.posterior.Posterior.reward`; the paper: not
    :param latent_ent_coef: alpha_z, weight of the entropy of a learned pi(z|s1); as ``beta``, or "auto" (from 1, or from the
        number in "auto_0.1"): what holds the entropy at ``latent_target_entropy``
    :param latent_target_entropy: of a learned pi(z|s1) in nats, when ``latent_ent_coef`` is "auto"; as ``beta``, such as a
        Ramp to 0, which leaves the best z; "auto": :attr:`~sb3_rpg.latents.LatentSpace.default_target_entropy`
    :param latent_relabel: share of each batch whose z is drawn anew instead of taken from the buffer, see
        :func:`~sb3_rpg.batches.relabel_latents`; 0: none, as in the paper; "auto":
        :func:`~sb3_rpg.batches.automatic_relabel`
    :param horizon: K, steps replayed for the model (Eq. 4) and imagined for the actor (Eq. 3)
    :param target_horizon: steps imagined for the value's target; None: ``horizon``
    :param head_steps: of the K steps of each replayed segment, how many, drawn at random, reward, termination and values learn
        from; the dynamics learn from all. None: all, as in the paper
    :param value_weight_decay: weight of each further step in V_est's mean over steps
    :param policy_delay: world-model updates for one of the actor
    :param actor_batch_size: states that the actor imagines from in an update; None: ``batch_size``, as in the paper
    :param loss_weights: weights of the terms of Eq. 4: "consistency", "reward", "value", "termination"; with "termination" 0,
        imagined steps go on behind a termination, as in the paper
    :param max_grad_norm: clipping of the model's and the actor's gradients; 0: none
    :param model_lr_factor: the world model's learning rate as a multiple of ``learning_rate``; above 1 where values and bonus
        keep changing and must be known before the actor follows them
    :param ent_coef_lr_factor: alpha's learning rate as a multiple of ``learning_rate``; it is stepped once in ten environment
        steps only, where SAC's is stepped in each
    :param entropy_in_target: whether the value's target has the action-entropy term (the paper's code: not)
    :param reward_scale: factor on extrinsic rewards; as ``beta``, or "auto":
        :class:`~sb3_rpg.reward_scaling.ReturnScaler`
    :param intrinsic_reward: "rnd", "icm", "disagreement", a subclass of :class:`~sb3_rpg.intrinsic.IntrinsicReward`, "none",
        or "auto": RND, but none for images unless ``intrinsic_reward_kwargs`` say what to look at instead ("function", "keys")
    :param intrinsic_reward_kwargs: its arguments
    :param intrinsic_batch_size: transitions of each of its updates, uniform over the whole replay buffer
    :param novelty_share: share of each batch, of model and actor, that is drawn by novelty instead of uniformly: in proportion
        to the intrinsic reward's error at a step (or in the segment that it begins), to the power of ``novelty_exponent``.
        What is rare and new is else so small a part of the batches that its value is learned long after it was found. Without
        an intrinsic reward, all is uniform; so it is in the paper
    :param novelty_exponent: 0: uniform after all; 2: a state that is three times as novel is drawn nine times as often
    :param plan_every: plan z by imagined values instead of drawing it: None never, 0 at an episode's start, k also every
        k steps; in training and in ``predict``
    :param plan_horizon: imagined steps of a plan
    :param diagnostics: watch for the known ways of going wrong, log them and warn of them; see
        :class:`~sb3_rpg.diagnostics.DiagnosticsCallback`
    :param precision: "fp32", "bf16" (autocast, float32 parameters), or "auto": bf16 on CPUs that multiply it faster
    :raises AssertionError: if the action space is not a Box
    :raises ValueError: if an argument is out of its range; the message names it and the remedy
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    optional_parts = ("bonus", "bonus.optimizer", "ent_coef_optimizer")

    def __init__(
        self,
        policy: str | type[RPGPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 800_000,
        learning_starts: int = 1000,
        batch_size: int = 256,
        tau: float = 0.16,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] | str = "auto",
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | Coefficient = "auto_0.1",
        target_update_interval: int = 2,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        latent: str | LatentSpace = "gaussian",
        latent_dim: int = 12,
        latent_kwargs: dict[str, Any] | None = None,
        beta: Coefficient = 0.01,
        posterior_baseline: bool = True,
        latent_ent_coef: str | Coefficient = "auto",
        latent_target_entropy: str | Coefficient = "auto",
        latent_relabel: float | str = "auto",
        horizon: int = 3,
        target_horizon: int | None = 1,
        head_steps: int | None = 1,
        value_weight_decay: float = 0.97,
        policy_delay: int = 1,
        actor_batch_size: int | None = None,
        loss_weights: dict[str, float] | None = None,
        max_grad_norm: float = 1.0,
        model_lr_factor: float = 1.0,
        ent_coef_lr_factor: float = 10.0,
        entropy_in_target: bool = False,
        reward_scale: Coefficient | str = "auto",
        intrinsic_reward: str | type[IntrinsicReward] | None = "auto",
        intrinsic_reward_kwargs: dict[str, Any] | None = None,
        intrinsic_batch_size: int = 256,
        novelty_share: float = 0.0,
        novelty_exponent: float = 2.0,
        plan_every: int | None = None,
        plan_horizon: int = 3,
        precision: str = "auto",
        diagnostics: bool = True,
        _init_setup_model: bool = True,
    ):
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.ent_coef = ent_coef
        self.target_update_interval = target_update_interval
        self.target_entropy = target_entropy
        self.latent, self.latent_dim, self.latent_kwargs = latent, latent_dim, latent_kwargs or {}
        self.beta = beta
        self.posterior_baseline = posterior_baseline
        self.latent_ent_coef = latent_ent_coef
        self.latent_target_entropy = latent_target_entropy
        self.latent_relabel = latent_relabel
        self.horizon = horizon
        self.target_horizon = target_horizon
        self.head_steps = head_steps
        self.value_weight_decay = value_weight_decay
        self.policy_delay = policy_delay
        self.actor_batch_size = actor_batch_size
        self.loss_weights = loss_weights or {}
        self.max_grad_norm = max_grad_norm
        self.model_lr_factor = model_lr_factor
        self.ent_coef_lr_factor = ent_coef_lr_factor
        self.entropy_in_target = entropy_in_target
        self.reward_scale = reward_scale
        self.intrinsic_reward = intrinsic_reward
        self.intrinsic_reward_kwargs = intrinsic_reward_kwargs or {}
        self.intrinsic_batch_size = intrinsic_batch_size
        self.novelty_share, self.novelty_exponent = novelty_share, novelty_exponent
        self.plan_every, self.plan_horizon = plan_every, plan_horizon
        self.precision = precision
        self.diagnostics = diagnostics

        #: what "auto" was resolved to
        self._automatic_train_freq: TrainFreq | str = "auto"
        self._own_diagnostics: DiagnosticsCallback | None = None
        self._n_model_updates = 0
        # Unused where alpha is not learned, but load() writes there what a file holds of a model that learned it
        self.log_ent_coef = th.zeros(1)
        self.ent_coef_optimizer = None

        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------ setup

    def _complete_arguments(self) -> None:
        """Checks and defaults; not in the constructor, as ``load`` may replace arguments after it."""
        if not isinstance(self.ent_coef, str):
            self.ent_coef = make_coefficient("ent_coef", self.ent_coef)
        self.beta = make_coefficient("beta", self.beta)
        if not isinstance(self.latent_ent_coef, str):
            self.latent_ent_coef = make_coefficient("latent_ent_coef", self.latent_ent_coef)
        self.latent_target_entropy = make_automatic_coefficient(
            "latent_target_entropy", self.latent_target_entropy, minimum=-math.inf
        )
        self.reward_scale = make_automatic_coefficient("reward_scale", self.reward_scale)
        self.loss_weights = {**LOSS_WEIGHTS, **(self.loss_weights or {})}
        self.latent_kwargs = self.latent_kwargs or {}
        self.intrinsic_reward_kwargs = self.intrinsic_reward_kwargs or {}
        check_arguments(self)
        if self.env is not None:
            check_horizon(self.env, self.horizon)

    def _setup_model(self) -> None:
        self._complete_arguments()
        assert isinstance(self.action_space, spaces.Box)
        check_action_space(self.action_space)
        # SB3 passes policy_kwargs and replay_buffer_kwargs on as they are and load() compares the former with what the
        # user gave, so what RPG adds must not stay in them
        user_policy_kwargs, user_buffer_kwargs = self.policy_kwargs, self.replay_buffer_kwargs
        self.latent_space = make_latent_space(self.latent, self.latent_dim, **self.latent_kwargs)
        self.replay_buffer_class = latent_buffer_class(self.replay_buffer_class, self.observation_space)
        # A model that is loaded with another number of environments has it anew, unless it is told otherwise
        if self.train_freq in ("auto", self._automatic_train_freq):
            self.train_freq = max(1, 10 // self.n_envs)
            self._automatic_train_freq = TrainFreq(self.train_freq, TrainFrequencyUnit.STEP)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.policy_kwargs = {**user_policy_kwargs, "latent_space": self.latent_space}
        self.replay_buffer_kwargs = {**user_buffer_kwargs, "latent_dim": self.latent_space.dim}
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs, self.replay_buffer_kwargs = user_policy_kwargs, user_buffer_kwargs
        self.replay_buffer.latent_name = self.latent_space.name
        self._create_aliases()
        self._setup_entropy_coefficient()
        self.bonus = make_intrinsic_reward(
            self._intrinsic_reward_name(),
            self.observation_space,
            self.action_space,
            device=self.device,
            **self._bonus_kwargs(),
        )
        self.metrics = Metrics()
        dtype = resolve_precision(self.precision, self.device)
        self._autocast = autocast_context(dtype, self.device)
        extractors = [model.encoder.features_extractor for model in (self.world_model, self.world_model_target)]
        self._twin = Twin(self.policy, dtype, shared=extractors)

    def _create_aliases(self) -> None:
        self.actor = self.policy.actor
        self.world_model = self.policy.world_model
        self.world_model_target = self.policy.world_model_target
        self.posterior = self.policy.posterior

    def _setup_entropy_coefficient(self) -> None:
        if self.target_entropy == "auto":
            self.target_entropy = -float(np.prod(self.action_space.shape))  # type: ignore[arg-type]
        self.target_entropy = float(self.target_entropy)
        if isinstance(self.ent_coef, str):
            initial = initial_coefficient("ent_coef", self.ent_coef)
            self.log_ent_coef = th.full((1,), initial, device=self.device).log().requires_grad_(True)
            self.ent_coef_optimizer = th.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1) * self.ent_coef_lr_factor)
        if isinstance(self.latent_ent_coef, str):
            check_latent_target_entropy(self.latent_space, self.latent_target_entropy)
            self.actor.latent_temperature.fill_(initial_coefficient("latent_ent_coef", self.latent_ent_coef))

    def _intrinsic_reward_name(self) -> str | type[IntrinsicReward] | None:
        if self.intrinsic_reward != "auto":
            return self.intrinsic_reward
        if {"function", "keys"} & self.intrinsic_reward_kwargs.keys():
            return "rnd"  # who says what is looked at wants it looked at
        space = self.observation_space
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
        # Images whose values are real numbers have three dimensions, stacked vectors two
        return "rnd" if all(len(part.shape or ()) < 3 and not is_image(part) for part in parts) else None

    def _bonus_kwargs(self) -> dict[str, Any]:
        # New goals are made up when a batch is sampled: the bonus is for what was reached, not for what was asked
        hindsight = issubclass(self.replay_buffer_class, HerReplayBuffer)  # type: ignore[arg-type]
        built_in = str(self._intrinsic_reward_name()).lower() in INTRINSIC_REWARDS
        if not hindsight or not built_in or "keys" in self.intrinsic_reward_kwargs:
            return self.intrinsic_reward_kwargs
        assert isinstance(self.observation_space, spaces.Dict)
        keys = [key for key in self.observation_space.spaces if key != "desired_goal"]
        return {"keys": keys, **self.intrinsic_reward_kwargs}

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if not isinstance(callback, (BaseCallback, list, type(None))):
            callback = _as_callback(callback)
        given = CallbackList(callback) if isinstance(callback, list) else callback
        own: list[BaseCallback] = [] if _contains(given, WorldModelCallback) else [WorldModelCallback()]
        if self.diagnostics and not _contains(given, DiagnosticsCallback):
            # An alarm needs several measurements in a row, which may be of several calls of learn()
            self._own_diagnostics = self._own_diagnostics or DiagnosticsCallback()
            own.append(self._own_diagnostics)
        return super()._init_callback(own if given is None else [*own, given], progress_bar)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        assert self.env is not None, "no environment: pass one to RPG(...), RPG.load(..., env=...) or set_env() before learn()"
        check_horizon(self.env, self.horizon)
        return super()._setup_learn(*args, **kwargs)

    def _planning(self, plan_every: int | None = None) -> PlanningConfig | None:
        if plan_every is not None:
            require_integer("plan_every", plan_every, 0, "None leaves it to the constructor's argument")
        every = self.plan_every if plan_every is None else plan_every
        return None if every is None else self.planning_config(every)

    def planning_config(self, every: int) -> PlanningConfig:
        """
        :param every: replan after so many steps; 0: only at an episode's start
        :return: how this model plans
        """
        return PlanningConfig(every, self.plan_horizon, self.gamma, self.value_weight_decay, self._model_terminations)

    def dump_logs(self) -> None:
        self.metrics.record(self.logger)
        super().dump_logs()

    def _check_replay_buffer(self) -> None:
        check_replay_buffer(self)
        self.replay_buffer.after_loading(self._last_obs if self._vec_normalize_env is None else self._last_original_obs)

    def _excluded_save_params(self) -> list[str]:
        aliases = ["actor", "world_model", "world_model_target", "posterior", "metrics", "bonus", "log_ent_coef"]
        aliases += ["_autocast", "_twin", "_own_diagnostics"]
        return super()._excluded_save_params() + aliases

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts = ["policy", "actor.optimizer", "world_model.optimizer"]
        if self.actor.latent_head is not None:
            state_dicts.append("actor.latent_optimizer")
        if self.posterior.net is not None:
            state_dicts.append("posterior.optimizer")
        if self.bonus is not None:
            state_dicts += ["bonus", "bonus.optimizer"]
        if self.ent_coef_optimizer is None:
            return state_dicts, []
        return [*state_dicts, "ent_coef_optimizer"], ["log_ent_coef"]


def _as_callback(function: Callable[..., Any]) -> BaseCallback:
    from stable_baselines3.common.callbacks import ConvertCallback

    return ConvertCallback(function)


def _contains(callback: BaseCallback | None, kind: type[BaseCallback]) -> bool:
    if isinstance(callback, kind):
        return True
    return isinstance(callback, CallbackList) and any(_contains(part, kind) for part in callback.callbacks)
