"""Jets on disk, in the layout of the public Top Quark Tagging Reference Dataset (Kasieczka et al., Zenodo 2603256).

One HDF5 file per split (train.h5, val.h5, test.h5), each a pandas table named `table` with the columns
E_0, PX_0, PY_0, PZ_0 ... E_199 ... (GeV, sorted by falling pT, zero-padded), truthE, truthPX, truthPY, truthPZ
(the top quark; zero for QCD), ttv (0 train, 1 test, 2 validation) and is_signal_new (1 top, 0 QCD).
The public files can therefore stand wherever ours do.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CONSTITUENTS = 200
TABLE = "table"
SPLITS = {"train": 0, "test": 1, "val": 2}  # file name -> the public `ttv` number
_ROWS_PER_READ = 20_000


@dataclass(frozen=True)
class Jets:
    """A set of jets.

    constituents: float32 [n, 200, 4], (E, px, py, pz) in GeV, falling pT, zero-padded.
    is_top: int64 [n], 1 for a top jet, 0 for a QCD jet.
    truth: float32 [n, 4], the top quark's (E, px, py, pz); zeros for QCD.
    """

    constituents: NDArray[np.float32]
    is_top: NDArray[np.int64]
    truth: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.is_top)

    def __getitem__(self, chosen: slice | NDArray) -> "Jets":
        return Jets(self.constituents[chosen], self.is_top[chosen], self.truth[chosen])

    @staticmethod
    def concatenate(parts: list["Jets"]) -> "Jets":
        """Join several sets into one, in order."""
        return Jets(
            np.concatenate([p.constituents for p in parts]),
            np.concatenate([p.is_top for p in parts]),
            np.concatenate([p.truth for p in parts]),
        )


def columns() -> list[str]:
    """Return the 804 floating-point column names of the public layout, in order."""
    names = [f"{axis}_{i}" for i in range(CONSTITUENTS) for axis in ("E", "PX", "PY", "PZ")]
    return [*names, "truthE", "truthPX", "truthPY", "truthPZ"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; it becomes `path` when the block succeeds, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, jets: Jets, split: str) -> None:
    """Write `jets` to `path` in the public layout; `split` is one of train, val, test."""
    import pandas as pd

    values = np.concatenate([jets.constituents.reshape(len(jets), -1), jets.truth], axis=1)
    frame = pd.DataFrame(values.astype(np.float32, copy=False), columns=columns())
    tags = pd.DataFrame({"ttv": np.full(len(jets), SPLITS[split]), "is_signal_new": jets.is_top})
    with written_whole(path) as temporary:
        pd.concat([frame, tags], axis=1).to_hdf(
            temporary, key=TABLE, mode="w", format="table", complevel=5, complib="blosc:zstd"
        )


def read(path: Path, limit: int | None = None) -> Jets:
    """Read the first `limit` jets (all by default) of a file in the public layout.

    Raises FileNotFoundError or ValueError with what to do about it.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(
            f"no jets at {path}: generate some with `python -m quantize jets --out {path.parent}`, "
            "or put the public dataset's train.h5, val.h5 and test.h5 there"
        )
    try:
        store = pd.HDFStore(path, mode="r")
    except Exception as error:
        raise ValueError(f"{path} is not a readable HDF5 file ({error}): generate or download it again") from error
    with store:
        if f"/{TABLE}" not in store.keys():  # noqa: SIM118 (an HDFStore is not a dict)
            raise ValueError(f"{path} has no pandas table `{TABLE}`: it is not in the public dataset's layout")
        total = store.get_storer(TABLE).nrows
        stop = total if limit is None else min(limit, total)
        parts = []
        for start in range(0, stop, _ROWS_PER_READ):
            parts.append(_from_frame(store.select(TABLE, start=start, stop=min(start + _ROWS_PER_READ, stop)), path))
    if not parts:
        raise ValueError(f"{path} holds no jets")
    return Jets.concatenate(parts)


def _from_frame(frame, path: Path) -> Jets:  # type: ignore[no-untyped-def]  # a pandas DataFrame; pandas stays lazy
    missing = [name for name in [*columns(), "is_signal_new"] if name not in frame.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing[:4]}...: it is not in the public dataset's layout")
    values = frame[columns()].to_numpy(np.float32)
    constituents = values[:, : 4 * CONSTITUENTS].reshape(-1, CONSTITUENTS, 4)
    return Jets(constituents, frame["is_signal_new"].to_numpy(np.int64), values[:, 4 * CONSTITUENTS :])
