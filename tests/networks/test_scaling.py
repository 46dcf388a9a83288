"""The rule that fits published settings to another size."""

import math

import pytest

from dipkernels.networks import scaling


@pytest.mark.parametrize("published", [4, 32, 48])
def test_lengths_scale_to_the_nearest_power_of_two(published: int) -> None:
    for side in (3, 8, 63, 64, 91, 100, 300, 511, 512, 725, 1100):
        ideal = math.log2(published * side / 512)
        nearest = min((abs(power - ideal), 2**power) for power in range(-10, 12))[1]
        assert scaling.scaled_length(published, (side, 2 * side)) == max(4, nearest)


def test_halvings_keep_two_pixels_on_the_shorter_side() -> None:
    for side in range(3, 140):
        for published in range(8):
            fitting = [h for h in range(published + 1) if math.ceil(side / 2**h) >= 2]
            assert scaling.scaled_halvings(published, (side + 5, side)) == max(fitting)
