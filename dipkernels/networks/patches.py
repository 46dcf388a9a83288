"""From images to patches and back: what the families made of tokens share."""

from collections.abc import Sequence

from torch import Tensor, nn

from dipkernels.errors import InvalidInputError


def check_sizes(
    image_size: Sequence[int],
    patch_size: int,
    widths: Sequence[int],
    heads: Sequence[int],
    others: dict[str, int],
) -> None:
    """Check a transformer's sizes; `widths` and `heads` are its stages', `others` are by name."""
    for name, size in {"patch_size": patch_size, **others}.items():
        if size < 1:
            raise InvalidInputError(f"{name} is {size}; expected at least 1: raise it")
    if len(image_size) != 2 or min(image_size) < patch_size:
        raise InvalidInputError(
            f"image_size is {image_size}; expected (height, width), each at least patch_size = "
            f"{patch_size}: take a larger image or smaller patches"
        )
    for width, count in zip(widths, heads, strict=True):
        if width < 1 or count < 1 or width % count:
            raise InvalidInputError(
                f"tokens of width {width} have {count} heads; expected positive numbers, the width "
                "a multiple of the heads: change one of them"
            )


def pad_code(code: Tensor, expected_shape: tuple[int, int, int, int], multiple: int) -> Tensor:
    """Repeat a code's last row and column until height and width are multiples of `multiple`."""
    if tuple(code.shape) != expected_shape:
        raise InvalidInputError(
            f"the code has shape {tuple(code.shape)}; this network expects {expected_shape}: pass "
            "such a code, or build the network with the code's image_size and code_channels"
        )
    bottom, right = (-side % multiple for side in expected_shape[2:])
    if bottom == right == 0:
        return code
    return nn.functional.pad(code, (0, right, 0, bottom), mode="replicate")


def join_patches(patches: Tensor, grid: Sequence[int], side: int, size: Sequence[int]) -> Tensor:
    """Lay patches side by side, row by row, and crop the image at its bottom and right."""
    image = nn.functional.pixel_shuffle(patches.transpose(1, 2).unflatten(2, grid), side)
    return image[..., : size[0], : size[1]]
