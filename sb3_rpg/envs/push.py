"""AntPush's maze with a point robot as a gymnasium environment: a dense reward with a local optimum."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_rpg.envs import raster
from sb3_rpg.envs.push_core import (
    BOX_HALF,
    CELL_SIZE,
    GOAL,
    LOWER_CORNER,
    MAX_SPEED,
    REWARD_SCALE,
    ROBOT_HALF,
    SUCCESS_DISTANCE,
    UPPER_CORNER,
    FloatArray,
    PushCore,
    wall_cells,
)

OBS_DIM = 8
START_NOISE = 0.1

_PIXELS_PER_UNIT = 12
_MARGIN = 24  # pixels; makes the image 336 x 336, which video encoders take without resizing


def push_observation(core: PushCore) -> npt.NDArray[np.float32]:
    """
    What the agents see: the robot's position in cells and velocity in units a step, then the box's.

    AntPush's observation has joints and time too, and not the box's velocity: here the state is complete.

    :param core: the robots
    :return: observations of shape (n_agents, 8)
    """
    observations = np.empty((core.n_agents, OBS_DIM), dtype=np.float32)
    observations[:, 0:2] = core.positions / CELL_SIZE
    observations[:, 2:4] = core.velocities
    observations[:, 4:6] = core.boxes / CELL_SIZE
    observations[:, 6:8] = core.box_velocities
    return observations


def push_positions_of(observations: npt.ArrayLike) -> FloatArray:
    """
    Recover the robot's positions from observations, for instance from those in a replay buffer.

    :param observations: observations of shape (..., 8)
    :return: (x, y) positions of shape (..., 2), correct to single precision
    :raises ValueError: if the last axis is not of length 8
    """
    observations = np.asarray(observations, dtype=np.float64)
    if observations.ndim == 0 or observations.shape[-1] != OBS_DIM:
        raise ValueError(
            f"observations must have shape (..., {OBS_DIM}), got {observations.shape}; pass those of the push task"
        )
    return CELL_SIZE * observations[..., :2]


def push_spaces() -> tuple[spaces.Box[np.float32], spaces.Box[np.float32]]:
    """
    Spaces of the push task.

    :return: observation space (8,) and action space [-1, 1]^2
    """
    lower, upper = np.array(LOWER_CORNER) / CELL_SIZE, np.array(UPPER_CORNER) / CELL_SIZE
    low = np.concatenate([lower, [-MAX_SPEED] * 2] * 2).astype(np.float32)
    high = np.concatenate([upper, [MAX_SPEED] * 2] * 2).astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32), spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)


def check_start_noise(start_noise: float) -> None:
    """
    :param start_noise: half-width of the uniform noise on the start, in AntPush's units
    :raises ValueError: if it would leave the start's cell
    """
    limit = CELL_SIZE / 2 - ROBOT_HALF
    if not 0.0 <= start_noise < limit:
        raise ValueError(f"start_noise must be in [0, {limit:g}), got {start_noise}; the robot must start inside its cell")


def draw_start(rng: np.random.Generator, start_noise: float) -> FloatArray:
    """
    Draw the robot's start. The generator is left alone without noise.

    :param rng: source of randomness
    :param start_noise: half-width of the uniform noise around the origin
    :return: (x, y) position, shape (2,)
    """
    return rng.uniform(-start_noise, start_noise, size=2) if start_noise > 0.0 else np.zeros(2)


def outcomes(core: PushCore) -> tuple[FloatArray, list[dict[str, Any]]]:
    """
    :param core: the robots
    :return: rewards of their states, shape (n_agents,), and the infos
    """
    distances = core.distances()
    infos = [
        {"position": position.copy(), "box": box.copy(), "is_success": distance < SUCCESS_DISTANCE}
        for position, box, distance in zip(core.positions, core.boxes, distances.tolist(), strict=True)
    ]
    return REWARD_SCALE * distances, infos


def push_image(position: FloatArray, box: FloatArray) -> raster.Image:
    """
    Draw walls, the goal's disc of success, box and robot.

    :param position: (x, y) of the robot, shape (2,)
    :param box: (x, y) of the box, shape (2,)
    :return: image of shape (336, 336, 3)
    """
    side = round((UPPER_CORNER[0] - LOWER_CORNER[0]) * _PIXELS_PER_UNIT) + 2 * _MARGIN
    image = raster.blank(side, side)
    raster.disc(image, *_pixel(np.array(GOAL)), SUCCESS_DISTANCE * _PIXELS_PER_UNIT, raster.PALE_GOLD)
    for cell in wall_cells():
        _square(image, cell, CELL_SIZE / 2, raster.DARK)
    _square(image, box, BOX_HALF, raster.BLUE)
    _square(image, position, ROBOT_HALF, raster.VERMILION)
    return image


def _pixel(position: FloatArray) -> tuple[float, float]:
    """Column and row of a position in the rendered image."""
    x, y = position.tolist()
    return _MARGIN + (x - LOWER_CORNER[0]) * _PIXELS_PER_UNIT, _MARGIN + (UPPER_CORNER[1] - y) * _PIXELS_PER_UNIT


def _square(image: raster.Image, centre: FloatArray, half: float, color: raster.Color) -> None:
    (left, bottom), (right, top) = _pixel(centre - half), _pixel(centre + half)
    raster.rectangle(image, left, top, right, bottom, color)


class PushEnv(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """
    A robot, a box and a goal behind it: the nearest way pushes the box ahead, where it closes the only passage for good.

    The maze is AntPush's, in its units: cells of side 8, the robot's at the origin; free are (-8, 0), (-8, 8), (8, 8) and
    (0, 16) beside it, and (0, 8), which the box fills. The goal is (0, 19), in the cell that only the box's place leads to.
    Each step pays ``-0.1 * distance`` to it, within 5 is success, and nothing terminates. Straight ahead the reward rises
    until the box jams in the goal's cell and the robot is 8 units before the goal; on the right there is a dead end. The box
    must be pushed aside, from the left, and the way there first leads away from the goal.

    Instead of the ant there is a point robot (see :class:`~sb3_rpg.envs.push_core.PushCore`) of at most 1 unit a step, in 100
    steps what an ant of 2.5 units a second runs in AntPush's 400 steps of 0.1 s; a lag of some 5 steps makes it build up
    speed. The observation is described at :func:`push_observation`. The time limit comes with the registration
    (``gymnasium.make("RPGPointPush-v0")``), so an instance of the bare class goes on for ever.

    ``info`` of every reset and step holds ``"position"`` and ``"box"`` ((x, y), float64) and ``"is_success"`` (within 5 of the
    goal now).

    :param start_noise: half-width of the uniform noise on the robot's start, below 3; gymnasium's Ant has 0.1
    :param render_mode: ``"rgb_array"`` or ``None``
    :raises ValueError: if an option is out of its range
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (gymnasium's declaration)

    def __init__(self, start_noise: float = START_NOISE, render_mode: str | None = None) -> None:
        check_start_noise(start_noise)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; pick one of them")
        self.start_noise = start_noise
        self.render_mode = render_mode
        self.core = PushCore(1)
        self.observation_space, self.action_space = push_spaces()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """
        Start an episode: the robot near the origin, at rest, the box in its place.

        :param seed: seed of the start's noise
        :param options: not used
        :return: observation of shape (8,), info
        """
        super().reset(seed=seed)
        self.core.reset(starts=draw_start(self.np_random, self.start_noise))
        return push_observation(self.core)[0], outcomes(self.core)[1][0]

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """
        Move once.

        :param action: wanted velocity, shape (2,), clipped to [-1, 1]
        :return: observation of shape (8,), reward, terminated (always False), truncated (always False), info
        :raises ValueError: if the shape is wrong or the action is NaN or infinite
        """
        action = np.asarray(action)
        if action.shape != (2,):
            raise ValueError(f"action must have shape (2,), got {action.shape}; pass one (x, y) pair")
        self.core.step(action[None])
        rewards, infos = outcomes(self.core)
        return push_observation(self.core)[0], float(rewards[0]), False, False, infos[0]

    def render(self) -> raster.Image | None:
        """
        Draw walls, goal, box and robot.

        :return: image of shape (336, 336, 3), or ``None`` (with a warning) without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn('render() needs render_mode="rgb_array"; pass it to gymnasium.make')
            return None
        return push_image(self.core.positions[0], self.core.boxes[0])
