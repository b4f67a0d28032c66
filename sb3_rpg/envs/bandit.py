"""The one-step continuous bandit of Fig. 4 of the paper."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_rpg.envs import raster

GLOBAL_OPTIMUM = -0.6
"""Action with the largest reward, 1.1."""
LOCAL_OPTIMUM = 0.875
"""Action that the second mode's reward, 0.5, is approached at from below; the reward drops to 0 there."""

_WIDTH, _HEIGHT, _MARGIN = 480, 320, 24  # of the rendered image, in pixels
_TOP_REWARD = 1.2
_SHOWN_ACTIONS = 64


def bandit_reward(actions: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """
    Reward of Fig. 4, elementwise::

        r(a) = max(0, 1.1 - 18 (2a + 1.2)^2) + [a < 0.875] * max(0, 0.5 - 0.125 (2a - 1.75)^2)

    The narrow global mode (1.1 at a = -0.6, zero outside [-0.7236, -0.4764]) and the wide local one (up to 0.5 as a tends
    to 0.875 from below, zero below -0.125) do not overlap. The mean reward of uniform actions is 0.257.

    :param actions: actions of any shape, meant for [-1, 1]
    :return: rewards of the same shape
    :raises ValueError: if an action is NaN or infinite
    """
    a = np.asarray(actions, dtype=np.float64)
    if not np.isfinite(a).all():
        raise ValueError(f"actions must be finite, got {a[~np.isfinite(a)].flat[0]}; check the policy's output for NaN")
    global_mode = np.maximum(0.0, 1.1 - 18.0 * (2.0 * a + 1.2) ** 2)
    local_mode = np.maximum(0.0, 0.5 - 0.125 * (2.0 * a - 1.75) ** 2)
    return np.asarray(global_mode + np.where(a < LOCAL_OPTIMUM, local_mode, 0.0))


class BanditEnv(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """
    One action, one reward, end (Fig. 4 of the paper): a policy that starts at 0 is drawn to the wide local mode.

    The only step *terminates* the episode. Nothing comes after it, so its return is its reward; were it a truncation, the
    value of the constant observation would be bootstrapped and every return would carry a large constant that hides the
    difference between the modes.

    The observation is a constant zero. ``info["is_success"]`` of a step tells whether the reward exceeds 0.5, which only
    the global mode does.

    :param render_mode: ``"rgb_array"`` or ``None``
    :raises ValueError: if ``render_mode`` is unknown
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's declaration)

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; pick one of them")
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, shape=(1,), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, shape=(1,), dtype=np.float32)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_SHOWN_ACTIONS)  # (action, reward), over episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """
        Start an episode.

        :param seed: seeds the generator of the base class; the bandit itself is deterministic
        :param options: not used
        :return: observation of shape (1,), empty info
        """
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """
        Play one action.

        :param action: shape (1,), clipped to [-1, 1]
        :return: observation of shape (1,), reward, terminated (always True), truncated (always False), info
        :raises ValueError: if the shape is wrong or the action is NaN or infinite
        """
        action = np.asarray(action)
        if action.shape != (1,):
            raise ValueError(f"action must have shape (1,), got {action.shape}; pass a one-element array")
        played = float(np.clip(action[0], -1.0, 1.0))
        reward = float(bandit_reward(played))
        self._recent.append((played, reward))
        return np.zeros(1, dtype=np.float32), reward, True, False, {"is_success": reward > 0.5}

    def render(self) -> raster.Image | None:
        """
        Draw the reward curve and the last 64 actions, the last one in red.

        :return: image of shape (320, 480, 3), or ``None`` (with a warning) without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn('render() needs render_mode="rgb_array"; pass it to gymnasium.make')
            return None
        image = raster.blank(_WIDTH, _HEIGHT)
        base = _row(0.0)
        raster.rectangle(image, _MARGIN, base, _WIDTH - _MARGIN, base + 2, raster.GREY)
        for tick in np.linspace(-1.0, 1.0, 9):
            length = 8 if tick in (-1.0, 0.0, 1.0) else 4
            raster.rectangle(image, _column(tick) - 1, base, _column(tick) + 1, base + length, raster.GREY)
        columns = np.arange(_MARGIN, _WIDTH - _MARGIN + 1)
        rows = _row(bandit_reward(2.0 * (columns - _MARGIN) / (_WIDTH - 2 * _MARGIN) - 1.0))
        for column, row, next_row in zip(columns.tolist(), rows.tolist(), rows[1:].tolist(), strict=False):
            raster.rectangle(image, column, min(row, next_row) - 1, column + 1, max(row, next_row) + 2, raster.DARK)
        for i, (action, reward) in enumerate(self._recent):
            is_last = i == len(self._recent) - 1
            raster.disc(
                image, _column(action), _row(reward), 5 if is_last else 3, raster.VERMILION if is_last else raster.BLUE
            )
        return image


def _column(action: float) -> float:
    """Column of an action in the rendered image."""
    return _MARGIN + (action + 1.0) / 2.0 * (_WIDTH - 2 * _MARGIN)


def _row(reward: Any) -> Any:
    """Row of a reward (a number or an array of them) in the rendered image."""
    return _HEIGHT - _MARGIN - reward / _TOP_REWARD * (_HEIGHT - 2 * _MARGIN)
