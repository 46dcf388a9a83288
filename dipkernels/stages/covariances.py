"""The stage of a covariance: what a network makes before it learns, by Monte Carlo."""

from typing import Any

import xarray as xr

from dipkernels.kernels import covariance, radial_average
from dipkernels.priors.codes import DRAWN
from dipkernels.spectra import prior_spectrum
from dipkernels.stages.stage import Several, Stage, Value
from dipkernels.stages.subject import Subject

CODES = ("fixed", *DRAWN)  # one for all draws, or drawn for each
SHOWN = 6  # draws that are kept to be looked at


def _covariance(
    subject: Subject,
    *,
    samples: Several = 256,
    codes: str = "fixed",
    centre: str = "none",
    max_lag: int | None = None,
) -> xr.Dataset:
    prior, seed = subject.prior, subject.seed
    drawn: dict[str, Any] = {"seed": seed, "codes": codes, "progress": subject.progress}
    found = covariance(prior, samples, centre=centre, max_lag=max_lag, **drawn)
    power = prior_spectrum(prior, samples, centre=centre != "none", **drawn)
    found = found.assign(
        power=power.power,
        power_standard_error=power.standard_error,
        draws=(("draw", *found["mean"].dims), prior.sample(SHOWN, seed).cpu().numpy()),
    )
    radial = radial_average(found)
    names = {name: f"radial_{name}" for name in ("kernel", "kernel_standard_error")}
    return found.merge(radial[list(names)].rename(names), combine_attrs="override")


def _row(found: xr.Dataset) -> dict[str, Value]:
    names = ("variance_spread", "excess_kurtosis", "excess_kurtosis_standard_error")
    values: dict[str, Value] = {key: float(found.attrs[key]) for key in names}
    values |= {
        "parameters": int(found.parameters),
        "samples": int(found.samples),
        "variance": float(found.second_moment.mean()),
    }
    tests = zip(found.test.values, found.p_value.values, strict=True)
    return values | {f"p {test}": float(p) for test, p in tests}


STAGE = Stage("covariance", _covariance, row=_row)
