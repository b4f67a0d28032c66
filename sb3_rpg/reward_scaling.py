"""The factor on extrinsic rewards that makes one set of loss weights, beta and bonus fit sparse rewards and large ones."""

import math

import numpy as np


class ReturnScaler:
    """
    factor = min(``max_factor``, ``target_std`` / std of the discounted return).

    The paper multiplies its 0/1 success rewards by 5. That is kept where rewards are rare or small; where the discounted
    return's standard deviation, estimated from running per-environment sums as SB3's VecNormalize does, would exceed
    ``target_std``, rewards shrink instead, so that values stay of the order that the losses' weights were chosen for. The
    factor is applied when a batch is sampled, so all stored rewards share one scale. It never exceeds ``max_factor``: how much
    small rewards should count beside the bonus is the user's to say (``reward_scale``), as they may be small because they
    hardly matter.

    :param target_std: standard deviation of the scaled return, at most
    :param max_factor: largest factor
    """

    def __init__(self, target_std: float = 100.0, max_factor: float = 5.0):
        self.target_std, self.max_factor = target_std, max_factor
        self._returns = np.zeros(0)
        self._count, self._mean, self._m2 = 0, 0.0, 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no step was seen yet."""
        return self._count == 0

    def update(self, rewards: np.ndarray, dones: np.ndarray, gamma: float, starts: np.ndarray | None = None) -> None:
        """
        :param rewards: extrinsic rewards of one vector step, (n_envs,)
        :param dones: True where the episode ended with it, (n_envs,)
        :param gamma: discount factor
        :param starts: True where it began with it, which may follow a reset without ``done``, (n_envs,); None: nowhere
        """
        if len(self._returns) != len(rewards):
            self._returns = np.zeros(len(rewards))
        if starts is not None:
            self._returns[starts.astype(bool)] = 0.0
        self._returns = self._returns * gamma + rewards
        # Chan's parallel update of mean and sum of squared deviations
        n, mean = len(rewards), float(self._returns.mean())
        delta, total = mean - self._mean, self._count + n
        self._m2 += float(((self._returns - mean) ** 2).sum()) + delta * delta * self._count * n / total
        self._mean += delta * n / total
        self._count = total
        self._returns[dones.astype(bool)] = 0.0

    @property
    def factor(self) -> float:
        """Factor on extrinsic rewards."""
        std = math.sqrt(self._m2 / self._count) if self._count else 0.0
        return min(self.max_factor, self.target_std / std) if std > 0 else self.max_factor
