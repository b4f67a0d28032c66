"""The world-model learner, attached to SB3's training loop as a callback."""

import time
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


class WorldModelCallback(BaseCallback):
    """
    Trains the intrinsic reward and the world model once a rollout has been collected, just before SB3 calls
    ``RPG.train``, which improves the policy with them.

    RPG adds one to every ``learn()`` by itself. To replace it, pass an instance of a subclass among your callbacks: RPG then
    adds none. It holds nothing that outlives a rollout: all that is learned belongs to the model and is saved with it.
    """

    model: "RPG"

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._rollout_start = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.model.metrics.add_time("rollout", time.perf_counter() - self._rollout_start)
        gradient_steps = self.gradient_steps()
        if gradient_steps > 0 and self.model.num_timesteps > self.model.learning_starts:
            self.train_world_model(gradient_steps)

    def gradient_steps(self) -> int:
        """
        :return: how many updates the rollout that has just ended calls for, by SB3's rule: -1 means one for each
            environment step
        """
        if self.model.gradient_steps >= 0:
            return self.model.gradient_steps
        return int(self.locals["num_collected_steps"]) * self.model.n_envs

    def train_world_model(self, gradient_steps: int) -> None:
        """
        :param gradient_steps: number of updates
        """
        self.model.train_world_model(gradient_steps)
