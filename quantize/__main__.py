"""The command line: `python -m quantize <command> --help`."""

import argparse
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from quantize.dataset import SPLITS

SAMPLES = ("calibration", "finetuning", "classifier", "validation", "test")
"""Of a plan's jets, beside those that float training takes."""
DEMO_SPLIT = {"train": 0.80, "val": 0.05, "test": 0.15}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status; user errors are printed in one line."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _jets(options: argparse.Namespace) -> None:
    from quantize.jets import Recipe, generate

    split = dict(zip(("train", "val", "test"), options.split, strict=True))
    manifest = generate(options.out, Recipe(seed=options.seed), options.jets, split, options.jobs)
    for name, counts in manifest["counts"].items():
        print(f"{options.out / name}.h5: {counts['top']} top and {counts['qcd']} QCD jets")
    _draw_page(options.out, options.out / "validation.png")


def _validate(options: argparse.Namespace) -> None:
    from quantize.jets import verify

    if (options.jets / "manifest.json").is_file():  # the public files have none
        for name, count in verify(options.jets).items():
            print(f"{options.jets / name}.h5: the {count} jets of the manifest, bit for bit")
    _draw_page(options.jets, options.picture or options.jets / "validation.png")


def _draw_page(folder: Path, picture: Path) -> None:
    from quantize.validation import validate

    for line in validate(folder, picture):
        print(line)
    print(f"page: {picture}")


def _workshop(options: argparse.Namespace):  # type: ignore[no-untyped-def]  # a Workshop; TensorFlow stays lazy
    import tensorflow as tf

    from quantize.pipeline import Plan, Workshop
    from quantize.resnet import ResNetConfig

    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    plan = Plan(
        config=ResNetConfig(tuple(options.stages), options.width, options.size, options.version),
        hidden=options.hidden,
        training_jets=options.limit,
    )
    jets = {f"{name}_jets": getattr(options, f"{name}_jets") for name in SAMPLES}
    plan = replace(plan, **{name: value for name, value in jets.items() if value is not None})
    plan = replace(
        plan,
        float_schedule=_schedule(plan.float_schedule, options, "float"),
        finetune_schedule=_schedule(plan.finetune_schedule, options, "finetune"),
        classifier_schedule=replace(plan.classifier_schedule, epochs=options.classifier_epochs),
    )
    if options.framework == "keras":
        return Workshop(options.out, plan, options.jets)
    if not find_spec("torch"):
        raise ValueError("--framework torch needs PyTorch: pip install 'quarkwave[torch]'")
    from quantize.torch_pipeline import Door, TorchWorkshop

    door = Door(
        options.start, options.noise, options.batch_norm == "yes", options.minutes, options.device, options.teacher
    )
    return TorchWorkshop(options.out, plan, options.jets, door)


def _schedule(schedule, options: argparse.Namespace, which: str):  # type: ignore[no-untyped-def]  # a train.Schedule
    given = {
        "epochs": getattr(options, f"{which}_epochs"),
        "rate": getattr(options, f"{which}_rate"),
        "batch": options.batch,
        "seed": options.seed,
    }
    return replace(schedule, **{name: value for name, value in given.items() if value is not None})


def _train(options: argparse.Namespace) -> None:
    _workshop(options).train_float()


def _calibrate(options: argparse.Namespace) -> None:
    _workshop(options).calibrate()


def _finetune(options: argparse.Namespace) -> None:
    _workshop(options).finetune()


def _refit(options: argparse.Namespace) -> None:
    _workshop(options).refit()


def _head(options: argparse.Namespace) -> None:
    from quantize import head, plots
    from quantize.classifier import save_classifier
    from quantize.evaluate import confusion

    data = head.read_sample(options.features, options.labels, tuple(options.classes or ()))
    if options.network:
        from quantize import checkpoint

        wanted = checkpoint.load(options.network).network.config.features
        if data.features.shape[1] != wanted:
            raise ValueError(
                f"{options.features} has {data.features.shape[1]} features, {options.network} gives {wanted}"
            )
    names = ("hidden", "epochs", "batch", "rate", "seed", "held_out")
    made = head.fit(data, head.Recipe(**{name: getattr(options, name) for name in names}))
    save_classifier(options.out, made.classifier, made.provenance)
    print(f"{options.out}: {' or '.join(made.classifier.classes)}, from {data.features.shape[1]} features")
    print(
        f"accuracy {made.accuracy} on {len(made.labels)} held-out events; {len(data) - len(made.labels)} were fitted to"
    )
    if options.picture:
        table = confusion(made.labels, made.probabilities.argmax(axis=1), len(data.classes))
        plots.draw_confusion(table, data.classes, f"accuracy {made.accuracy}", options.picture)
        print(f"picture: {options.picture}")


def _import(options: argparse.Namespace) -> None:
    from quantize import float_network
    from quantize.importer import read_resnet

    network = read_resnet(options.weights, options.size, options.pixels, options.version)
    float_network.save(options.out, network)
    classes = len(network.classifier.classes) if network.classifier else "no"
    print(f"{options.out}: stages {list(network.config.stages)}, {network.config.features} features, {classes} classes")


def _imagenet(options: argparse.Namespace) -> None:
    from quantize import checkpoint, imagenet, train
    from quantize.importer import read_resnet
    from quantize.pipeline import quantise

    network = read_resnet(options.weights, options.size, options.pixels, options.version)
    if network.classifier is None:
        raise ValueError(f"{options.weights} has no dense layer (a file without top): there is nothing to evaluate")
    classes = tuple(options.classes.read_text().split()) if options.classes else ()
    size, classifier = network.config.size, network.classifier
    folder = imagenet.labelled_folder(options.evaluation, classes, len(classifier.classes))
    sample = imagenet.pictures_below(options.calibration, options.calibration_pictures)
    quantised = quantise(network, imagenet.read_pictures(sample, size)).network
    reached = {}
    for name, model in (("float", network.to_keras()), ("quantised", checkpoint.to_keras(quantised))):
        reached[name] = imagenet.measure(folder, partial(train.compute, model), classifier, size)
        print(f"{name}: {reached[name]}")
    provenance = {**network.provenance, "evaluation": {name: str(value) for name, value in reached.items()}}
    checkpoint.save(options.out, checkpoint.Checkpoint(quantised, classifier, provenance))
    print(f"the quantised network is {options.out}")


def _demo_net(options: argparse.Namespace) -> None:
    from quantize.jets import Recipe, generate

    folder = options.jets or options.out / "jets"
    if not all((folder / f"{name}.h5").is_file() for name in SPLITS):
        generate(folder, Recipe(), options.jets_per_class, DEMO_SPLIT, options.jobs)
    artefact = _workshop(options).run()
    print(f"the trained network is {artefact}")
    if options.install:
        from quantize.checkpoint import DEMO

        DEMO.parent.mkdir(exist_ok=True)
        shutil.copyfile(artefact, DEMO)
        print(f"and now the demo's: {DEMO}")


def _evaluate(options: argparse.Namespace) -> None:
    from quantize import checkpoint, dataset
    from quantize.evaluate import evaluate
    from quantize.pipeline import tag
    from quantize.train import LabelledImages

    trained = checkpoint.load(options.network or checkpoint.DEMO)
    jets = dataset.read(options.jets, options.limit)
    images = LabelledImages.of(jets.constituents, jets.is_top, trained.network.config.size)
    p_top = tag(trained, images)[:, 1]
    print(evaluate(images.is_top, p_top))
    if options.plots:
        from quantize import plots

        plots.draw_roc({"quantised": (images.is_top, p_top)}, options.plots / "roc.png")
        plots.draw_mean_images(images.planes, images.is_top, options.plots / "mean_images.png")
        print(f"pictures: {options.plots / 'roc.png'}, {options.plots / 'mean_images.png'}")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("python -m quantize", description="Jets, networks, training, evaluation.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]  # a function
        added = commands.add_parser(name, help=text, description=text, formatter_class=formatter)
        added.set_defaults(run=run)
        return added

    jets = command("jets", _jets, "Generate top and QCD jets in the public dataset's layout.")
    jets.add_argument("--out", type=Path, required=True, help="folder for train.h5, val.h5, test.h5 and manifest.json")
    jets.add_argument("--jets", type=int, default=30_000, help="jets of each class, over all splits")
    jets.add_argument("--seed", type=int, default=1, help="another seed gives other jets; 1 to 8000")
    jets.add_argument("--jobs", type=int, default=_cores(), help="processes; the jets do not depend on it")
    jets.add_argument(
        "--split", type=float, nargs=3, default=[0.8, 0.05, 0.15], metavar=("TRAIN", "VAL", "TEST"), help="shares"
    )

    validation = command("validate", _validate, "Compare jets with their manifest and draw a page of observables.")
    validation.add_argument("--jets", type=Path, required=True, help="folder of jets")
    validation.add_argument(
        "--picture", type=Path, help="the page (PNG); validation.png beside the jets when not given"
    )

    steps = {
        "train": (_train, "Train the float network and fold its batch normalisation."),
        "calibrate": (_calibrate, "Quantise the trained network with the best power-of-two scales."),
        "finetune": (_finetune, "Fine-tune the quantised network."),
        "refit": (_refit, "Re-fit the fine-tuned network's classifier on the NPU's features, and measure every stage."),
        "demo-net": (_demo_net, "Run the whole chain, from jets to the trained artefact; go on where it stopped."),
    }
    for name, (run, text) in steps.items():
        step = command(name, run, text)
        step.add_argument("--out", type=Path, required=True, help="folder of the network in the making")
        step.add_argument("--jets", type=Path, help="folder of the jets; OUT/jets when not given")
        step.add_argument("--stages", type=int, nargs="+", default=[3, 4, 6, 3], help="blocks of each stage")
        step.add_argument("--width", type=int, default=16, help="channels of the stem; ResNet-50 has 64")
        step.add_argument("--size", type=int, default=64, help="pixels a side; ResNet-50 has 224")
        step.add_argument("--version", choices=("v1", "v1.5"), default="v1.5", help="stride on the 1x1 or on the 3x3")
        step.add_argument(
            "--hidden", type=int, default=256, help="hidden units of the classifier; the paper's has 1024"
        )
        step.add_argument("--limit", type=int, help="training jets; all when not given")
        step.add_argument("--float-epochs", type=int, help="epochs of float training")
        step.add_argument("--float-rate", type=float, help="peak learning rate of float training")
        step.add_argument("--finetune-epochs", type=int, help="epochs of quantised fine-tuning")
        step.add_argument("--finetune-rate", type=float, help="peak learning rate of quantised fine-tuning")
        step.add_argument("--classifier-epochs", type=int, default=10, help="epochs of the classifier's last fit")
        step.add_argument("--batch", type=int, help="jets in a batch")
        step.add_argument("--seed", type=int, help="of initial weights and batches")
        for sample in SAMPLES:
            step.add_argument(f"--{sample}-jets", type=int, help=f"jets of the {sample} sample, when not as planned")
        step.add_argument("--threads", type=int, help="TensorFlow threads; all cores when not given")
        step.add_argument("--framework", choices=("keras", "torch"), default="keras", help="torch: what follows")
        step.add_argument("--start", type=Path, help="float.npz to begin with: any size, as wide or narrower")
        step.add_argument("--noise", type=float, default=0.02, help="on replicated channels, where START is narrower")
        step.add_argument("--batch-norm", choices=("yes", "no"), default="yes", help="no: train the folded network")
        step.add_argument(
            "--teacher", action="store_true", help="fine-tune towards the float network's features, not labels"
        )
        step.add_argument("--minutes", type=float, help="of training at most, however many epochs")
        step.add_argument("--device", help="cuda or cpu; the GPU where there is one when not given")
        if name == "demo-net":
            step.add_argument("--jets-per-class", type=int, default=40_000, help="jets to generate where none are")
            step.add_argument("--jobs", type=int, default=_cores(), help="processes that generate jets")
            step.add_argument("--install", action="store_true", help="make the result the network that ships")

    evaluation = command("evaluate", _evaluate, "Measure a trained artefact: accuracy, AUC, background rejection.")
    evaluation.add_argument("--network", type=Path, help="artefact; the one that ships when not given")
    evaluation.add_argument("--jets", type=Path, required=True, help="HDF5 file in the public layout")
    evaluation.add_argument("--limit", type=int, help="first jets to use; all when not given")
    evaluation.add_argument("--plots", type=Path, help="folder for roc.png and mean_images.png")

    for name, run, text in (
        (
            "import",
            _import,
            "Bring a trained ResNet of torchvision's or Keras's layout, as float.npz for the next steps.",
        ),
        ("imagenet", _imagenet, "Import a ResNet, quantise it on a folder of pictures, and measure it on another."),
    ):
        bring = command(name, run, text)
        bring.add_argument(
            "--weights", type=Path, required=True, help=".safetensors, .npz, .h5; .pt and .pth with PyTorch"
        )
        bring.add_argument("--out", type=Path, required=True, help="the network (.npz)")
        bring.add_argument("--size", type=int, default=224, help="pixels a side of the image")
        bring.add_argument(
            "--pixels",
            choices=("unit", "torchvision", "caffe"),
            help="what it was trained on; the library's own if not given",
        )
        bring.add_argument(
            "--version", choices=("v1", "v1.5"), help="stride on the 1x1 or the 3x3; the library's own if not given"
        )
        if name == "imagenet":
            bring.add_argument("--calibration", type=Path, required=True, help="folder of pictures, however deep")
            bring.add_argument("--evaluation", type=Path, required=True, help="folder with a sub-folder for each class")
            bring.add_argument(
                "--classes", type=Path, help="text file: the sub-folders' names in the classifier's order"
            )
            bring.add_argument("--calibration-pictures", type=int, default=256, help="how many to calibrate on")

    fitting = command("head", _head, "Fit a new classifier on features; the featurizer stays as it is.")
    fitting.add_argument("--features", type=Path, required=True, help=".npy [n, features], or .npz with `features`")
    fitting.add_argument("--labels", type=Path, required=True, help=".npy [n] of numbers or names, or text, one a line")
    fitting.add_argument("--out", type=Path, required=True, help="the classifier (.npz), as the service loads it")
    fitting.add_argument("--classes", nargs="+", help="names of the classes, in the order of their numbers")
    fitting.add_argument("--network", type=Path, help="artefact that the features must be of")
    fitting.add_argument("--picture", type=Path, help="draw the confusion matrix (PNG)")
    fitting.add_argument("--hidden", type=int, default=256, help="hidden units")
    fitting.add_argument("--epochs", type=int, default=30, help="rounds over the data")
    fitting.add_argument("--batch", type=int, default=128, help="events in a batch")
    fitting.add_argument("--rate", type=float, default=1e-3, help="first learning rate")
    fitting.add_argument("--seed", type=int, default=1, help="of initial weights and of what is held out")
    fitting.add_argument("--held-out", type=float, default=0.2, help="share of each class to measure on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
