"""Files of jets of any size, from chunks of collisions (collisions.py) to train.h5, val.h5 and test.h5 with a manifest.

<folder>/parts/<process>-<chunk>.npz   finished chunks of an unfinished run, with the recipe that they belong to
<folder>/{train,val,test}.h5           the public dataset's layout (dataset.py)
<folder>/manifest.json                 recipe, versions, counts, and a checksum of the jets in each file; written last

The result depends on the recipe alone: not on the number of processes, nor on interruptions. All jets of one event go
to the same split. No more than a block of jets is in memory at a time.
"""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from quantize import dataset
from quantize.collisions import CHUNKS, PROCESSES, Recipe, generate_chunk
from quantize.dataset import SPLITS, Jets, written_whole

_JETS_PER_BLOCK = 50_000  # shuffled in memory at once, 3.2 kB each


@dataclass(frozen=True)
class _Part:
    """A finished chunk: its file, and the split (`ttv` number; -1 for none) of each of its jets, int64 [n]."""

    path: Path
    split: NDArray[np.int64]

    def jets(self) -> Jets:
        with np.load(self.path, allow_pickle=False) as stored:
            return Jets(stored["constituents"], stored["is_top"], stored["truth"])


def generate(
    folder: Path, recipe: Recipe, jets_per_class: int, split: dict[str, float], jobs: int = 1
) -> dict[str, Any]:
    """Generate `jets_per_class` top and as many QCD jets into `folder`, and return the manifest.

    split: shares of train, val and test, summing to 1. Only the files with a share are written, together with
    manifest.json. A run that was interrupted goes on where it stopped when given the same recipe; a finished one is not
    repeated. Raises ValueError for a bad request, and for a folder that holds other jets.
    """
    if jets_per_class < 1 or jobs < 1:
        raise ValueError("ask for at least one jet per class and one job")
    if set(split) - set(SPLITS) or abs(sum(split.values()) - 1) > 1e-9 or min(split.values()) < 0:
        raise ValueError(f"the split {split} must give shares of {', '.join(SPLITS)} that sum to 1")
    asked = _as_json({"recipe": asdict(recipe), "jets_per_class": jets_per_class, "split": split})
    if (folder / "manifest.json").is_file():
        manifest = read_manifest(folder)
        if {key: manifest.get(key) for key in asked} != asked:
            raise ValueError(f"{folder} holds jets of another recipe (see its manifest.json): choose another folder")
        return manifest
    parts = _claim(folder, recipe)

    made: dict[str, list[_Part]] = {}
    events: dict[str, int] = {}
    for process in PROCESSES:
        made[process], events[process] = _generate_process(parts, recipe, process, jets_per_class, split, jobs)
    counts, checksums = _write_splits(folder, recipe, made)
    versions = {name: version(name) for name in ("pythia8mc", "fastjet")}
    manifest = _as_json(
        {**asked, "versions": versions, "events": events, "counts": counts, "sha256_of_jets": checksums}
    )
    with written_whole(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(parts)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of jets. Raises FileNotFoundError or ValueError."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no manifest.json in {folder}: only folders made by `python -m quantize jets` have one"
        )
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest ({error}): generate these jets again") from error


def verify(folder: Path) -> dict[str, int]:
    """Compare the jets of every file of `folder` with the manifest's checksums; returns the jets in each file.

    Raises ValueError for a file whose jets are others.
    """
    found = {}
    for name, expected in read_manifest(folder).get("sha256_of_jets", {}).items():
        digest = dataset.Digest()
        for block in dataset.read_blocks(folder / f"{name}.h5"):
            digest.add(block)
        if digest.hexadecimal != expected:
            raise ValueError(f"{folder / name}.h5 does not hold the jets of its manifest.json: generate them again")
        found[name] = digest.jets
    return found


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """The value as a reader of its JSON sees it."""
    return dict(json.loads(json.dumps(value)))


def _claim(folder: Path, recipe: Recipe) -> Path:
    """Return the folder of finished chunks, which belongs to one recipe."""
    parts = folder / "parts"
    stamp = parts / "recipe.json"
    others = [f"{name}.h5" for name in SPLITS if (folder / f"{name}.h5").exists()]
    if others and not stamp.is_file():
        raise ValueError(f"{folder} holds {', '.join(others)} that were not made here: choose another folder")
    parts.mkdir(parents=True, exist_ok=True)
    described = json.dumps(asdict(recipe), indent=1)
    if stamp.is_file() and stamp.read_text() != described:
        raise ValueError(f"{parts} belongs to an unfinished run of another recipe: finish it, or remove that folder")
    with written_whole(stamp) as temporary:
        temporary.write_text(described)
    return parts


def _generate_process(
    parts: Path, recipe: Recipe, process: str, jets: int, split: dict[str, float], jobs: int
) -> tuple[list[_Part], int]:
    """Make chunks of one process until there are enough jets; returns them and the number of events."""
    made: list[_Part] = []
    count = events = 0
    with tqdm(total=jets, desc=f"{process} jets", unit="jet") as bar:
        for path in _chunk_files(parts, recipe, process, jobs):
            with np.load(path, allow_pickle=False) as stored:
                origin, n_events = stored["event"], int(stored["events"])
            chosen = _split_of_events(recipe, process, len(made), n_events, split)[origin]
            chosen[jets - count :] = -1  # more than were asked for
            made.append(_Part(path, chosen))
            used = int((chosen >= 0).sum())
            count += used
            events += n_events
            bar.update(used)
            if count == jets:
                break
    return made, events


def _write_splits(
    folder: Path, recipe: Recipe, made: dict[str, list[_Part]]
) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Write the files of all splits in shuffled blocks; returns the counts and the checksums.

    Each block takes its share of the chunks of either process, in order: chunks are independent, so that shuffling within a
    block is as good as shuffling everything.
    """
    counts = {
        name: {process: sum(int((part.split == ttv).sum()) for part in made[process]) for process in ("top", "qcd")}
        for name, ttv in SPLITS.items()
    }
    counts = {name: of_process for name, of_process in counts.items() if sum(of_process.values())}
    total = sum(sum(of_process.values()) for of_process in counts.values())
    n_blocks = min(-(-total // _JETS_PER_BLOCK), *map(len, made.values()))  # every block has chunks of either process
    with ExitStack() as open_files:
        writers = {name: open_files.enter_context(dataset.writing(folder / f"{name}.h5", name)) for name in counts}
        for block in tqdm(range(n_blocks), desc="files", unit="block", disable=n_blocks == 1):
            held: dict[str, list[Jets]] = {name: [] for name in counts}
            for process in PROCESSES:
                chunks = made[process]
                for part in chunks[block * len(chunks) // n_blocks : (block + 1) * len(chunks) // n_blocks]:
                    jets = part.jets()
                    for name in counts:
                        held[name].append(jets[part.split == SPLITS[name]])
            for name, parts in held.items():
                jets = Jets.concatenate(parts)
                # The first block's seed has no block number: so small files stay what they always were.
                seed = (recipe.seed, SPLITS[name], *([block] if block else []))
                writers[name].append(jets[np.random.default_rng(seed).permutation(len(jets))])
        checksums = {name: writer.digest.hexadecimal for name, writer in writers.items()}
    return counts, checksums


def _chunk_file(folder: Path, recipe: Recipe, process: str, chunk: int) -> Path:
    """Return the file of one chunk, generating it unless an earlier run already did."""
    path = folder / f"{process}-{chunk:05d}.npz"
    if not path.is_file():
        made = generate_chunk(recipe, process, chunk)
        with written_whole(path) as temporary:
            np.savez_compressed(
                temporary,
                constituents=made.jets.constituents,
                is_top=made.jets.is_top,
                truth=made.jets.truth,
                event=made.event,
                events=made.events,
            )
    return path


def _chunk_files(folder: Path, recipe: Recipe, process: str, jobs: int) -> Iterator[Path]:
    work = partial(_chunk_file, folder, recipe, process)
    if jobs == 1:
        yield from map(work, range(CHUNKS))
        return
    # Spawned, not forked: Pythia and FastJet hold C++ state that must not be shared. A window of `jobs` chunks ahead
    # keeps every process busy without making chunks that nobody asked for.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        waiting = [pool.apply_async(work, (chunk,)) for chunk in range(jobs)]
        for chunk in range(jobs, CHUNKS):
            yield waiting.pop(0).get()
            waiting.append(pool.apply_async(work, (chunk,)))


def _split_of_events(
    recipe: Recipe, process: str, chunk: int, events: int, split: dict[str, float]
) -> NDArray[np.int64]:
    """Draw the split (its `ttv` number) of every event of a chunk; reproducible from the recipe."""
    rng = np.random.default_rng((recipe.chunk_seed(process, chunk), 1))
    names = list(SPLITS)
    drawn = rng.choice(len(names), size=events, p=[split.get(name, 0.0) for name in names])
    return np.array([SPLITS[name] for name in names])[drawn]
