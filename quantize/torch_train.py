"""Training in PyTorch, on any GPU or CPU: float taggers with batch normalisation, and quantised ones.

The images are drawn from the constituents batch by batch, each jet mirrored at random in eta and in phi as train.fit does. An
interrupted training goes on from its checkpoint. On a GPU, float training computes in bfloat16 where that is safe; quantised training
is exact everywhere.
"""

import hashlib
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from quantize.dataset import Jets, written_whole
from quantize.evaluate import auc
from quantize.images import jet_planes as numpy_planes
from quantize.torch_images import jet_planes, mirrored
from quantize.torch_network import Featurizer, Quantised, Tagger, network_input
from quantize.train import Schedule

RECORDS = 20
"""Points of a learning curve."""
CHECKPOINT_SECONDS = 120.0
KEPT = 100
"""Jets whose features are kept together."""


@dataclass
class Progress:
    """How far a training has come. curve: records of images, seconds, rate, loss, accuracy and AUC, or of val_auc."""

    images: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def best_device() -> str:
    """Return the GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit(
    tagger: Tagger,
    train: Jets,
    val: Jets,
    schedule: Schedule,
    folder: Path,
    device: str | None = None,
    minutes: float | None = None,
    teacher: Featurizer | None = None,
) -> Progress:
    """Train a tagger in place.

    folder: holds a checkpoint, written every two minutes; training continues from there when it exists.
    minutes: end after this time even when the epochs are not over; the learning rate falls to zero in time.
    teacher: a featurizer whose features are learned instead of the labels (Hinton et al., arXiv:1503.02531): the loss is the squared
    error of the features over the variance of the teacher's. An image then says as much as it has features. The classifier stays.
    The curve's loss, accuracy and AUC are those of training jets before the network learned from them: in the first epoch they are
    jets that it has never seen. val_auc is measured on `val`, before and after.
    """
    if len(train) < schedule.batch:
        raise ValueError(f"{len(train)} training jets are fewer than one batch of {schedule.batch}: generate more")
    device = device or best_device()
    quantised = isinstance(tagger.featurizer, Quantised)
    if quantised:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    tagger.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as torch documents it
    if teacher is not None:
        teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(tagger.parameters(), schedule.rate, eps=1e-7, fused=True)  # Keras's epsilon
    size = tagger.featurizer.config.size
    per_epoch = len(train) // schedule.batch
    total = per_epoch * schedule.epochs
    saved = folder / "checkpoint.pt"
    progress = _resume(saved, tagger, optimizer, device)
    if not progress.images:
        progress.curve.append({"images": 0, "seconds": 0.0, "val_auc": _validate(tagger, val)})
        print(f"validation AUC {progress.curve[-1]['val_auc']:.4f}", flush=True)
    window, mark = _Window(), RECORDS
    clock, last_saved, earlier = time.monotonic(), time.monotonic(), progress.seconds
    bar = tqdm(total=total * schedule.batch, initial=progress.images, desc="train", unit="jet", mininterval=5)
    for step in range(progress.images // schedule.batch, total):
        share = max(step / total, progress.seconds / (60 * minutes) if minutes else 0.0)
        if share >= 1:
            break
        rate = _rate(schedule.rate, share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen, mirror = _batch(len(train), schedule, *divmod(step, per_epoch))
        planes = mirrored(jet_planes(train.constituents[chosen], size, device), mirror)
        labels = torch.from_numpy(train.is_top[chosen]).to(device)
        tagger.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu" and not quantised):
            x = network_input(planes, device)
            given = tagger.featurizer(x)
            logits = tagger.classify(given)
            if teacher is None:
                loss = functional.cross_entropy(logits.float(), labels)
            else:
                with torch.no_grad():
                    wanted = teacher(x)
                loss = (given - wanted).square().sum() / (wanted - wanted.mean(dim=0)).square().sum()
        loss.backward()
        optimizer.step()
        progress.images += len(chosen)
        progress.seconds = earlier + time.monotonic() - clock
        window.add(logits.detach().float().softmax(dim=1)[:, 1].cpu().numpy(), train.is_top[chosen], loss.item())
        bar.update(len(chosen))
        if int(share * RECORDS) > mark:
            progress.curve.append(window.record(progress, rate))
            bar.set_postfix_str(" ".join(f"{k} {progress.curve[-1][k]:.4f}" for k in ("loss", "auc")))
            window = _Window()
        mark = int(share * RECORDS)
        if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
            _save(saved, tagger, optimizer, progress)
            last_saved = time.monotonic()
    bar.close()
    if window.labels:
        progress.curve.append(window.record(progress, 0.0))
    if "val_auc" not in progress.curve[-1]:
        last = {"images": progress.images, "seconds": progress.seconds, "val_auc": _validate(tagger, val)}
        progress.curve.append(last)
    print(f"validation AUC {progress.curve[-1]['val_auc']:.4f} after {progress.images} images", flush=True)
    _save(saved, tagger, optimizer, progress)
    return progress


@torch.no_grad()
def features(featurizer: Featurizer, planes: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float32]:
    """Return the features, float32 [n, features], of planes uint8 [n, size, size]; exact for a quantised featurizer."""
    device = next(featurizer.parameters()).device
    featurizer.eval()
    starts = tqdm(range(0, len(planes), batch), desc="features", unit="batch", leave=False, mininterval=5)
    return np.concatenate([featurizer(network_input(planes[s : s + batch], device)).cpu().numpy() for s in starts])


def kept_features(featurizer: Featurizer, planes: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Return `features`, computed once: they stay in `folder`, in parts; an interrupted run goes on, a longer one adds to them."""
    digest = hashlib.sha256(repr((type(featurizer).__name__, featurizer.config)).encode())
    if isinstance(featurizer, Quantised):
        fractions = featurizer.fractions
        digest.update(repr((sorted(fractions.weights.items()), sorted(fractions.activations.items()))).encode())
    for name, tensor in featurizer.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    parts = []
    for start in tqdm(range(0, len(planes), KEPT), desc="features", unit=f"{KEPT} jets", leave=False):
        part = planes[start : start + KEPT]
        key = f"{hashlib.sha256(part.tobytes()).hexdigest()[:12]}.npy"
        path = folder / digest.hexdigest()[:12] / key
        if not path.is_file():
            with written_whole(path) as temporary:
                np.save(temporary, features(featurizer, part))
        parts.append(np.load(path))
    return np.concatenate(parts)


class _Window:
    """What the network said of the jets since the last record."""

    def __init__(self) -> None:
        self.p_top: list[NDArray] = []
        self.labels: list[NDArray] = []
        self.losses: list[float] = []

    def add(self, p_top: NDArray, labels: NDArray, loss: float) -> None:
        self.p_top.append(p_top)
        self.labels.append(labels)
        self.losses.append(loss)

    def record(self, progress: Progress, rate: float) -> dict[str, float]:
        p_top, labels = np.concatenate(self.p_top), np.concatenate(self.labels)
        both = 0 < labels.sum() < len(labels)
        return {
            "images": progress.images,
            "seconds": round(progress.seconds, 1),
            "rate": rate,
            "loss": float(np.mean(self.losses)),
            "accuracy": float(((p_top > 0.5) == (labels == 1)).mean()),
            **({"auc": auc(labels, p_top)} if both else {}),
        }


def _rate(peak: float, share: float) -> float:
    """Warm up over the first 5 % from a hundredth, then fall along a cosine to zero, as train.fit does."""
    if share < 0.05:
        return peak * (0.01 + 0.99 * share / 0.05)
    return peak * 0.5 * (1 + float(np.cos(np.pi * (share - 0.05) / 0.95)))


def _batch(jets: int, schedule: Schedule, epoch: int, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The jets of a batch [batch], and which of them are mirrored along each axis [2, batch]; the same as train.fit's."""
    rng = np.random.default_rng((schedule.seed, epoch))
    order = rng.permutation(jets)
    mirror = rng.random((2, jets)) < 0.5
    chosen = order[index * schedule.batch : (index + 1) * schedule.batch]
    return chosen, mirror[:, chosen]


def _validate(tagger: Tagger, val: Jets) -> float:
    planes = numpy_planes(val.constituents, tagger.featurizer.config.size)
    return auc(val.is_top, tagger.classifier().probabilities(features(tagger.featurizer, planes))[:, 1])


def _resume(saved: Path, tagger: Tagger, optimizer: torch.optim.Optimizer, device: str) -> Progress:
    if not saved.is_file():
        return Progress()
    try:
        state: dict[str, Any] = torch.load(saved, map_location=device, weights_only=True)
        tagger.load_state_dict(state["tagger"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    except Exception as error:  # whatever is in the file
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{saved} is not a checkpoint of this training ({reason}): remove it to begin anew") from error
    print(f"continuing after {progress.images} images from {saved}", flush=True)
    return progress


def _save(path: Path, tagger: Tagger, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    state = {"tagger": tagger.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    with written_whole(path) as temporary:
        torch.save(state, temporary)
