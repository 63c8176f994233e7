"""Top and QCD jets from proton collisions, by the recipe of the Top Quark Tagging Reference Dataset.

14 TeV pp in Pythia 8, fully hadronic top pairs against QCD dijets, no multiple interactions or pile-up; ATLAS-like
detector response (detector.py); anti-kT jets of R = 0.8 in FastJet with 550 < pT < 650 GeV and |eta| < 2. A top jet is
matched to a parton-level top quark and to its three decay quarks within dR < 0.8.

Events are made in chunks, each with its own seed, so that a chunk depends on the recipe and on its number alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize.dataset import CONSTITUENTS, Jets
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
CHUNKS = 50_000
"""Of each process and seed."""
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
            raise ValueError(
                f"seed {self.seed} is out of range: choose 1 to 8000 (50,000 chunks of each process belong to each)"
            )

    def chunk_seed(self, process: str, chunk: int) -> int:
        """Return the seed of one chunk, unique over seeds, processes and chunks."""
        seed = self.seed * 100_000 + chunk * len(PROCESSES) + PROCESSES[process]
        if chunk >= CHUNKS or seed > _LARGEST_SEED:
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
