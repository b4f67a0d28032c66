"""
Environments of the paper that no package has. Importing this module registers them with gymnasium:

- ``RPGBandit-v0``: the one-step bandit of Fig. 4
- ``RPGMaze-v0``: the maze of Fig. 5 and Fig. 8; ``RPGMazeSparse-v0``: with a reward of 1 in its farthest room
- ``RPGPointPush-v0``: AntPush's maze with a point robot, a dense reward with a local optimum
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from sb3_rpg.envs.bandit import BanditEnv, bandit_reward
    from sb3_rpg.envs.baselines import random_coverage
    from sb3_rpg.envs.faults import WeakActuator
    from sb3_rpg.envs.maze import MazeEnv, maze_observation, positions_of
    from sb3_rpg.envs.maze_core import MazeCore
    from sb3_rpg.envs.maze_layout import cells_of, coverage, maze_walls
    from sb3_rpg.envs.maze_vec import MazeVecEnv
    from sb3_rpg.envs.push import PushEnv, push_observation, push_positions_of
    from sb3_rpg.envs.push_core import PushCore
    from sb3_rpg.envs.push_vec import PushVecEnv

__all__ = [
    "BanditEnv",
    "MazeCore",
    "MazeEnv",
    "MazeVecEnv",
    "PushCore",
    "PushEnv",
    "PushVecEnv",
    "WeakActuator",
    "bandit_reward",
    "cells_of",
    "coverage",
    "maze_observation",
    "maze_walls",
    "positions_of",
    "push_observation",
    "push_positions_of",
    "random_coverage",
]


#: where each name is; imported when it is first asked for, as users of the algorithm alone need none of them
_MODULES = {
    "bandit": ("BanditEnv", "bandit_reward"),
    "baselines": ("random_coverage",),
    "faults": ("WeakActuator",),
    "maze": ("MazeEnv", "maze_observation", "positions_of"),
    "maze_core": ("MazeCore",),
    "maze_layout": ("cells_of", "coverage", "maze_walls"),
    "maze_vec": ("MazeVecEnv",),
    "push": ("PushEnv", "push_observation", "push_positions_of"),
    "push_core": ("PushCore",),
    "push_vec": ("PushVecEnv",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def _register(env_id: str, entry_point: str, max_episode_steps: int, **kwargs: Any) -> None:
    """Register an environment unless it is there already, as gymnasium warns of a second registration."""
    if env_id not in gymnasium.registry:
        gymnasium.register(id=env_id, entry_point=entry_point, max_episode_steps=max_episode_steps, kwargs=kwargs)


_register("RPGBandit-v0", "sb3_rpg.envs.bandit:BanditEnv", max_episode_steps=1)
_register("RPGMaze-v0", "sb3_rpg.envs.maze:MazeEnv", max_episode_steps=50)
_register("RPGMazeSparse-v0", "sb3_rpg.envs.maze:MazeEnv", max_episode_steps=50, reward="sparse")
_register("RPGPointPush-v0", "sb3_rpg.envs.push:PushEnv", max_episode_steps=100)
