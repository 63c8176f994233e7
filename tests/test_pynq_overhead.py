"""What the driver costs the host: less than 200 microseconds of CPU an image beyond the copy (``make bench-driver`` prints it)."""

import pytest
from driver_overhead import measure
from random_networks import featurizer

MICROSECONDS = 200
ATTEMPTS = 20
"""Other programs on the machine make CPU time longer and never shorter, so the least of several is what the driver takes."""


@pytest.mark.alone
def test_the_driver_adds_less_than_200_microseconds_an_image():
    program = featurizer(1)
    found = []
    for _ in range(ATTEMPTS):
        overhead = measure(program)
        found.append(overhead.back_to_back - overhead.copy)
        if found[-1] < MICROSECONDS:
            break
    assert min(found) < MICROSECONDS, f"microseconds of CPU an image: {found}"
