"""Reparameterized Policy Gradient for Stable-Baselines3."""

from pathlib import Path

import sb3_rpg.envs  # noqa: F401  registers the environments
from sb3_rpg.callbacks import WorldModelCallback
from sb3_rpg.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_rpg.rpg import RPG
from sb3_rpg.schedules import Ramp

__version__ = Path(__file__).with_name("version.txt").read_text().strip()

__all__ = ["RPG", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "Ramp", "WorldModelCallback"]
