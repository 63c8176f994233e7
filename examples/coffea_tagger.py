"""The tagger in a coffea analysis: coffea's own Triton wrapper, told only how a jet's particles become the model's input.

    pip install coffea 'tritonclient[grpc,http]' tables
    python examples/coffea_tagger.py --server localhost:8001 --jets test.h5 --out tags.npz

``JetTagger`` takes awkward arrays of particles (fields E, px, py, pz), as many a jet as it has, in GeV.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
from coffea.ml_tools.triton_wrapper import triton_wrapper

MODEL = "constituents_tagger"
MOST = 200
"""Particles of a jet that the model takes; the softest beyond them are dropped."""


class JetTagger(triton_wrapper):
    """``tagger(particles)`` gives P(QCD), P(top) of each jet; ``particles`` has falling pT."""

    def prepare_awkward(self, particles: ak.Array) -> tuple[list[Any], dict[str, Any]]:
        """The model's input: [jets, 200, 4] of E, px, py, pz, with zeros behind the last particle."""

        def column(name: str) -> ak.Array:
            padded = ak.fill_none(ak.pad_none(particles[name], MOST, axis=1, clip=True), 0.0)
            return ak.values_astype(padded, np.float32)[..., np.newaxis]

        columns = [column(name) for name in ("E", "px", "py", "pz")]
        return [], {"output_list": ["probabilities"], "input_dict": {"constituents": ak.concatenate(columns, axis=2)}}


def tagger(server: str) -> JetTagger:
    """A tagger on the service at "host:port"."""
    return JetTagger(f"triton+grpc://{server}/{MODEL}/1", client_args={"ssl": False})


def particles(path: Path, limit: int | None = None) -> ak.Array:
    """Jets of an HDF5 file of `python -m quantize jets`, without the zeros that pad them."""
    table = pd.read_hdf(path, "table", stop=limit)
    axes = {"E": "E", "px": "PX", "py": "PY", "pz": "PZ"}
    columns = {name: table[[f"{axis}_{i}" for i in range(MOST)]].to_numpy() for name, axis in axes.items()}
    padded = ak.zip({name: ak.from_regular(ak.Array(values)) for name, values in columns.items()})
    return padded[padded.E > 0]


def main() -> int:
    """Tag a file's jets and print the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="localhost:8001", help="host:port (default: %(default)s)")
    parser.add_argument("--jets", type=Path, required=True, help="HDF5 file of `python -m quantize jets`")
    parser.add_argument("--limit", type=int, help="only the first jets")
    parser.add_argument("--out", type=Path, help="file (.npz) for P(top)")
    options = parser.parse_args()
    jets = particles(options.jets, options.limit)
    p_top = np.asarray(tagger(options.server)(jets)["probabilities"][:, 1])
    for count, p in list(zip(ak.num(jets), p_top, strict=True))[:10]:
        print(f"{count:4} particles  P(top) = {p:.3f}")
    print(f"{len(jets)} jets, {np.mean(p_top > 0.5):.1%} tagged as top")
    if options.out:
        np.savez(options.out, p_top=p_top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
