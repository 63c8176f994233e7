"""A whole dataset through the service, with Dask: every task reads a part of the jets' file and tags it in batches.

    python examples/dask_dataset.py --server localhost:8001 --jets test.h5 --out tags.npz
    python examples/dask_dataset.py --scheduler tcp://head.example:8786 ...      # on a cluster that shares the file

A part that fails is tried again by Dask, on another worker; the service's queue sets the pace, since a
call that finds it full is sent again after the pause that the service names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from dask.distributed import Client, as_completed
from numpy.typing import NDArray
from tqdm import tqdm
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from host_service.client import channel_options
from quantize import dataset

MODEL = "constituents_tagger"
BATCH = 32
TIMEOUT = 120.0


def tag(client: InferenceServerClient, constituents: NDArray[np.float32]) -> NDArray[np.float32]:
    """P(top), float32 [n], of jets float32 [n, 200, 4]."""
    tensor = InferInput("constituents", list(constituents.shape), "FP32")
    tensor.set_data_from_numpy(constituents)
    wanted = [InferRequestedOutput("probabilities")]
    answer = client.infer(MODEL, [tensor], outputs=wanted, client_timeout=TIMEOUT)
    return np.asarray(answer.as_numpy("probabilities")[:, 1])


def tag_rows(path: str, start: int, stop: int, server: str) -> tuple[int, NDArray[np.float32]]:
    """Read rows ``start`` to ``stop`` of the file and tag them: (start, P(top))."""
    names = dataset.columns()[: 4 * dataset.CONSTITUENTS]
    rows = pd.read_hdf(path, dataset.TABLE, start=start, stop=stop)[names].to_numpy(np.float32)
    jets = rows.reshape(len(rows), dataset.CONSTITUENTS, 4)
    with InferenceServerClient(server, channel_args=channel_options()) as client:
        return start, np.concatenate([tag(client, jets[i : i + BATCH]) for i in range(0, len(jets), BATCH)])


def tag_file(client: Client, path: Path, server: str, part: int = 1000) -> NDArray[np.float32]:
    """P(top) of every jet of the file, in its order; tasks of ``part`` jets."""
    with pd.HDFStore(path, "r") as store:
        count = store.get_storer(dataset.TABLE).nrows
    tasks = [
        client.submit(tag_rows, str(path), start, min(start + part, count), server, retries=3, pure=False)
        for start in range(0, count, part)
    ]
    p_top = np.zeros(count, np.float32)
    with tqdm(total=count, unit="jet") as bar:
        for _, (start, values) in as_completed(tasks, with_results=True):
            p_top[start : start + len(values)] = values
            bar.update(len(values))
    return p_top


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="localhost:8001", help="host:port, of a service or a load balancer")
    parser.add_argument("--jets", type=Path, required=True, help="HDF5 file of `python -m quantize jets`")
    parser.add_argument("--out", type=Path, required=True, help="file (.npz) for P(top)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler (default: workers on this machine)")
    parser.add_argument("--workers", type=int, default=2, help="on this machine (default: %(default)s)")
    parser.add_argument("--part", type=int, default=1000, help="jets a task (default: %(default)s)")
    options = parser.parse_args()
    local = {"n_workers": options.workers, "threads_per_worker": 2, "dashboard_address": None}
    try:
        with Client(options.scheduler) if options.scheduler else Client(**local) as client:
            p_top = tag_file(client, options.jets.resolve(), options.server, options.part)
        with dataset.written_whole(options.out) as temporary:
            np.savez(temporary, p_top=p_top)
    except Exception as error:  # a task's own error comes through Dask as it is
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(p_top)} jets, {np.mean(p_top > 0.5):.1%} tagged as top: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
