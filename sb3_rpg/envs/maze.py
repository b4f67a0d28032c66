"""The maze of Fig. 5 and Fig. 8 of the paper as a gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_rpg.envs import raster
from sb3_rpg.envs.maze_core import MazeCore
from sb3_rpg.envs.maze_layout import (
    FARTHEST_ROOM,
    HALF_SIZE,
    N_CELLS,
    ROOM_SIZE,
    FloatArray,
    Passage,
    cells_of,
    in_outer_room,
    in_room,
    maze_walls,
)

RewardKind = Literal["none", "sparse", "escape"]

N_FREQUENCIES = 6
OBS_DIM = 2 + 2 * (1 + 2 * N_FREQUENCIES)
_FREQUENCIES = 2.0 ** np.arange(N_FREQUENCIES)
_POSITION_SCALE = 0.01

_PIXELS_PER_UNIT = 40
_CENTRES = (-4.0, -2.0, 0.0, 2.0, 4.0)
#: centres of the rooms that each kind of reward pays in
GOALS: dict[RewardKind, list[tuple[float, float]]] = {
    "none": [],
    "sparse": [FARTHEST_ROOM],
    "escape": [(x, y) for x in _CENTRES for y in _CENTRES if in_outer_room((x, y))],
}
_MARGIN = 16  # pixels; makes the image 432 x 432, which video encoders take without resizing


def maze_observation(positions: FloatArray) -> npt.NDArray[np.float32]:
    """
    What the agent sees of its position: the scaled position, then a positional encoding of ``s = position / 5``.

    The encoding of each scalar is ``s, sin(s), cos(s), sin(2 s), cos(2 s), ..., sin(32 s), cos(32 s)``: 6 frequencies
    without a factor of pi, the scalar itself kept.

    :param positions: (x, y) positions, shape (n, 2)
    :return: observations of shape (n, 28): ``0.01 * position`` (2), encoding of x (13), encoding of y (13)
    """
    observations = np.empty((len(positions), OBS_DIM), dtype=np.float32)
    observations[:, :2] = _POSITION_SCALE * positions
    scalars = positions / HALF_SIZE
    encoding = observations[:, 2:].reshape(-1, 2, 1 + 2 * N_FREQUENCIES)  # a view: agent, x or y, feature
    encoding[..., 0] = scalars
    angles = scalars[..., None] * _FREQUENCIES
    encoding[..., 1::2] = np.sin(angles)
    encoding[..., 2::2] = np.cos(angles)
    return observations


def positions_of(observations: npt.ArrayLike) -> FloatArray:
    """
    Recover the positions from observations, for instance from those in a replay buffer.

    :param observations: observations of shape (..., 28)
    :return: (x, y) positions of shape (..., 2), correct to single precision
    :raises ValueError: if the last axis is not of length 28
    """
    observations = np.asarray(observations, dtype=np.float64)
    if observations.ndim == 0 or observations.shape[-1] != OBS_DIM:
        raise ValueError(
            f"observations must have shape (..., {OBS_DIM}), got {observations.shape}; pass the maze's observations"
        )
    return (observations[..., :2] / _POSITION_SCALE).clip(-HALF_SIZE, HALF_SIZE)


def maze_spaces() -> tuple[spaces.Box[np.float32], spaces.Box[np.float32]]:
    """
    Spaces of the maze.

    :return: observation space (28,) and action space [-1, 1]^2
    """
    high = np.ones(OBS_DIM, dtype=np.float32)
    high[:2] = _POSITION_SCALE * HALF_SIZE
    return spaces.Box(-high, high, dtype=np.float32), spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)


def check_maze_options(reward: str, start_noise: float) -> None:
    """
    Validate the options that the single and the batched maze share.

    :param reward: ``"none"``, ``"sparse"`` or ``"escape"``
    :param start_noise: half-width of the uniform noise on the start, in maze units
    :raises ValueError: if ``reward`` is unknown or ``start_noise`` would leave the centre room
    """
    if reward not in get_args(RewardKind):
        raise ValueError(f"reward must be one of {get_args(RewardKind)}, got {reward!r}; pick one of them")
    if not 0.0 <= start_noise < ROOM_SIZE / 2:
        raise ValueError(f"start_noise must be in [0, 1), got {start_noise}; the start must stay in the centre room")


def at_goal(reward: RewardKind, positions: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """
    :param reward: ``"sparse"``: the goal is the farthest room; ``"escape"``: any of the outer rooms
    :param positions: (x, y) positions, shape (..., 2)
    :return: whether they are where a step is rewarded with 1, booleans of shape (...)
    """
    return in_outer_room(positions) if reward == "escape" else in_room(positions, FARTHEST_ROOM)


def draw_start(rng: np.random.Generator, start_noise: float) -> FloatArray:
    """
    Draw the start of an episode. The generator is left alone without noise.

    :param rng: source of randomness
    :param start_noise: half-width of the uniform noise around the centre of the maze, in maze units
    :return: (x, y) position, shape (2,)
    """
    return rng.uniform(-start_noise, start_noise, size=2) if start_noise > 0.0 else np.zeros(2)


@cache
def _walls_mask(blocked: tuple[Passage, ...]) -> npt.NDArray[np.bool_]:
    """Pixels of the rendered image that show a wall."""
    size = 2 * _MARGIN + int(2 * HALF_SIZE) * _PIXELS_PER_UNIT
    image = raster.blank(size, size)
    for start, end in maze_walls(blocked):
        (left, bottom), (right, top) = _pixel(start), _pixel(end)
        raster.rectangle(image, left - 1, top - 1, right + 1, bottom + 1, raster.DARK)
    return (image == raster.DARK).all(axis=-1)


def _pixel(position: FloatArray) -> tuple[float, float]:
    """Column and row of a position in the rendered image."""
    x, y = position.tolist()
    return _MARGIN + (x + HALF_SIZE) * _PIXELS_PER_UNIT, _MARGIN + (HALF_SIZE - y) * _PIXELS_PER_UNIT


def maze_image(
    position: FloatArray, visited: npt.NDArray[np.bool_], reward: RewardKind = "none", blocked: tuple[Passage, ...] = ()
) -> raster.Image:
    """
    Draw walls, visited cells and the agent.

    :param position: (x, y) of the agent, shape (2,)
    :param visited: which unit cells have been visited, shape (100,)
    :param reward: tint the rooms that it rewards
    :param blocked: passages that are walled off
    :return: image of shape (432, 432, 3)
    """
    walls = _walls_mask(blocked)
    image = raster.blank(*walls.shape)
    for centre in GOALS[reward]:
        left, top = _pixel(np.array(centre) + np.array([-1.0, 1.0]) * ROOM_SIZE / 2)
        side = ROOM_SIZE * _PIXELS_PER_UNIT
        raster.rectangle(image, left, top, left + side, top + side, raster.PALE_GOLD)
    for cell in np.flatnonzero(visited).tolist():
        left, bottom = _pixel(np.array([cell % 10, cell // 10]) - HALF_SIZE)
        # Inset, so that the goal's tint and the grid of cells stay visible.
        raster.rectangle(
            image, left + 4, bottom - _PIXELS_PER_UNIT + 4, left + _PIXELS_PER_UNIT - 4, bottom - 4, raster.PALE_BLUE
        )
    image[walls] = raster.DARK
    column, row = _pixel(position)
    raster.disc(image, column, row, 6, raster.VERMILION)
    return image


class MazeEnv(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """
    A point agent in a 5x5 grid of rooms connected by narrow passages (Fig. 5 and Fig. 8 of the paper).

    The agent starts at the centre and moves by ``0.25 * clip(action, -1, 1)``; a wall stops it. There is no extrinsic
    reward: the task is to cover the maze within episodes of 50 steps. The observation is described at
    :func:`maze_observation`. An episode never terminates; the time limit comes with the registration
    (``gymnasium.make("RPGMaze-v0")``), so an instance of the bare class goes on for ever.

    ``info`` of every reset and step holds ``"position"`` ((x, y), float64), ``"cell"`` (unit cell 0..99, see
    :func:`~sb3_rpg.envs.maze_layout.cells_of`), ``"coverage"`` (share of the 100 cells visited by this instance over its
    lifetime, starts included) and, with a reward, ``"is_success"`` (where it is given now).

    :param reward: ``"none"`` for 0 throughout; ``"sparse"`` for 1 at every step that ends in the farthest room, the one
        centred at (-2, 4), five passages from the start (see :func:`~sb3_rpg.envs.maze_layout.farthest_room`); ``"escape"``
        for 1 at every step that ends in one of the 16 rooms along the outer wall, which each of the start's four passages
        leads to: a task with several ways, for :mod:`sb3_rpg.modes.adaptation`
    :param start_noise: half-width of the uniform noise on the start, in maze units, below 1
    :param render_mode: ``"rgb_array"`` or ``None``
    :param blocked: passages that are walled off, see :data:`~sb3_rpg.envs.maze_layout.PASSAGES`: ``[(1, 0)]`` for the one
        from the start to the right
    :raises ValueError: if an option is out of its range
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (gymnasium's declaration)

    def __init__(
        self,
        reward: RewardKind = "none",
        start_noise: float = 0.0,
        render_mode: str | None = None,
        blocked: Sequence[Passage] = (),
    ) -> None:
        check_maze_options(reward, start_noise)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; pick one of them")
        self.reward = reward
        self.start_noise = start_noise
        self.render_mode = render_mode
        self.core = MazeCore(1, blocked)
        self.visited = np.zeros(N_CELLS, dtype=bool)
        """Cells visited by this instance so far, shape (100,)."""
        self.observation_space, self.action_space = maze_spaces()

    @property
    def coverage(self) -> float:
        """Share of the cells visited by this instance so far."""
        return int(np.count_nonzero(self.visited)) / N_CELLS

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """
        Start an episode; what has been visited is kept.

        :param seed: seed of the start's noise
        :param options: not used
        :return: observation of shape (28,), info
        """
        super().reset(seed=seed)
        positions = self.core.reset(starts=draw_start(self.np_random, self.start_noise))
        return maze_observation(positions)[0], self._visit()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """
        Move once.

        :param action: shape (2,), clipped to [-1, 1]
        :return: observation of shape (28,), reward, terminated (always False), truncated (always False), info
        :raises ValueError: if the shape is wrong or the action is NaN or infinite
        """
        action = np.asarray(action)
        if action.shape != (2,):
            raise ValueError(f"action must have shape (2,), got {action.shape}; pass one (x, y) pair")
        positions = self.core.step(action[None])
        info = self._visit()
        return maze_observation(positions)[0], float(info.get("is_success", False)), False, False, info

    def _visit(self) -> dict[str, Any]:
        """Mark the current cell as visited and describe the state."""
        position = self.core.positions[0]
        cell = int(cells_of(position))
        self.visited[cell] = True
        info: dict[str, Any] = {"position": position.copy(), "cell": cell, "coverage": self.coverage}
        if self.reward != "none":
            info["is_success"] = bool(at_goal(self.reward, position))
        return info

    def render(self) -> raster.Image | None:
        """
        Draw walls, visited cells and the agent.

        :return: image of shape (432, 432, 3), or ``None`` (with a warning) without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn('render() needs render_mode="rgb_array"; pass it to gymnasium.make')
            return None
        return maze_image(self.core.positions[0], self.visited, self.reward, self.core.blocked)
