"""
Environments of the paper that no package has. Importing this module registers them with gymnasium:

- ``RPGBandit-v0``: the one-step bandit of Fig. 4
- ``RPGMaze-v0``: the maze of Fig. 5 and Fig. 8
"""

import gymnasium

from sb3_rpg.envs.bandit import BanditEnv, bandit_reward
from sb3_rpg.envs.baselines import random_coverage
from sb3_rpg.envs.maze import MazeEnv, maze_observation, positions_of
from sb3_rpg.envs.maze_core import EPISODE_LENGTH, MazeCore
from sb3_rpg.envs.maze_layout import cells_of, coverage, maze_walls
from sb3_rpg.envs.maze_vec import MazeVecEnv

__all__ = [
    "BanditEnv",
    "MazeCore",
    "MazeEnv",
    "MazeVecEnv",
    "bandit_reward",
    "cells_of",
    "coverage",
    "maze_observation",
    "maze_walls",
    "positions_of",
    "random_coverage",
]


def _register(env_id: str, entry_point: str, max_episode_steps: int) -> None:
    """Register an environment unless it is there already, as gymnasium warns of a second registration."""
    if env_id not in gymnasium.registry:
        gymnasium.register(id=env_id, entry_point=entry_point, max_episode_steps=max_episode_steps)


_register("RPGBandit-v0", "sb3_rpg.envs.bandit:BanditEnv", max_episode_steps=1)
_register("RPGMaze-v0", "sb3_rpg.envs.maze:MazeEnv", max_episode_steps=EPISODE_LENGTH)
