"""RPG improves on a task that takes seconds: the smoke test of learning in the default run."""

import gymnasium as gym
import numpy as np
from scipy.stats import permutation_test

from sb3_rpg import RPG


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """A point in [-1, 1] moves by its action to the target that the observation shows; 10 steps."""

    observation_space = gym.spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        self.position, self.target = self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        self.position = float(np.clip(self.position + 0.3 * action[0], -1, 1))
        self.steps += 1
        return self._obs(), -abs(self.position - self.target), False, self.steps == 10, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.position, self.target], dtype=np.float32)


def episode_returns(model: RPG, n_episodes: int) -> list[float]:
    env, returns = Reach(), []
    for episode in range(n_episodes):
        obs, _ = env.reset(seed=1000 + episode)
        state, total, done = None, 0.0, False
        while not done:
            action, state = model.predict(obs, state, deterministic=True)
            obs, reward, _, done, _ = env.step(action)
            total += float(reward)
        returns.append(total)
    return returns


def test_returns_improve() -> None:
    model = RPG(
        "MlpPolicy",
        Reach(),
        seed=0,
        learning_starts=200,
        train_freq=2,
        batch_size=64,
        learning_rate=1e-3,
        intrinsic_reward=None,
        policy_kwargs={"net_arch": [64, 64], "hidden_dim": 64, "state_dim": 16},
    )
    before = episode_returns(model, 30)
    model.learn(1500)
    after = episode_returns(model, 30)
    result = permutation_test(
        (after, before), lambda x, y: np.mean(x) - np.mean(y), alternative="greater", rng=np.random.default_rng(0)
    )
    assert result.pvalue < 0.001, (np.mean(before), np.mean(after))
    # Going straight to the target loses about 1 on average, not going at all about 7
    assert np.mean(after) > -2.5, np.mean(after)
