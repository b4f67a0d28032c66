"""
RL Zoo's side of the project: registration, hyperparameters and their search spaces.

This is the only folder that imports ``rl_zoo3``, and it does so inside functions: without RL Zoo the rest works.
"""

from sb3_rpg.zoo.config import default_config, hyperparams_path
from sb3_rpg.zoo.registration import register

__all__ = ["default_config", "hyperparams_path", "register"]
