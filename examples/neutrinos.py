"""Transfer learning as the paper's neutrino physicists did it (section 3.3), on toy events: a featurizer of jets, a new classifier.

The featurizer stays as it is. Toy events (quantize/toy_neutrinos.py: drawn by hand, no neutrino physics) go through the demo's network
on any device, or on a service that runs it; a classifier of five classes is fitted to the features that come back, measured on events
that it has not seen, and written as a service loads it. ``make neutrinos`` runs this.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: no lines about missing GPUs

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from driver.device import DeviceError
from hls.convert import convert
from host_service.client import open_npu
from hw.program import Program
from quantize import checkpoint, head, plots, toy_neutrinos
from quantize.classifier import save_classifier
from quantize.evaluate import confusion


def main(arguments: list[str] | None = None) -> int:
    """Run the workflow; returns the exit status."""
    options = parse_arguments(arguments)
    warnings.filterwarnings("ignore", module="keras.*")  # what QKeras makes Keras say about its quantisers
    try:
        run(options)
    except (DeviceError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Events, features, classifier, pictures."""
    options.out.mkdir(parents=True, exist_ok=True)
    program = Program.load(options.program) if options.program else compile_network(options)
    events = toy_neutrinos.generate(options.events, options.seed)
    plots.draw_two_views(
        events.views[: len(toy_neutrinos.CLASSES)], toy_neutrinos.CLASSES, options.out / "toy-events.png"
    )
    print(f"{len(events)} toy events of {len(toy_neutrinos.CLASSES)} classes; displays: {options.out}/toy-events.png")
    features = compute_features(
        options.device, program, toy_neutrinos.network_images(events.views, program.image.height)
    )

    recipe = head.Recipe(hidden=options.hidden, epochs=options.epochs, seed=options.seed)
    fitted = head.fit(head.sample(features, events.labels, toy_neutrinos.CLASSES), recipe)
    provenance = {"toy_events": {"count": len(events), "seed": options.seed}, **fitted.provenance}
    save_classifier(options.out / "toy-classifier.npz", fitted.classifier, provenance)
    print_confusion(fitted)
    table = confusion(fitted.labels, fitted.probabilities.argmax(axis=1), len(toy_neutrinos.CLASSES))
    title = f"toy neutrinos, {program.name} on {options.device}: accuracy {fitted.accuracy}"
    plots.draw_confusion(table, toy_neutrinos.CLASSES, title, options.out / "toy-confusion.png")
    print(f"picture: {options.out}/toy-confusion.png; classifier: {options.out}/toy-classifier.npz")


def compile_network(options: argparse.Namespace) -> Program:
    """The featurizer as a program for the board's NPU."""
    model = checkpoint.load_quantised(options.network)
    convert(model, "NPU", output_dir=str(options.out), name="featurizer", board=options.board).write()
    return Program.load(options.out / "featurizer.npu")


def compute_features(where: str, program: Program, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The features [n, features] of images uint8 [n, size, size, 3], on a device of this machine or on a service."""
    with open_npu(where, program) as npu:
        found = tqdm(npu.run_many(images), desc=where, total=len(images), unit="event")
        return np.stack([result.features for result in found])


def print_confusion(fitted: head.Fitted) -> None:
    """What each class was taken for, and how often it was right."""
    names = fitted.classifier.classes
    table = confusion(fitted.labels, fitted.probabilities.argmax(axis=1), len(names))
    print(f"\n{'truth':16}" + "".join(f"{name:>16}" for name in names))
    for name, row in zip(names, table / table.sum(axis=1, keepdims=True), strict=True):
        print(f"{name:16}" + "".join(f"{share:16.3f}" for share in row))
    print(
        f"toy events: accuracy {fitted.accuracy} on {len(fitted.labels)} that the classifier has not seen (by chance: {1 / len(names):.3f})"
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--events", type=int, default=3000, help="toy events to generate (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the events and of the fit (default: %(default)s)")
    add("--network", type=Path, default=checkpoint.DEMO, help="featurizer (default: the one that ships)")
    add("--program", type=Path, help="program file of a featurizer, such as a service runs; not compiled then")
    add("--device", default="emulator", help="a device, or grpc://host:port of a service (default: %(default)s)")
    add("--board", default="sim-small", help="configuration in hw/boards (default: %(default)s)")
    add("--hidden", type=int, default=256, help="hidden units of the classifier (default: %(default)s)")
    add("--epochs", type=int, default=40, help="of the classifier's fit (default: %(default)s)")
    add("--out", type=Path, default=Path("build/neutrinos"), help="folder for results (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
