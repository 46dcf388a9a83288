"""The gallery: cards of many priors side by side in one self-contained HTML file."""

from collections.abc import Mapping

from dipkernels.provenance import fingerprint as sha256
from dipkernels.provenance import provenance
from dipkernels.tasks import Task
from dipkernels.theory import FingerprintEffort


def gallery_settings(
    task: Task, effort: FingerprintEffort, *, image: str, seed: int = 0, device: str = "cpu"
) -> dict[str, object]:
    """Describe what the cards of a folder have in common, to tell whether another may join them.

    Parameters
    ----------
    task : Task
        What is fitted.
    effort : FingerprintEffort
        How much is spent on each.
    image : str
        Its name, for titles.
    seed : int
        Of initialisation and probes.
    device : str
        That computes.

    Returns
    -------
    dict
        Fit for `dipkernels.runs.RunFolder.open`. The priors aren't in it: cards are added to a
        folder by another call.
    """
    return {
        "command": "fingerprint",
        "image": image,
        "shape": list(task.shape),
        "task": task.name,
        "noise_sigma": task.noise_sigma,
        "measurement_sha256": sha256(task.measurement),
        "effort": effort.record(),
        "seed": seed,
        "device": device,
        "version": provenance("cpu")["version_dipkernels"],
    }


Settings = Mapping[str, object]
