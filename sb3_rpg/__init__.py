"""Reparameterized Policy Gradient for Stable-Baselines3."""

import sb3_rpg.envs  # noqa: F401  registers the environments
from sb3_rpg import presets
from sb3_rpg.callbacks import WorldModelCallback
from sb3_rpg.checkpoints import RunCheckpointCallback, latest_checkpoint, load_checkpoint
from sb3_rpg.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_rpg.rpg import RPG
from sb3_rpg.schedules import Ramp
from sb3_rpg.version import __version__

__all__ = [
    "RPG",
    "CnnPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "Ramp",
    "RunCheckpointCallback",
    "WorldModelCallback",
    "__version__",
    "latest_checkpoint",
    "load_checkpoint",
    "presets",
]
