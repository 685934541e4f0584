"""A whole search on a GPU: 60 trials of ResNet-20 on Fashion-MNIST at 25% of the FLOPs, and a finetune.

    python -m experiments.gpu.search [--device cuda] [--tiny]

search.csv has a row for each trial. search.json has seconds, scores and the setting that was chosen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from autoprune import run
from autoprune.config import load_config
from autoprune.data._sources import DEBIAN_FASHION_MNIST
from autoprune.support.events import EpochDone, Event, Stage, TrialDone
from experiments.gpu.common import Bench, bench_of

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "experiments" / "fashion_mnist_resnet20" / "dense.safetensors"
TRIALS, EPOCHS = 60, 5
FOLDERS = (Path("data"), Path("data/FashionMNIST/raw"), Path("data/fashion-mnist"))


def main() -> None:
    bench = bench_of("search")
    with TemporaryDirectory(prefix="autoprune-gpu-") as folder:
        found = whole(bench, Path(folder))
    text = json.dumps(found, indent=1)
    (bench.output / "search.json").write_text(text + "\n", "utf-8")
    print(text, flush=True)


def whole(bench: Bench, folder: Path) -> dict[str, object]:
    """Search and finetune, and return the summary."""
    stages: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, TrialDone):
            names = ("number", "outcome", "score", "share", "seconds", "reason")
            bench.write({name: getattr(event, name) for name in names})
        elif isinstance(event, Stage):
            stages.append(event.text)
            print(event.text, flush=True)
        elif isinstance(event, EpochDone):
            print(event, flush=True)

    bench.reset_peak()
    trials, steps = (2, 2) if bench.tiny else (TRIALS, 50)
    given = [
        *base_settings(bench, folder),
        *(f"search.trials={trials}", f"score.rungs=['calibrate', '{steps} steps']"),
        *("race.entrants=1", f"finetune.epochs={1 if bench.tiny else EPOCHS}"),
    ]
    started = time.perf_counter()
    result = run.search(config=load_config("digits", given), watch=watch)
    search_s = time.perf_counter() - started
    started = time.perf_counter()
    tuned = run.finetune(result, watch=watch)
    return {
        "search_s": round(search_s, 1),
        "finetune_s": round(time.perf_counter() - started, 1),
        "trials": trials,
        "steps_of_a_trial": steps,
        "epochs": 1 if bench.tiny else EPOCHS,
        "macs_share": round(int(tuned.cost.macs) / int(tuned.dense_cost.macs), 4),
        **{name: score for name, score in tuned.scores.items()},
        "peak_mib": bench.peak_mib(),
        "device": torch.cuda.get_device_name(bench.device) if bench.on_cuda else bench.device,
        "setting": next((text for text in stages if text.startswith("one training step")), ""),
    }


def base_settings(bench: Bench, folder: Path) -> Sequence[str]:
    """Return the settings that all searches of these experiments share, as changes of the config "digits".

    Raises:
        FileNotFoundError: there is no Fashion-MNIST here.
    """
    places = [
        f"search.device={bench.device}",
        f"search.storage=sqlite:///{folder}/study.db",
        f"output.folder={folder}/out",
        "search.study=gpu",
        "budget.flops=25%",
    ]
    if bench.tiny:
        return [*places, f"model.checkpoint={folder}/dense.safetensors", "train.epochs=1"]
    require_images()
    return [
        *places,
        *("model.name=resnet20", f"model.checkpoint={CHECKPOINT}"),
        *("data.name=fashion-mnist", "data.batch_size=128", "data.val_fraction=0.1"),
        *("train.when_missing=false", f"search.space={ROOT / 'search_spaces' / 'resnet20.toml'}"),
    ]


def require_images() -> None:
    """Refuse to begin without the images, because torchvision would try to download them.

    Raises:
        FileNotFoundError: they are neither in data/ nor in the folder of Debian's package.
    """
    places = [*FOLDERS, DEBIAN_FASHION_MNIST]
    if not any(list(place.glob("train-images-idx3-ubyte*")) for place in places):
        raise FileNotFoundError(
            "Fashion-MNIST: no train-images-idx3-ubyte.gz in data/fashion-mnist or Debian's folder. Copy the "
            "four files to data/fashion-mnist"
        )


if __name__ == "__main__":
    main()
