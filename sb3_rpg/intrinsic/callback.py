"""Trains the intrinsic reward of a replay buffer while an SB3 algorithm learns."""

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rpg.intrinsic.replay import IntrinsicRewardMixin


class IntrinsicRewardCallback(BaseCallback):
    """
    Trains the intrinsic reward at the end of each rollout, just before the algorithm's own updates.

    By default once for each step of the vector environment (Section 4.3.2), whatever ``train_freq``, ``gradient_steps`` and
    ``learning_starts`` say: the agent then starts to learn with a bonus whose statistics are settled. It begins
    when the buffer holds ``batch_size`` transitions (a smaller buffer or ``memory_size``: when that is full), as fewer would
    only be learned by heart.

    Logs ``intrinsic/loss``, ``intrinsic/error_mean``, ``intrinsic/error_std`` and ``intrinsic/bonus_mean`` of the training
    batches, and ``rollout/extrinsic_rew_mean`` and ``rollout/intrinsic_rew_mean``, the rewards per transition of the newly
    collected steps; all are means since the last log. SB3's ``rollout/ep_rew_mean`` stays purely extrinsic.

    The callback holds no state of its own: the model, its statistics and its optimizer are saved with the replay buffer.

    :param updates_per_rollout: Updates at the end of each rollout; ``None`` for one per step of the vector environment.
    :param batch_size: Transitions of an update, uniform over the whole buffer.
    :param memory_size: Train on the most recent transitions only. This makes the model forget and is meant for ablations.
    :param verbose: Verbosity level, as for every SB3 callback.
    :raises ValueError: if a number is not positive; at the start of training, if the model's replay buffer has no intrinsic
        reward.
    """

    def __init__(
        self,
        updates_per_rollout: int | None = None,
        batch_size: int = 512,
        memory_size: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        for name, value in (
            ("updates_per_rollout", updates_per_rollout),
            ("batch_size", batch_size),
            ("memory_size", memory_size),
        ):
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive, not {value}.")
        self.updates_per_rollout = updates_per_rollout
        self.batch_size = batch_size
        self.memory_size = memory_size
        self._calls_before_rollout = 0

    def _init_callback(self) -> None:
        replay_buffer = getattr(self.model, "replay_buffer", None)
        if not isinstance(replay_buffer, IntrinsicRewardMixin):
            raise ValueError(
                "IntrinsicRewardCallback trains the intrinsic reward of a replay buffer, but the replay buffer of this "
                f"{type(self.model).__name__} is {type(replay_buffer).__name__}. Create the model with "
                "`replay_buffer_class=IntrinsicReplayBuffer` (or `IntrinsicDictReplayBuffer` for Dict observations). "
                "RPG trains its intrinsic reward by itself and needs no such callback."
            )

    @property
    def replay_buffer(self) -> IntrinsicRewardMixin:
        """The model's replay buffer: read anew each time, since it is replaced by ``load_replay_buffer``."""
        return self.model.replay_buffer  # type: ignore[attr-defined]

    def _on_rollout_start(self) -> None:
        self._calls_before_rollout = self.n_calls

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        replay_buffer = self.replay_buffer
        n_steps = self.n_calls - self._calls_before_rollout
        capacity = replay_buffer.buffer_size * replay_buffer.n_envs
        enough = min(self.batch_size, capacity, capacity if self.memory_size is None else self.memory_size)
        if replay_buffer.intrinsic_reward is not None and replay_buffer.size() * replay_buffer.n_envs >= enough:
            n_updates = n_steps if self.updates_per_rollout is None else self.updates_per_rollout
            updates = [replay_buffer.update_intrinsic_reward(self.batch_size, self.memory_size) for _ in range(n_updates)]
            names = list(updates[0])
            # Read all at once, since each reading waits for an accelerator
            means = th.stack([th.stack([metrics[name] for metrics in updates]).mean() for name in names]).tolist()
            for name, mean in zip(names, means, strict=True):
                self.logger.record_mean(f"intrinsic/{name}", mean)
        extrinsic, intrinsic = replay_buffer.newest_rewards(n_steps)
        self.logger.record_mean("rollout/extrinsic_rew_mean", extrinsic)
        self.logger.record_mean("rollout/intrinsic_rew_mean", intrinsic)
