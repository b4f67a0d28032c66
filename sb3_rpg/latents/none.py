"""No z."""

import torch as th

from sb3_rpg.latents.base import LatentSpace, Temperature


class NoLatent(LatentSpace):
    """No z: with it RPG is MBSAC, the paper's model-based baseline. All terms in z vanish."""

    name = "none"
    dim = posterior_dim = policy_dim = 0

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.zeros(n, 0, device=device)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        return th.zeros(z.shape[:-1], device=z.device)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.zeros(n, device=device)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return th.zeros(z.shape[:-1], device=z.device)

    @property
    def best_posterior_log_prob(self) -> float:
        return 0.0

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return th.zeros((), device=z.device)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.zeros(n, 0, device=device)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return th.zeros(1, n, 0, device=noise.device)
