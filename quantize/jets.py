"""Top and QCD jets made from proton collisions, by the recipe of the Top Quark Tagging Reference Dataset.

14 TeV pp in Pythia 8, fully hadronic top pairs against QCD dijets, no multiple interactions or pile-up; ATLAS-like
detector response (detector.py); anti-kT jets of R = 0.8 in FastJet with 550 < pT < 650 GeV and |eta| < 2. A top jet is
matched to a parton-level top quark and to its three decay quarks within dR < 0.8.

Events are made in chunks, each with its own seed, so that the result depends on the recipe alone: not on the number
of processes, nor on interruptions. All jets of one event go to the same split.
"""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from quantize.dataset import CONSTITUENTS, SPLITS, Jets, write, written_whole
from quantize.detector import Particles, respond

PROCESSES = {"qcd": 0, "top": 1}
_PROCESS_SETTINGS = {
    "qcd": ("HardQCD:all = on",),
    "top": (
        "Top:gg2ttbar = on",
        "Top:qqbar2ttbar = on",
        "24:onMode = off",
        "24:onIfAny = 1 2 3 4 5",
    ),
}
_LARGEST_SEED = 900_000_000  # Pythia's own limit; beyond it Pythia would silently fall back on its default seed


@dataclass(frozen=True)
class Recipe:
    """What decides the jets, bit for bit. Energies in GeV."""

    seed: int = 1
    beam_energy: float = 14_000.0
    pt_hat: tuple[float, float] = (450.0, 800.0)
    jet_radius: float = 0.8
    jet_pt: tuple[float, float] = (550.0, 650.0)
    jet_eta: float = 2.0
    events_per_batch: int = 500  # Pythia's stream of events depends on it
    batches_per_chunk: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.seed <= 8_000:
            raise ValueError(f"seed {self.seed} is out of range: choose 1 to 8000 (100,000 chunks are kept for each)")

    def chunk_seed(self, process: str, chunk: int) -> int:
        """Return the seed of one chunk, unique over seeds, processes and chunks."""
        seed = self.seed * 100_000 + chunk * len(PROCESSES) + PROCESSES[process]
        if chunk * len(PROCESSES) >= 100_000 or seed > _LARGEST_SEED:
            raise ValueError(f"seed {self.seed} has no chunk {chunk}: generate with a second seed instead")
        return seed


@dataclass(frozen=True)
class Chunk:
    """The jets of one chunk, with the event within the chunk that each came from (int64 [n])."""

    jets: Jets
    event: NDArray[np.int64]
    events: int


def generate_chunk(recipe: Recipe, process: str, chunk: int) -> Chunk:
    """Generate and select the jets of one chunk of `recipe.batches_per_chunk` batches."""
    import pythia8mc

    seed = recipe.chunk_seed(process, chunk)
    pythia = pythia8mc.Pythia("", False)
    for setting in (
        f"Beams:eCM = {recipe.beam_energy}",
        f"PhaseSpace:pTHatMin = {recipe.pt_hat[0]}",
        f"PhaseSpace:pTHatMax = {recipe.pt_hat[1]}",
        "PartonLevel:MPI = off",
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        *_PROCESS_SETTINGS[process],
    ):
        if not pythia.readString(setting):  # Pythia would otherwise ignore it and go on
            raise RuntimeError(f"Pythia refused the setting {setting!r}")
    if not pythia.init():
        raise RuntimeError(f"Pythia could not start {process} with seed {seed}")
    rng = np.random.default_rng(seed)
    parts, origins = [], []
    for batch in range(recipe.batches_per_chunk):
        jets, event = _jets_of_batch(recipe, process, pythia, rng)
        parts.append(jets)
        origins.append(event + batch * recipe.events_per_batch)
    return Chunk(Jets.concatenate(parts), np.concatenate(origins), recipe.events_per_batch * recipe.batches_per_chunk)


def _jets_of_batch(
    recipe: Recipe, process: str, pythia: Any, rng: np.random.Generator
) -> tuple[Jets, NDArray[np.int64]]:
    import awkward as ak
    import fastjet

    record = pythia.nextBatch(recipe.events_per_batch).prt
    final = record[record.status > 0]
    flow = respond(_flatten(final, pythia), rng)

    order = np.argsort(flow.event, kind="stable")
    counts = np.bincount(flow.event, minlength=recipe.events_per_batch)
    fields = {"px": flow.px, "py": flow.py, "pz": flow.pz, "E": flow.energy}
    objects = ak.zip({name: ak.unflatten(value[order], counts) for name, value in fields.items()})
    clusters = fastjet.ClusterSequence(objects, fastjet.JetDefinition(fastjet.antikt_algorithm, recipe.jet_radius))
    found = clusters.inclusive_jets(recipe.jet_pt[0])
    members = clusters.constituent_index(recipe.jet_pt[0])

    jet_event = np.repeat(np.arange(len(found)), ak.to_numpy(ak.num(found)))
    px, py, pz = (ak.to_numpy(ak.flatten(found[name])) for name in ("px", "py", "pz"))
    pt = np.hypot(px, py)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    chosen = (pt > recipe.jet_pt[0]) & (pt < recipe.jet_pt[1]) & (np.abs(eta) < recipe.jet_eta)
    truth = np.zeros((len(pt), 4), np.float32)
    if process == "top":
        quarks, tops = _parton_tops(record)
        matched = np.zeros(len(pt), bool)
        for sign in range(2):
            near = _delta_r(eta[:, None], phi[:, None], *_eta_phi(quarks[jet_event, sign])) < recipe.jet_radius
            inside = near.all(axis=1)
            truth[inside] = tops[jet_event[inside], sign]
            matched |= inside
        chosen &= matched

    members = ak.flatten(members)
    flat = np.stack([value[order] for value in (flow.energy, flow.px, flow.py, flow.pz)], axis=1)
    first = np.concatenate([[0], np.cumsum(counts)])
    kept = np.flatnonzero(chosen)
    constituents = np.zeros((len(kept), CONSTITUENTS, 4), np.float32)
    for row, jet in enumerate(kept):
        inside = flat[first[jet_event[jet]] + ak.to_numpy(members[jet])]
        falling = np.argsort(-np.hypot(inside[:, 1], inside[:, 2]), kind="stable")[:CONSTITUENTS]
        constituents[row, : len(falling)] = inside[falling]
    label = np.full(len(kept), PROCESSES[process], np.int64)
    return Jets(constituents, label, truth[kept]), jet_event[kept]


def _flatten(final: Any, pythia: Any) -> Particles:
    """Turn Pythia's nested record of stable particles into flat arrays."""
    import awkward as ak

    pdg = ak.to_numpy(ak.flatten(final.id)).astype(np.int64)
    kinds, which = np.unique(pdg, return_inverse=True)
    charges = np.array([pythia.particleData.charge(int(kind)) for kind in kinds])
    momentum = [ak.to_numpy(ak.flatten(final.p[name])) for name in ("px", "py", "pz", "e")]
    event = np.repeat(np.arange(len(final)), ak.to_numpy(ak.num(final.id)))
    return Particles(event, pdg, charges[which], *momentum)


def _parton_tops(record: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return per event the top's four-momentum and decay quarks that a jet must contain.

    Two arrays of (E, px, py, pz): [events, 2, 4, 4], the top and its three quarks, for t and for anti-t; and
    [events, 2, 4], the tops alone.
    """
    import awkward as ak

    kind = abs(record.id)
    mother = record.mother1
    mother_id = record.id[mother]
    from_top = (kind <= 5) & (kind > 0) & (abs(mother_id) == 6)
    from_w = (kind <= 5) & (kind > 0) & (abs(mother_id) == 24)
    momentum = np.stack([ak.to_numpy(ak.flatten(record.p[name])) for name in ("e", "px", "py", "pz")], axis=1)
    start = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(record.id)))[:-1]])[:, None]
    groups = []
    for sign in (1, -1):
        b = ak.to_numpy(ak.local_index(record.id)[from_top & (mother_id == 6 * sign)])
        q = ak.to_numpy(ak.local_index(record.id)[from_w & (mother_id == 24 * sign)])
        t = ak.to_numpy(mother[from_top & (mother_id == 6 * sign)])
        groups.append(momentum[start + np.concatenate([t, b, q], axis=1)])
    both = np.stack(groups, axis=1)
    return both, both[:, :, 0]


def _eta_phi(momentum: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _, px, py, pz = np.moveaxis(momentum, -1, 0)
    return np.arcsinh(pz / np.maximum(np.hypot(px, py), 1e-12)), np.arctan2(py, px)


def _delta_r(eta1: Any, phi1: Any, eta2: Any, phi2: Any) -> NDArray[np.float64]:
    return np.hypot(eta1 - eta2, (phi1 - phi2 + np.pi) % (2 * np.pi) - np.pi)


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
        yield from map(work, range(50_000))
        return
    # Spawned, not forked: Pythia and FastJet hold C++ state that must not be shared. A window of `jobs` chunks ahead
    # keeps every process busy without making chunks that nobody asked for.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        waiting = [pool.apply_async(work, (chunk,)) for chunk in range(jobs)]
        for chunk in range(jobs, 50_000):
            yield waiting.pop(0).get()
            waiting.append(pool.apply_async(work, (chunk,)))


def generate(
    folder: Path, recipe: Recipe, jets_per_class: int, split: dict[str, float], jobs: int = 1
) -> dict[str, Any]:
    """Generate `jets_per_class` top and as many QCD jets into `folder`, and return the manifest.

    split: shares of train, val and test, summing to 1. Only the files with a share are written, together with
    manifest.json. A run that was interrupted goes on where it stopped when given the same recipe.
    """
    if jets_per_class < 1 or jobs < 1:
        raise ValueError("ask for at least one jet per class and one job")
    if set(split) - set(SPLITS) or abs(sum(split.values()) - 1) > 1e-9 or min(split.values()) < 0:
        raise ValueError(f"the split {split} must give shares of {', '.join(SPLITS)} that sum to 1")
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    stamp = parts / "recipe.json"
    described = json.dumps(asdict(recipe), indent=1)
    if stamp.is_file() and stamp.read_text() != described:
        raise ValueError(f"{parts} belongs to an unfinished run of another recipe: finish it, or remove that folder")
    with written_whole(stamp) as temporary:
        temporary.write_text(described)

    by_split: dict[str, list[Jets]] = {name: [] for name in SPLITS}
    events: dict[str, int] = {}
    for process in PROCESSES:
        count = events[process] = 0
        with tqdm(total=jets_per_class, desc=f"{process} jets", unit="jet") as bar:
            for path in _chunk_files(parts, recipe, process, jobs):
                with np.load(path, allow_pickle=False) as stored:
                    jets = Jets(stored["constituents"], stored["is_top"], stored["truth"])
                    origin, n_events = stored["event"], int(stored["events"])
                jets, origin = jets[: jets_per_class - count], origin[: jets_per_class - count]
                chosen = _split_of_events(recipe, process, path, n_events, split)[origin]
                for name in SPLITS:
                    by_split[name].append(jets[chosen == SPLITS[name]])
                count += len(jets)
                events[process] += n_events
                bar.update(len(jets))
                if count == jets_per_class:
                    break

    manifest: dict[str, Any] = {"recipe": asdict(recipe), "events": events, "split": split, "counts": {}}
    for name in SPLITS:
        jets = Jets.concatenate(by_split[name])
        if not len(jets):
            continue
        shuffled = jets[np.random.default_rng((recipe.seed, SPLITS[name])).permutation(len(jets))]
        write(folder / f"{name}.h5", shuffled, name)
        tops = int(jets.is_top.sum())
        manifest["counts"][name] = {"top": tops, "qcd": len(jets) - tops}
    with written_whole(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(parts)
    return json.loads(json.dumps(manifest))  # as a reader of the file sees it


def _split_of_events(
    recipe: Recipe, process: str, path: Path, events: int, split: dict[str, float]
) -> NDArray[np.int64]:
    """Draw the split (its `ttv` number) of every event of a chunk; reproducible from the recipe."""
    chunk = int(path.stem.split("-")[1])
    rng = np.random.default_rng((recipe.chunk_seed(process, chunk), 1))
    names = list(SPLITS)
    drawn = rng.choice(len(names), size=events, p=[split.get(name, 0.0) for name in names])
    return np.array([SPLITS[name] for name in names])[drawn]
