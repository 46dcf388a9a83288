"""Chains of a stated target, started on both sides of the peak of a fit."""

from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from dipkernels import fit
from dipkernels.base.files import replacing
from dipkernels.fitting import load_parameters
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.sampling import ChainSettings, WeightPosterior, diagnose, sample, verdict
from dipkernels.sampling.chains import Chains, chain_seeds, run_chains
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.settings import record_of, resolved
from dipkernels.tasks import Task
from experiments.sgld_verdict.arms import LEARNING_RATE, NoisyLangevin

SGLD_SHARE, SGHMC_SHARE = 0.5, 0.1  # of the limit of stability
FRICTION = 0.1  # of SGHMC
STARTS = ("stopped", "overfitted")


@dataclass(frozen=True)
class Sampler:
    """How to sample: ``sgld`` or ``sghmc``, temperature, noise on the code, from where."""

    method: str
    temperature: float
    input_noise: bool
    fitted: bool

    @classmethod
    def parse(cls, name: str) -> "Sampler":
        """Read ``METHOD TEMPERATURE [input] [cold]``; a cold start is the initialisation."""
        method, temperature, *more = name.split()
        if not set(more) <= {"input", "cold"}:
            raise ValueError(f"unknown options in the sampler '{name}': {more}")
        return cls(method, float(temperature), "input" in more, "cold" not in more)


def starts(
    prior: ImagePrior, task: Task, seeds: int, iterations: tuple[int, int], path: Path
) -> Parameters:
    """Fit each seed to its peak and well past it; stopped ones first, ``(2 seeds, ...)``.

    Only the parameters are kept, in ``path``: a checkpoint has optimisers and images, too.
    """
    if path.exists():
        return load_file(path)
    found, checkpoints = [], []
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, count in zip(STARTS, iterations, strict=True):
        file = path.with_name(f"{path.stem}-{name}.safetensors")
        fit(
            prior,
            task,
            learning_rate=LEARNING_RATE,
            iterations=count,
            seed=range(seeds),
            checkpoint=file,
        )
        kept = load_parameters(file)  # of one run without the leading axis
        found.append({k: v if seeds > 1 else v[None] for k, v in kept.items()})
        checkpoints.append(file)
    both = {key: torch.cat([each[key] for each in found]) for key in found[0]}
    with replacing(path) as partial:
        save_file({key: value.contiguous() for key, value in both.items()}, partial)
    for file in checkpoints:
        file.unlink()
    return both


def run_sampler(
    prior: ImagePrior, task: Task, name: str, begin: Parameters, iterations: int, pixels: int
) -> xr.Dataset:
    """Run one chain from each start; those that diverge end, and are NaN."""
    wanted = Sampler.parse(name)
    posterior = WeightPosterior(prior, task, temperature=wanted.temperature)
    begin = {key: value.to(prior.device) for key, value in begin.items()}
    chains = len(next(iter(begin.values())))
    if not wanted.fitted:
        begin = prior.init_many(list(range(chains)))
    share = SGLD_SHARE if wanted.method == "sgld" else SGHMC_SHARE
    each = [{key: value[i] for key, value in begin.items()} for i in range(chains)]
    step = min(posterior.stable_step(parameters, share=share) for parameters in each)
    friction = FRICTION if wanted.method == "sghmc" else None
    settings = ChainSettings(
        wanted.method, iterations, step_size=step, friction=friction, chains=chains
    )
    if wanted.input_noise:
        result = _with_input_noise(posterior, settings, begin)
    else:
        result = sample(posterior, settings, start=begin)
    kept = result[["psnr_clean", "psnr_mean", "loss", "ended_at"]]
    kept = kept.rename(psnr_clean="iterate", psnr_mean="average")
    noise = posterior.noise_sigma**2
    return kept.assign_attrs(step_size=step, noise_variance=noise, **_diagnosed(result, pixels))


def _with_input_noise(
    posterior: WeightPosterior, settings: ChainSettings, begin: Parameters
) -> xr.Dataset:
    prior, task = posterior.prior, posterior.task
    seeds = chain_seeds(settings.chains, settings.seed)
    settings = resolved(settings, settings.step_size)
    chains = Chains(NoisyLangevin(posterior, settings, begin, seeds), Collector(task, settings))
    return run_chains(chains, prior, {**posterior.record(), **record_of(settings)})


# Over all chains, and over those of each start: the former says whether the starts are forgotten.
def _diagnosed(result: xr.Dataset, pixels: int) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    half = result.sizes["chain"] // 2
    groups = {"all": slice(None), "stopped": slice(0, half), "overfitted": slice(half, None)}
    for name, chosen in groups.items():
        part = result.isel(chain=chosen)
        if part.sizes["chain"] < 2 or bool((part["ended_at"] >= 0).any()):
            continue
        table = diagnose(part, pixels=pixels)
        found[f"rhat_{name}"] = float(table["rhat"].max())
        found[f"rhat_median_{name}"] = float(table["rhat"].median())
        found[f"rhat_psnr_{name}"] = float(table["summary_rhat"].sel(summary="psnr"))
        found[f"ess_{name}"] = float(table["ess_bulk"].median())
        found[f"converged_{name}"] = str(verdict(table).converged)
    return found
