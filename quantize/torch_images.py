"""Jet images drawn by PyTorch on the device that trains: the same bytes as images.jet_planes.

The pixel of each constituent is found by the same NumPy code (images.deposits); the device sums, scales and rounds, so that a batch
of constituents travels to it and not the fifty thousand pixels of each image.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantize.images import deposits


def jet_planes(constituents: NDArray, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return one channel of the images of a batch of jets: uint8 [n, size, size] from constituents [n, m, 4].

    A GPU sums a pixel's constituents in no particular order, which can move the last bit of a float64 sum.
    """
    pixel, pt = (torch.from_numpy(array).to(device) for array in deposits(constituents, size))
    grid = torch.bincount(pixel, pt, len(constituents) * size * size).reshape(-1, size * size)
    brightest = grid.amax(dim=1, keepdim=True)
    scale = 255.0 / torch.where(brightest > 0, brightest, 1.0)  # a jet without any constituent in the window is black
    return (grid * scale).round_().to(torch.uint8).reshape(-1, size, size)


def mirrored(planes: Tensor, mirror: NDArray[np.bool_]) -> Tensor:
    """Mirror some images: mirror bool [2, n] says which along rows (eta) and which along columns (phi)."""
    for axis, chosen in enumerate(torch.from_numpy(mirror).to(planes.device), start=1):
        planes = torch.where(chosen[:, None, None], planes.flip(axis), planes)
    return planes
