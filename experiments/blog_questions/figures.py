"""Figures of the blog's questions."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dipkernels.plotting import save_figure
from dipkernels.plotting.style import PALETTE, panels, shared_legend
from experiments.blog_questions.tables import Results, fit_table
from experiments.blog_questions.variants import QUESTIONS, VARIANTS

LEAST = -6.5  # dB: fits that die lie outside
FOLLOWED = ("skip", "decoder", "deep-decoder", "conv", "mixer", "plain")


def draw(results: Results, output: Path) -> None:
    """Draw all figures.

    Parameters
    ----------
    results : Results
        Of the run.
    output : Path
        Folder.
    """
    save_figure(plot_gains(results), output / "gains.png")
    save_figure(plot_curves(results), output / "curves.png")
    save_figure(plot_held_out(results), output / "held_out.png")
    save_figure(plot_first(results), output / "first.png")


def plot_gains(results: Results) -> Figure:
    """Draw every question's differences: each fit a dot, the kernel's prediction a diamond.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    Figure
        One row a comparison.
    """
    fits = fit_table(results)
    shown = [
        (question, name, against)
        for question, (_, pairs) in QUESTIONS.items()
        for name, against in pairs
        if {name, against} <= set(fits.variant)
    ]
    figure, (axes,) = panels(1, width=8.5, height=0.28 * len(shown) + 1)
    marks = ("o", "s", "^", "D", "v")
    images = sorted(fits.image.unique())
    ticks = []
    for row, (question, name, against) in enumerate(shown):
        one, other = fits[fits.variant == name], fits[fits.variant == against]
        both = one.merge(other, on=["image", "seed"], suffixes=("", " other"))
        gain = both.peak - both["peak other"]
        colour = PALETTE[list(QUESTIONS).index(question) % len(PALETTE)]
        for image, mark in zip(images, marks, strict=False):
            values = gain[both.image == image]
            label = f"measured, {image}" if row == 0 else None
            axes.plot(
                values, np.full(len(values), row), mark, color=colour, ms=4, alpha=0.7, label=label
            )
        axes.plot([gain.mean()] * 2, [row - 0.3, row + 0.3], color=colour, lw=2)
        foreseen = one.predicted.mean() - other.predicted.mean()
        if np.isfinite(foreseen):
            label = "predicted by the kernel at initialisation" if row == 0 else None
            axes.plot(foreseen, row, "x", color="black", ms=6, label=label)
        ticks.append(f"{VARIANTS[name].title}  vs.  {VARIANTS[against].title}")
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlim(left=max(axes.get_xlim()[0], LEAST))
    axes.set_yticks(range(len(shown)), ticks, fontsize=7.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("difference of peak PSNR, dB (bar: mean)")
    shared_legend(figure, axes)
    return figure


def plot_curves(results: Results) -> Figure:
    """Draw the PSNR to the clean image against the iteration, a panel a question.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    Figure
        The first image alone, every seed a line.
    """
    known = {name for name, _, _ in results.fits}
    groups: dict[str, list[str]] = {}
    for question, (text, pairs) in QUESTIONS.items():
        names = list(dict.fromkeys(n for pair in pairs for n in reversed(pair) if n in known))
        if len(names) > 1 and question != "held out":
            groups[text] = names
    figure, axes = panels(len(groups), columns=3, width=3.6, height=2.7)
    for panel, (text, names) in zip(axes, groups.items(), strict=True):
        for index, name in enumerate(names):
            mine = [found for key, found in results.fits.items() if key[0] == name]
            image = mine[0].attrs["image"]
            for number, found in enumerate(f for f in mine if f.attrs["image"] == image):
                curve = found.psnr_clean.isel(part=0)
                panel.plot(
                    curve.iteration.values[1:],
                    curve.values[1:],
                    color=PALETTE[index],
                    lw=1,
                    label=VARIANTS[name].title if number == 0 else None,
                )
        noisy = results.fits[next(iter(results.fits))].attrs["noisy_psnr"]
        panel.axhline(noisy, color="black", lw=0.8, ls=":", label="noisy image")
        panel.set_xscale("log")
        panel.set_ylim(bottom=14)
        panel.set_xlabel("iteration")
        panel.set_ylabel("PSNR to clean, dB")
        panel.set_title(text, fontsize=8.5)
        panel.legend(fontsize=5.5, loc="lower right")
    return figure


def plot_held_out(results: Results) -> Figure:
    """Draw held-out against trained pixels along the fits.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    Figure
        One panel an image.
    """
    held = {key: found for key, found in results.fits.items() if "psnr_held_out" in found}
    images = list(dict.fromkeys(image for _, image, _ in held))
    figure, axes = panels(max(len(images), 1), columns=2, width=4.2, height=3.1)
    names = list(dict.fromkeys(name for name, _, _ in held))
    for panel, image in zip(axes, images, strict=False):
        for name, where, seed in held:
            if where != image:
                continue
            found = held[name, where, seed]
            colour = PALETTE[names.index(name)]
            trained, unseen = found.psnr_noisy.values, found.psnr_held_out.values
            label = VARIANTS[name].title if seed == 0 else None
            panel.plot(trained, unseen, color=colour, lw=1, label=label)
            best = int(found.psnr_clean.isel(part=0).values.argmax())
            panel.plot(trained[best], unseen[best], "*", color=colour, ms=9, mec="black", mew=0.5)
            chosen = int(found.chosen_iteration.sel(rule="held-out"))
            taken = int(np.searchsorted(found.iteration.values, chosen))
            panel.plot(trained[taken], unseen[taken], "o", color=colour, ms=4, mec="black", mew=0.5)
        panel.set_title(image)
        panel.set_ylim(bottom=max(panel.get_ylim()[0], 12))
        panel.set_xlim(left=12)
        panel.set_xlabel("PSNR to the trained pixels, dB")
        panel.set_ylabel("PSNR to the held-out pixels, dB")
    shared_legend(figure, axes[0])
    return figure


def plot_first(results: Results) -> Figure:
    """Draw how near outputs are to sparse approximations of the clean image, along the fit.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    Figure
        One panel a network, the first image and seed.
    """
    first = {}
    for (name, _, _), found in results.fits.items():
        if name in FOLLOWED and "distance" in found:
            first.setdefault(name, found)
    figure, axes = panels(len(first), columns=3, width=3.4, height=2.6)
    titles = {
        "low-pass": "lowest frequencies",
        "fourier": "largest Fourier coefficients",
        "wavelet": "largest wavelet coefficients",
    }
    for panel, (name, found) in zip(axes, first.items(), strict=True):
        for index, family in enumerate(found.family.values):
            near = -20 * np.log10(found.distance.sel(family=family))
            panel.plot(found.snapshot, near, color=PALETTE[index], label=titles[family])
        whole = found.psnr_area.sel(area="whole")
        panel.plot(found.snapshot, whole, color="black", ls=":", label="clean image itself")
        panel.axvline(int(found.snapshot[int(whole.values.argmax())]), color="grey", lw=0.8)
        panel.set_xscale("log")
        panel.set_xlabel("iteration (grey line: peak)")
        panel.set_ylabel("PSNR to the nearest one, dB")
        panel.set_title(VARIANTS[name].title)
    shared_legend(figure, axes[0])
    return figure
