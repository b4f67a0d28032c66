"""z on the unit hypersphere."""

import math

import torch as th
from torch.nn import functional as F

from sb3_rpg.latents.base import LOG_2PI, LatentSpace, Temperature, positive_float, positive_int


class HypersphereLatent(LatentSpace):
    """
    z uniform on the unit hypersphere in ``dim`` dimensions; p_phi is a von Mises-Fisher distribution of fixed
    concentration around the normalised output. Bounded, without the Gaussian's empty centre: not in the paper.

    :param dim: number of dimensions of the space that the sphere lies in, at least 2
    :param concentration: kappa of the von Mises-Fisher distribution; 6.25 has, near its centre, the spread of a
        Normal of std 0.4, the paper's posterior
    :raises ValueError: if ``dim`` is below 2 or ``concentration`` is not positive
    """

    def __init__(self, dim: int = 12, concentration: float = 6.25):
        self.name = "hypersphere"
        self.dim = self.posterior_dim = positive_int("latent_dim", dim)
        if self.dim < 2:
            raise ValueError(f"`latent_dim` must be at least 2 on the hypersphere, got {dim!r}; use latent='gaussian' for 1")
        self.concentration = positive_float("concentration", concentration)
        self._log_area = math.log(2.0) + 0.5 * self.dim * math.log(math.pi) - math.lgamma(0.5 * self.dim)
        self._log_normalizer = von_mises_fisher_log_normalizer(self.dim, self.concentration)

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return F.normalize(th.randn(n, self.dim, device=device), dim=-1)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        return th.full(z.shape[:-1], -self._log_area, device=z.device)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.full((n,), self._log_area, device=device)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        cosine = (F.normalize(outputs, dim=-1, eps=1e-6) * z).sum(dim=-1)
        return self.concentration * cosine + self._log_normalizer

    @property
    def best_posterior_log_prob(self) -> float:
        return self.concentration + self._log_normalizer

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return F.cosine_similarity(outputs, z, dim=-1, eps=1e-6).mean().clamp_min(0.0)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.eye(1, self.dim, device=device).expand(n, -1)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return F.normalize(noise, dim=-1).unsqueeze(1).expand(-1, n, -1)


def von_mises_fisher_log_normalizer(dim: int, concentration: float) -> float:
    """
    log C_d(kappa) of the von Mises-Fisher density C_d(kappa) exp(kappa mu.z) on the unit sphere in R^d.

    The modified Bessel function is summed as a series in log space, exact to double precision for any ``dim``.

    :param dim: d, at least 2
    :param concentration: kappa, positive
    :return: log C_d(kappa)
    """
    order = 0.5 * dim - 1.0
    log_half = math.log(0.5 * concentration)
    n_terms = 32 + int(2 * concentration)
    terms = [(2 * m + order) * log_half - math.lgamma(m + 1) - math.lgamma(m + order + 1) for m in range(n_terms)]
    largest = max(terms)
    log_bessel = largest + math.log(sum(math.exp(term - largest) for term in terms))
    return order * math.log(concentration) - 0.5 * dim * LOG_2PI - log_bessel
