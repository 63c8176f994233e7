"""The gRPC service on a board: nothing in it knows."""

import numpy as np
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image
from running_service import running_service

from driver.device import open_device
from host_service.client import RemoteNpu

SEED = 61
PROGRAM = featurizer(SEED)


def test_clients_are_served_from_the_simulated_board():
    rng = np.random.default_rng(SEED)
    images = [random_image(rng, PROGRAM) for _ in range(10)]
    device = open_device("simulated-board", SIM_SMALL)
    with running_service(PROGRAM, device=device) as address, RemoteNpu(address) as npu:
        results = list(npu.run_many(images))
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        expected = feature_sums(featurizer_layers(SEED), image)
        assert np.array_equal(result.result, expected), f"image {number}, seed {SEED}"
