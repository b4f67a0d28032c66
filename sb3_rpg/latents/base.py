"""What every latent space answers, and checks of its arguments."""

import math
from abc import ABC, abstractmethod
from numbers import Integral, Real

import torch as th

LOG_2PI = math.log(2 * math.pi)
#: alpha_z, a number or a 0-d tensor
Temperature = float | th.Tensor


def positive_int(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}; use latent='none' for a policy without z")
    return int(value)


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def positive_float(name: str, value: float) -> float:
    if not (is_number(value) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be a positive number, got {value!r}")
    return float(value)


class LatentSpace(ABC):
    """
    Interface of all latent spaces.

    ``params`` below are the raw outputs (batch, ``policy_dim``) of the network of pi(z|s1), or None where ``policy_dim``
    is 0 (fixed prior); ``outputs`` are the raw outputs (..., ``posterior_dim``) of the network of p_phi(z|s,a).
    """

    name: str
    #: width of z
    dim: int
    #: width of the network of pi(z|s1); 0 where the prior is fixed
    policy_dim: int = 0
    #: width of the network of p_phi(z|s,a)
    posterior_dim: int
    #: number of leading entries of ``params`` that are value estimates q(s1, c) of the categories
    n_categories: int = 0

    @abstractmethod
    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        """
        Draw z from pi(z|s1), reparameterised where z is continuous and learned.

        :param n: batch size
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z, for spaces with categories: pi(c|s1) = softmax(q(s1, .) / alpha_z)
        :param device: where to draw when there are no ``params``
        :return: (n, dim), float32
        """

    @abstractmethod
    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        """
        :param z: (n, dim)
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z
        :return: log pi(z|s1), (n,)
        """

    @abstractmethod
    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        """
        :return: entropy of pi(z|s1) in nats, (n,); differential where z is continuous
        """

    @abstractmethod
    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        """
        :param outputs: (..., posterior_dim)
        :param z: (..., dim)
        :return: log p_phi(z|s,a), (...)
        """

    def posterior_baseline(self, z: th.Tensor) -> th.Tensor:
        """
        log p_phi(z|s,a) of a posterior that knows nothing, whose outputs are 0, where z is drawn from a fixed prior.

        What is learned by choice of z must not have it taken off: a learned Gaussian would grow without bound, and values
        above 0 would have pi(z|s1) settle on the category that it happens to draw first.

        :param z: (..., dim)
        :return: (...); 0 for a learned pi(z|s1)
        """
        if self.policy_dim > 0:
            return z.new_zeros(z.shape[:-1], dtype=th.float32)
        return self.posterior_log_prob(z.new_zeros(*z.shape[:-1], self.posterior_dim, dtype=th.float32), z)

    @abstractmethod
    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        """
        How well (s, a) tells z, from 0 (as good as the prior) to 1 (perfectly): the share of right categories, the share
        of z's variance that is explained, or the cosine on the sphere.

        :return: 0-d tensor
        """

    @property
    def best_posterior_log_prob(self) -> float:
        """log p_phi(z|s,a) of a posterior that knows z, the most that the beta term can pay; NaN: not known."""
        return math.nan

    @property
    def default_target_entropy(self) -> float:
        """
        Entropy in nats that a learned pi(z|s1) is held at where nothing else is asked for: that of N(0, 1), and nine tenths
        of the most that categories can have. NaN: not known, the prior is fixed.
        """
        return math.nan

    @property
    def entropy_range(self) -> tuple[float, float]:
        """Least and most entropy in nats that a learned pi(z|s1) can have; unbounded where not known."""
        return -math.inf, math.inf

    @abstractmethod
    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        """
        :param n: batch size
        :param params: (n, policy_dim) or None
        :param device: where to make it when there are no ``params``
        :return: the most probable z of pi(z|s1), (n, dim); where all are as probable, always the same one
        """

    @abstractmethod
    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        """
        Alternatives to choose the best z from, a fixed set for a fixed ``params``.

        :param n: batch size
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z
        :param noise: (n_candidates, dim) standard Normal numbers, the same at every call
        :return: (n_alternatives, n, dim)
        """
