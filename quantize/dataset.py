"""Jets on disk, in the layout of the public Top Quark Tagging Reference Dataset (Kasieczka et al., Zenodo 2603256).

One HDF5 file per split (train.h5, val.h5, test.h5), each a pandas table named `table` with the columns
E_0, PX_0, PY_0, PZ_0 ... E_199 ... (GeV, sorted by falling pT, zero-padded), truthE, truthPX, truthPY, truthPZ
(the top quark; zero for QCD), ttv (0 train, 1 test, 2 validation) and is_signal_new (1 top, 0 QCD).
The public files can therefore stand wherever ours do.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class Digest:
    """SHA-256 of the jets themselves: two HDF5 files with the same jets differ in their time stamps."""

    def __init__(self) -> None:
        self.jets = 0
        self._hash = hashlib.sha256()

    def add(self, jets: Jets) -> None:
        """Take in more jets, jet by jet, so that it does not matter how many come at once."""
        self.jets += len(jets)
        rows = np.concatenate([jets.constituents.reshape(len(jets), -1), jets.truth, jets.is_top[:, None]], axis=1)
        self._hash.update(rows.astype("<f4").tobytes())

    @property
    def hexadecimal(self) -> str:
        """Of all jets so far."""
        return self._hash.hexdigest()


class Writer:
    """A file in the making, to which jets are appended; `writing` opens one."""

    def __init__(self, store: Any, split: str) -> None:
        self._store, self._ttv = store, SPLITS[split]
        self.digest = Digest()

    def append(self, jets: Jets) -> None:
        """Append jets."""
        import pandas as pd

        rows = pd.RangeIndex(self.digest.jets, self.digest.jets + len(jets))
        values = np.concatenate([jets.constituents.reshape(len(jets), -1), jets.truth], axis=1)
        frame = pd.DataFrame(values.astype(np.float32, copy=False), columns=columns(), index=rows)
        tags = {"ttv": np.full(len(jets), self._ttv), "is_signal_new": jets.is_top}
        self._store.append(TABLE, pd.concat([frame, pd.DataFrame(tags, index=rows)], axis=1), index=False)
        self.digest.add(jets)


@contextmanager
def writing(path: Path, split: str) -> Iterator[Writer]:
    """Yield a Writer of `path` in the public layout; the file appears when the block succeeds. split: train, val, test."""
    import pandas as pd

    with (
        written_whole(path) as temporary,
        pd.HDFStore(temporary, mode="w", complevel=5, complib="blosc:zstd") as store,
    ):
        yield Writer(store, split)


def write(path: Path, jets: Jets, split: str) -> None:
    """Write `jets` to `path` in the public layout; `split` is one of train, val, test."""
    with writing(path, split) as file:
        file.append(jets)


def read(path: Path, limit: int | None = None) -> Jets:
    """Read the first `limit` jets (all by default) of a file in the public layout.

    Raises FileNotFoundError or ValueError with what to do about it.
    """
    parts = list(read_blocks(path, limit))
    if not parts:
        raise ValueError(f"{path} holds no jets")
    return Jets.concatenate(parts)


def read_blocks(path: Path, limit: int | None = None) -> Iterator[Jets]:
    """Read like `read`, some thousands of jets at a time."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(
            f"no jets at {path}: generate some with `python -m quantize jets --out {path.parent}`, "
            "or put the public dataset's train.h5, val.h5 and test.h5 there"
        )
    try:
        store = pd.HDFStore(path, mode="r")
    except Exception as error:
        raise ValueError(f"{path} is not a readable HDF5 file ({_reason(error)}): make or download it again") from error
    with store:
        try:
            known = f"/{TABLE}" in store.keys()  # noqa: SIM118 (an HDFStore is not a dict)
            total = store.get_storer(TABLE).nrows if known else 0
        except Exception as error:
            raise ValueError(f"{path} is damaged ({_reason(error)}): make or download it again") from error
        if not known:
            raise ValueError(f"{path} has no pandas table `{TABLE}`: it is not in the public dataset's layout")
        stop = total if limit is None else min(limit, total)
        for start in range(0, stop, _ROWS_PER_READ):
            try:
                frame = store.select(TABLE, start=start, stop=min(start + _ROWS_PER_READ, stop))
            except Exception as error:
                raise ValueError(f"{path} is damaged ({_reason(error)}): make or download it again") from error
            yield _from_frame(frame, path, start)


def _reason(error: Exception) -> str:
    """The last line of an error: HDF5 prints a whole stack of its own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _from_frame(frame: Any, path: Path, start: int) -> Jets:
    """Turn a pandas DataFrame, whose first row is row `start` of the file, into jets, and check them."""
    missing = [name for name in [*columns(), "is_signal_new"] if name not in frame.columns]
    if missing:
        named = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise ValueError(f"{path} lacks the columns {named}: it is not in the public dataset's layout")
    labels = frame["is_signal_new"].to_numpy(np.float64)
    values = frame[columns()].to_numpy(np.float32)
    momenta = values[:, : 4 * CONSTITUENTS]
    for wrong, complaint in (
        (~np.isfinite(values).all(axis=1), "a NaN or an infinity among its momenta"),
        (~momenta.any(axis=1), "no constituent"),
        (~np.isin(labels, (0, 1)), "a label is_signal_new other than 0 and 1"),
    ):
        if wrong.any():
            first, count = start + int(np.argmax(wrong)), int(wrong.sum())
            others = f" (as have {count - 1} others)" if count > 1 else ""
            raise ValueError(f"{path}: the jet of row {first} has {complaint}{others}; remove such rows")
    return Jets(momenta.reshape(-1, CONSTITUENTS, 4), labels.astype(np.int64), values[:, 4 * CONSTITUENTS :])
