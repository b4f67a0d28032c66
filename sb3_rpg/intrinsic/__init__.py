"""Intrinsic rewards for RPG and for any off-policy algorithm of Stable-Baselines3."""

from sb3_rpg.intrinsic.base import IntrinsicReward
from sb3_rpg.intrinsic.callback import IntrinsicRewardCallback
from sb3_rpg.intrinsic.disagreement import Disagreement
from sb3_rpg.intrinsic.dynamics import DynamicsReward
from sb3_rpg.intrinsic.features import ObservationFeatures, is_image, positional_encoding
from sb3_rpg.intrinsic.icm import ICM
from sb3_rpg.intrinsic.registry import INTRINSIC_REWARDS, make_intrinsic_reward
from sb3_rpg.intrinsic.replay import IntrinsicDictReplayBuffer, IntrinsicReplayBuffer, transitions_at, uniform_transition_batch
from sb3_rpg.intrinsic.rnd import RND

__all__ = [
    "ICM",
    "INTRINSIC_REWARDS",
    "RND",
    "Disagreement",
    "DynamicsReward",
    "IntrinsicDictReplayBuffer",
    "IntrinsicReplayBuffer",
    "IntrinsicReward",
    "IntrinsicRewardCallback",
    "ObservationFeatures",
    "is_image",
    "make_intrinsic_reward",
    "positional_encoding",
    "transitions_at",
    "uniform_transition_batch",
]
