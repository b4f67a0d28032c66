"""SB3's off-policy rollouts with a latent: z is drawn at an episode's start, acted with, and stored."""

from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq
from stable_baselines3.common.vec_env import VecEnv

from sb3_rpg.actor import LatentState
from sb3_rpg.buffers import LatentBufferMixin
from sb3_rpg.checks import check_action, check_finite, check_normalization
from sb3_rpg.latents import LatentSpace
from sb3_rpg.persistence import PersistentOffPolicyAlgorithm
from sb3_rpg.policies import PlanningConfig, RPGPolicy
from sb3_rpg.randomness import SeparateStream
from sb3_rpg.reward_scaling import ReturnScaler

SelfLatent = TypeVar("SelfLatent", bound="LatentOffPolicyAlgorithm")


class LatentOffPolicyAlgorithm(PersistentOffPolicyAlgorithm):
    """What acts and collects: z travels from the policy through the environment's episodes into the replay buffer."""

    policy: RPGPolicy
    replay_buffer: LatentBufferMixin
    latent_space: LatentSpace

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        #: latents of the running episodes, (n_envs, latent_dim); NumPy, as SB3 pickles it
        self._last_latents: np.ndarray | None = None
        self._planned_steps: np.ndarray | None = None
        self._terminations_seen = False
        self._return_scaler = ReturnScaler()
        # Exists within learn()
        self._evaluation_stream: SeparateStream | None = None

    @property
    def _is_learning(self) -> bool:
        return self._evaluation_stream is not None

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        if self.num_timesteps == 0 and self.replay_buffer.size() == 0:
            # A loaded model that begins anew, where rewards may have another scale
            self._return_scaler = ReturnScaler()
        normalizer = self._vec_normalize_env
        check_finite("observation", self._last_obs if normalizer is None else self._last_original_obs, self.num_timesteps)
        check_normalization(normalizer, self.num_timesteps)  # of each step that follows, what it takes in is checked
        return result

    def learn(
        self: SelfLatent,
        total_timesteps: int | float,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "RPG",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfLatent:
        # Another stream where training goes on, or its evaluations would draw the same z in every learn()
        self._evaluation_stream = SeparateStream(self.device, number=self.num_timesteps)
        try:
            return super().learn(
                total_timesteps=int(total_timesteps),
                callback=callback,
                log_interval=log_interval,
                tb_log_name=tb_log_name,
                reset_num_timesteps=reset_num_timesteps,
                progress_bar=progress_bar,
            )
        finally:
            self._evaluation_stream = None

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Draw z where an episode starts, act with pi(a|s,z). The warm-up is acted by the untrained policy.

        :param learning_starts: not used
        :param action_noise: added to the scaled action
        :param n_envs: number of environments
        :return: actions for the environment, and actions in [-1, 1] for the buffer
        """
        assert self._last_obs is not None, "_setup_learn() resets the environment before actions are asked for"
        starts = self._last_episode_starts
        if self._last_latents is None or self._last_latents.shape != (n_envs, self.latent_space.dim):
            state: tuple[np.ndarray, ...] | None = None
        elif self._planned_steps is None:
            state = (self._last_latents,)
        else:
            state = (self._last_latents, self._planned_steps)
        action, new_state = self.policy.predict(self._last_obs, state, starts, planning=self._planning())
        check_action(action, self.num_timesteps)
        self._last_latents = new_state[0]
        self._planned_steps = new_state[1] if len(new_state) > 1 else None
        scaled = self.policy.scale_action(action)
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
            action = self.policy.unscale_action(scaled)
        return action, scaled

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """
        As SB3's, but a callback that stops training loses no transition, nor an episode's end: the environment has made its
        step, so the next ``learn()`` would go on from an observation that is one step old.

        :return: as SB3's
        """
        rollout = super().collect_rollouts(
            env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
        )
        if not rollout.continue_training:
            step = callback.locals
            self._update_info_buffer(step["infos"], step["dones"])
            self._store_transition(
                replay_buffer, step["buffer_actions"], step["new_obs"], step["rewards"], step["dones"], step["infos"]
            )
            for index in np.flatnonzero(step["dones"]):
                self._episode_num += 1
                if action_noise is not None:
                    action_noise.reset(**({"indices": [int(index)]} if env.num_envs > 1 else {}))
        return rollout

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        normalizer = self._vec_normalize_env
        try:
            check_finite("reward", reward if normalizer is None else normalizer.get_original_reward(), self.num_timesteps)
            check_finite("observation", new_obs if normalizer is None else normalizer.get_original_obs(), self.num_timesteps)
            for index in np.flatnonzero(dones):
                if (final := infos[index].get("terminal_observation")) is not None:
                    check_finite("observation", final, self.num_timesteps, int(index))
        except ValueError:
            # The environment has gone on; the next learn() resets it, as nothing may join what is before and behind this step
            self._last_obs = None
            raise
        assert isinstance(replay_buffer, LatentBufferMixin)
        assert self._last_latents is not None and self._last_episode_starts is not None
        self._return_scaler.update(reward, dones, self.gamma, self._last_episode_starts)
        replay_buffer.stage(self._last_latents, self._last_episode_starts)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        # SB3 never updates it for off-policy algorithms; it is what tells where z is drawn next
        self._last_episode_starts = dones

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: LatentState = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        plan_every: int | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Act; z travels as ``state``, as a recurrent policy's hidden state does.

        :param observation: one observation or a batch
        :param state: what the last call returned, or a z to act with; None: choose z
        :param episode_start: (n_envs,) booleans: choose z anew there
        :param deterministic: the modes of pi(a|s,z) and, where z is chosen, of pi(z|s1)
        :param plan_every: as the constructor's argument, for this call
        :return: actions, and the state for the next call, which starts with z
        """
        # What callbacks ask for during training must not change what training draws
        stream = self._evaluation_stream
        with nullcontext() if stream is None or deterministic else stream.active():
            return self.policy.predict(observation, state, episode_start, deterministic, self._planning(plan_every))

    def _planning(self, plan_every: int | None = None) -> PlanningConfig | None:
        """
        :param plan_every: what ``predict`` was given
        :return: how z is planned; None: it is drawn
        """
        raise NotImplementedError

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_evaluation_stream"]
