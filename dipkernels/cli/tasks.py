"""Makes a task from what was typed."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from dipkernels.errors import ImageError, InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.tasks import Task

KINDS = ("denoise", "inpaint", "dejpeg", "super-resolve", "flash")
KINDS_WITH_THEORY = KINDS[:2]
MASKS = ("bernoulli", "region", "text")


@dataclass(frozen=True)
class TaskOptions:
    """What was typed of a task; None or False where nothing was.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    mask : str or None
        A file or one of `MASKS`.
    known : float or None
        Fraction of pixels that a Bernoulli mask keeps.
    noise_sigma : float or None
        Of the noise, in units of the range.
    clip, shared_noise : bool
        Of the noisy image.
    quality, factor : int or None
        Of a JPEG encoder; of super-resolution.
    flash : str or None
        The photograph with flash.
    measured : bool
        The image is what was measured: there's no clean one.
    """

    kind: str = "denoise"
    mask: str | None = None
    known: float | None = None
    noise_sigma: float | None = None
    clip: bool = False
    shared_noise: bool = False
    quality: int | None = None
    factor: int | None = None
    flash: str | None = None
    measured: bool = False

    def make(self, image: str, size: str, seed: int, kinds: tuple[str, ...] = KINDS) -> "Task":
        """Load the image and make the task.

        Parameters
        ----------
        image : str
            A name or a file.
        size : str
            As `dipkernels.images.parse_size` reads it.
        seed : int
            Of noise and masks.
        kinds : tuple of str
            Those that the command knows.

        Returns
        -------
        Task
            With everything checked.

        Raises
        ------
        InvalidInputError
            If the kind is unknown, or an option has no effect on it.
        """
        from dipkernels import images, tasks

        self._require_kind(kinds)
        self._require_effects()
        pixels = images.parse_size(size)
        native = images.load(image)
        shown = native if pixels is None else images.resize(native, pixels)
        clean, measured = (None, shown) if self.measured else (shown, None)
        noise_seed = 0 if self.measured else seed  # no noise is drawn for a measurement
        if self.kind == "denoise":
            return tasks.denoise(
                clean,
                measurement=measured,
                noise_sigma=self.noise_sigma,
                clip=self.clip,
                shared_noise=self.shared_noise,
                seed=noise_seed,
            )
        if self.kind == "dejpeg":
            return tasks.dejpeg(clean, measurement=measured, quality=self.quality)
        if self.kind == "super-resolve":
            return tasks.super_resolve(
                clean,
                measurement=measured,
                factor=4 if self.factor is None else self.factor,
                noise_sigma=self.noise_sigma or 0.0,
                seed=noise_seed,
            )
        if self.kind == "flash":
            flash = images.load(str(self.flash), size=(shown.shape[1], shown.shape[2]))
            return tasks.flash_no_flash(flash, shown)
        mask = self._mask(native, shown, seed)
        sigma = self.noise_sigma or 0.0
        return tasks.inpaint(clean, mask, measurement=measured, noise_sigma=sigma, seed=noise_seed)

    def _require_kind(self, kinds: tuple[str, ...]) -> None:
        if self.kind in kinds:
            return
        known = ", ".join(kinds[:-1]) + " or " + kinds[-1]
        hint = "; 'dipkernels fit' does it" if self.kind in KINDS else ""
        raise InvalidInputError(f"--task must be {known} here, got '{self.kind}'{hint}")

    def _require_effects(self) -> None:
        allowed = {
            "denoise": {"noise_sigma", "clip", "shared_noise", "measured"},
            "inpaint": {"noise_sigma", "mask", "known", "measured"},
            "dejpeg": {"quality", "measured"},
            "super-resolve": {"noise_sigma", "factor", "measured"},
            "flash": {"flash"},
        }[self.kind]
        names = {field.name for field in fields(self)} - {"kind"}
        given = [name for name in sorted(names) if getattr(self, name) not in (None, False)]
        for name in given:
            if name not in allowed:
                doing = "when denoising" if self.kind == "denoise" else f"on task '{self.kind}'"
                others = ", ".join("--" + each.replace("_", "-") for each in sorted(allowed))
                raise InvalidInputError(
                    f"--{name.replace('_', '-')} has no effect {doing}: leave it out or choose "
                    f"another --task (this one takes {others})"
                )
        if self.kind == "flash" and self.flash is None:
            raise InvalidInputError(
                "task 'flash' needs --flash, the photograph with flash, beside --image, the one "
                "without"
            )
        if self.known is not None and self.mask not in (None, "bernoulli"):
            raise InvalidInputError(
                f"--known has no effect with --mask {self.mask}: it is the fraction of pixels that "
                "a bernoulli mask keeps"
            )

    def _mask(self, native: "Tensor", shown: "Tensor", seed: int) -> "Tensor":
        from dipkernels import images, tasks

        size = tuple(shown.shape[1:])
        if self.mask in (None, "bernoulli"):
            known = 0.5 if self.known is None else self.known
            return tasks.bernoulli_mask(size, known=known, seed=seed)
        if self.mask == "region":
            return tasks.region_mask(size)
        if self.mask == "text":
            return tasks.text_mask(size, font_size=max(8, min(size) // 16), seed=seed)
        mask = images.load_mask(str(self.mask))
        if mask.shape not in (native.shape[1:], shown.shape[1:]):
            raise ImageError(
                f"the mask {self.mask} has {mask.shape[0]}x{mask.shape[1]} pixels, the image "
                f"{native.shape[1]}x{native.shape[2]}: they must be of one size"
            )
        if mask.shape == shown.shape[1:]:
            return mask
        return images.load_mask(str(self.mask), size=(shown.shape[1], shown.shape[2]))
