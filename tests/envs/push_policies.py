"""Scripted policies of the push task: the ways that there are, and what each of them is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sb3_rpg.envs import PushCore
from sb3_rpg.envs.push_core import EPISODE_LENGTH, REWARD_SCALE

#: places that the robot heads for, one after the other
IDLE = ((0.0, 0.0),)
STRAIGHT_AHEAD = ((0.0, 19.0),)
RIGHT_AT_ONCE = ((8.0, 0.0),)
AHEAD_THEN_RIGHT = ((0.0, 8.0), (8.0, 8.0))
#: round the corner on the left, push the box to the right as far as the robot is wide and some more, and on to the goal
LEFT_AND_ROUND = ((-8.0, 0.0), (-8.0, 8.0), (-2.9, 8.0), (-2.9, 14.0), (0.0, 19.0))


def head_for(core: PushCore, places: Sequence[tuple[float, float]]) -> np.ndarray:
    """
    Visit the places in turn and stay at the last one.

    :param core: one robot, at its start
    :param places: (x, y) places
    :return: an episode's actions, shape (100, 2)
    """
    actions, at = [], 0
    for _ in range(EPISODE_LENGTH):
        if at < len(places) - 1 and np.abs(core.positions[0] - places[at]).max() < 0.5:
            at += 1
        # Brakes in time: with a lag of 5 steps, a velocity v carries 4 v further
        action = np.clip(places[at] - core.positions[0] - 1.5 * core.velocities[0], -1.0, 1.0)
        core.step(action[None])
        actions.append(action)
    return np.array(actions)


def play(actions: np.ndarray) -> tuple[float, PushCore]:
    """
    :param actions: shape (T, 2)
    :return: return of the episode from the origin, and the robot at its end
    """
    core, total = PushCore(), 0.0
    for action in actions:
        core.step(action[None])
        total += REWARD_SCALE * float(core.distances()[0])
    return total, core


def outcome(places: Sequence[tuple[float, float]]) -> tuple[float, PushCore]:
    """
    :param places: see :func:`head_for`
    :return: see :func:`play`
    """
    return play(head_for(PushCore(), places))
