"""Hindsight experience replay (Andrychowicz et al. 2017) over segments: one new goal for all steps of a segment."""

import copy
from typing import Any

import numpy as np
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_rpg.buffers import LatentBufferMixin, Observations


class LatentHerReplayBuffer(LatentBufferMixin, HerReplayBuffer):
    """
    SB3's ``HerReplayBuffer`` with z and segments; arguments as there, and ``latent_dim``.

    A share ``n_sampled_goal / (n_sampled_goal + 1)`` of the segments gets a goal that their episode reached later (or as
    ``goal_selection_strategy`` says), the same for all their steps, and the environment's ``compute_reward`` of it. Steps
    of episodes that are not complete keep their own goal, so that learning need not wait for the first episode's end.
    Imagined steps start from such observations too.
    """

    def _begin_episodes(self, starts: np.ndarray) -> None:
        # SB3 ends an episode at its `done`; at a reset without one, the next episode's goals would count as this one's
        for env in np.flatnonzero(starts & (self._current_ep_start != self.pos)).tolist():
            self._compute_episode_length(env)

    def reset(self) -> None:
        super().reset()
        for record in (self.ep_start, self.ep_length, self._current_ep_start):
            record[:] = 0

    def _stored_segments(
        self, rows: np.ndarray, envs: np.ndarray, steps: np.ndarray
    ) -> tuple[Observations, Observations, np.ndarray]:
        obs, next_obs, rewards = super()._stored_segments(rows, envs, steps)
        assert isinstance(obs, dict) and isinstance(next_obs, dict)
        chosen = self._choose_virtual(rows, envs)
        if len(chosen) == 0:
            return obs, next_obs, rewards
        goals = self._sample_goals(rows[chosen], envs[chosen])
        obs["desired_goal"][chosen] = goals
        next_obs["desired_goal"][:, chosen] = goals
        rewards[:, chosen] = self._rewards_for(next_obs, steps, envs, chosen)
        return obs, next_obs, rewards

    def _stored_observations(self, rows: np.ndarray, envs: np.ndarray) -> Observations:
        obs = super()._stored_observations(rows, envs)
        assert isinstance(obs, dict)
        chosen = self._choose_virtual(rows, envs)
        if len(chosen) > 0:
            obs["desired_goal"][chosen] = self._sample_goals(rows[chosen], envs[chosen])
        return obs

    def _choose_virtual(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """
        :return: places in the batch that get a new goal
        """
        # Spread evenly over the batch, whose first rows get another z; SB3 takes the first
        counts = np.floor(self.her_ratio * np.arange(len(rows) + 1))
        virtual = np.flatnonzero(np.diff(counts))
        # SB3 notes an episode's length where it is complete and nothing of it was overwritten
        return virtual[self.ep_length[rows[virtual], envs[virtual]] > 0]

    def _rewards_for(
        self, next_obs: dict[str, np.ndarray], steps: np.ndarray, envs: np.ndarray, chosen: np.ndarray
    ) -> np.ndarray:
        if self.env is None:
            raise ValueError("the replay buffer has no environment to compute rewards with; call its set_env() first")

        def flat(key: str) -> np.ndarray:
            return next_obs[key][:, chosen].reshape(-1, *next_obs[key].shape[2:])

        shape = (len(steps), len(chosen))
        infos: Any = [{} for _ in range(shape[0] * shape[1])]
        if self.copy_info_dict:
            infos = copy.deepcopy(self.infos[steps[:, chosen], envs[chosen]].reshape(-1))
        # As SB3: the first environment's method stands for all
        rewards = self.env.env_method("compute_reward", flat("achieved_goal"), flat("desired_goal"), infos, indices=[0])
        return np.asarray(rewards[0], dtype=np.float32).reshape(shape)
