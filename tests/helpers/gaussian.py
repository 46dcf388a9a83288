"""Gaussian-process regression by dense matrices: what every fast path is held against."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dipkernels.gp import LagKernel
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.tasks import Task


def positions(size: tuple[int, ...]) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in size]).reshape(
        math.prod(size), len(size)
    )


def covariance(kernel: LagKernel | StationaryKernel, size: tuple[int, ...]) -> Tensor:
    """Of one channel; of a StationaryKernel the window at the origin of its torus."""
    if isinstance(kernel, LagKernel):
        where = positions(size)
        difference = where[:, None] - where[None]
        return kernel(difference.square().sum(dim=-1).sqrt())
    inside = torch.zeros(kernel.size, dtype=torch.bool)
    inside[tuple(slice(n) for n in size)] = True
    index = inside.flatten()
    return kernel.to_dense()[index][:, index]


@dataclass
class Dense:
    """All of a Gaussian process on one task, by matrices."""

    task: Task
    prior: Tensor  # of all channels
    mean: float
    noise: float  # variance

    def __post_init__(self) -> None:
        n = math.prod(self.task.shape)
        unit = torch.eye(n, dtype=torch.float64).reshape(n, *self.task.shape)
        counted = self.task.counted.flatten()
        self.operator = self.task.operator.forward(unit).reshape(n, -1).T[counted]
        self.residual = self.task.measurement.flatten()[
            counted
        ].double() - self.mean * self.operator.sum(dim=1)
        self.measured = self.operator @ self.prior @ self.operator.T
        self.noisy = self.measured + self.noise * torch.eye(len(self.measured)).double()

    @cached_property
    def gain(self) -> Tensor:
        return torch.linalg.solve(self.noisy, self.operator @ self.prior).T

    @property
    def posterior_mean(self) -> Tensor:
        return (self.mean + self.gain @ self.residual).reshape(self.task.shape)

    @property
    def posterior_covariance(self) -> Tensor:
        return self.prior - self.gain @ self.operator @ self.prior

    @property
    def log_evidence(self) -> float:
        normal = torch.distributions.MultivariateNormal(
            torch.zeros(len(self.noisy), dtype=torch.float64), self.noisy
        )
        return float(normal.log_prob(self.residual))


def dense(
    kernel: LagKernel | StationaryKernel, task: Task, mean: float, noise_sigma: float
) -> Dense:
    task = task.to(dtype=torch.float64)
    one = covariance(kernel, task.shape[1:])
    prior = torch.block_diag(*[one] * task.shape[0])
    return Dense(task, prior, mean, noise_sigma**2)
