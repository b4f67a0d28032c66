"""z of Normal numbers."""

import math

import torch as th

from sb3_rpg.latents.base import LOG_2PI, LatentSpace, Temperature, positive_float, positive_int

#: of a learned pi(z|s1); a network whose output is 0 gives 0 between them
LOG_STD_RANGE = (-3.0, 1.0)


class GaussianLatent(LatentSpace):
    """
    z ~ N(0, 1), fixed (the paper's choice for sparse rewards, Appendix A), or a learned diagonal Normal pi(z|s1).

    p_phi(z|s,a) is a Normal with a fixed std; its log-probability is summed over dimensions.

    :param dim: width of z
    :param learned: learn mean and std of pi(z|s1)
    :param posterior_std: standard deviation of p_phi (the paper's code: 0.38 to 0.40)
    :raises ValueError: if ``dim`` is below 1 or ``posterior_std`` is not positive
    """

    def __init__(self, dim: int = 12, learned: bool = False, posterior_std: float = 0.4):
        self.name = "learned_gaussian" if learned else "gaussian"
        self.dim = self.posterior_dim = positive_int("latent_dim", dim)
        self.learned = learned
        self.policy_dim = 2 * self.dim if learned else 0
        self.posterior_std = positive_float("posterior_std", posterior_std)

    def _mean_log_std(self, params: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        mean, log_std = params.chunk(2, dim=-1)
        # Bounded, so that a few bad gradients can neither collapse pi(z|s1) nor leave what the networks have seen
        least, most = LOG_STD_RANGE
        return mean, least + (most - least) * th.sigmoid(log_std + math.log(-least / most))

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        if params is None:
            return th.randn(n, self.dim, device=device)
        mean, log_std = self._mean_log_std(params)
        return mean + log_std.exp() * th.randn_like(mean)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        if params is None:
            return (-0.5 * z.square() - 0.5 * LOG_2PI).sum(dim=-1)
        mean, log_std = self._mean_log_std(params)
        return (-0.5 * ((z - mean) * (-log_std).exp()).square() - log_std - 0.5 * LOG_2PI).sum(dim=-1)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        constant = 0.5 * self.dim * (1.0 + LOG_2PI)
        if params is None:
            return th.full((n,), constant, device=device)
        return self._mean_log_std(params)[1].sum(dim=-1) + constant

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        error = (z - outputs) / self.posterior_std
        return -0.5 * error.square().sum(dim=-1) + self.best_posterior_log_prob

    @property
    def best_posterior_log_prob(self) -> float:
        return -self.dim * (math.log(self.posterior_std) + 0.5 * LOG_2PI)

    @property
    def default_target_entropy(self) -> float:
        return 0.5 * self.dim * (1.0 + LOG_2PI)

    @property
    def entropy_range(self) -> tuple[float, float]:
        constant = self.default_target_entropy
        if not self.learned:
            return constant, constant
        return constant + self.dim * LOG_STD_RANGE[0], constant + self.dim * LOG_STD_RANGE[1]

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        variance = z.flatten(0, -2).var(dim=0, correction=0).mean().clamp_min(1e-8)
        return (1.0 - (z - outputs).square().mean() / variance).clamp_min(0.0)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.zeros(n, self.dim, device=device) if params is None else self._mean_log_std(params)[0]

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        if params is None:
            return noise.unsqueeze(1).expand(-1, n, -1)
        mean, log_std = self._mean_log_std(params)
        return mean + log_std.exp() * noise.unsqueeze(1)
