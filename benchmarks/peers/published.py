"""The published implementation's side of the comparison: ``python published.py JOB.json RESULT.json``.

Runs with the interpreter of its own environment (``installed.py`` makes it), one job per process, and never sees our
package. Training, methods and evaluation go through the package's own entry points ``run_training`` and
``run_unlearning``, with its own functions and its own loaders on the images in the folder; clocks are put around its
functions ``track_resources`` (a method) and ``get_metric_scores`` (an evaluation). Where it leaves a choice, what is
faster for it is taken: one process for a whole cell in place of two per method, and no process group. Its loaders have
8 worker processes, 32 for the membership attack; its own switch, the environment variable SCALENE, sets both to 0.

Patched at run time, none of it touching what is computed:

1. The number of CUDA devices that it asks for is at least one: on a machine without any it asks for none, and fails.
2. ``LogisticRegression(multi_class="multinomial")`` is made as ``LogisticRegression(C=2)`` where scikit-learn has no
   such argument any more; with two classes that is the same classifier.
"""

import functools
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

METHODS = {
    "Retrain": "retrain",
    "FineTune": "finetune",
    "BadTeacher": "bad_teacher",
    "RandomLabels": "random_labeling",
    "UNSIR": "unsir",
    "SSD": "ssd",
    "LFSSD": "lfssd",
}
METRICS = (
    *("accuracy", "zrf", "jsdiv", "membership_inference_attack"),
    *("activation_distance", "layerwise_distance", "completeness", "time"),
)
SEED, BATCH = 260, 64


class Images(ImageFolder):
    """The images of the comparison in the form that the package asks of a dataset, with its transforms of CIFAR-10."""

    def __init__(
        self, root: str, train: bool, unlearning: bool, download: bool, img_size: int = 32, model_name: str = ""
    ) -> None:
        from supreme.datasets import datasets as own

        steps = own._build_train_transforms if train and not unlearning else own._build_test_transforms
        steps = [*steps(own.CIFAR10_MEAN, own.CIFAR10_STD), transforms.Resize(img_size, antialias=True)]
        super().__init__(str(Path(root, "train" if train else "test")), transforms.Compose(steps))

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        """Image, no fine class, class."""
        image, target = super().__getitem__(index)
        return image, torch.Tensor([]), target


def used() -> float:
    """CPU seconds of this process and of its loader workers so far."""
    return sum(os.times()[:4])


class Clock:
    """Seconds of every call of some functions, by the name they are given here."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.cpu_seconds: dict[str, list[float]] = {}
        self.results: dict[str, Any] = {}

    def around(self, place: Any, function: str, name: str) -> None:
        """Time every call of a module's function from now on, and keep what the last one returned."""
        inner: Callable[..., Any] = getattr(place, function)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started, before = time.perf_counter(), used()
            self.results[name] = inner(*args, **kwargs)
            self.seconds.setdefault(name, []).append(time.perf_counter() - started)
            self.cpu_seconds.setdefault(name, []).append(used() - before)
            return self.results[name]

        setattr(place, function, timed)

    def last(self, name: str) -> float:
        """Seconds of the last call."""
        return self.seconds[name][-1]

    def last_cpu(self, name: str) -> float:
        """CPU seconds of the last call."""
        return self.cpu_seconds[name][-1]


def patch() -> None:
    """What newer versions of libraries, and machines without CUDA, make necessary."""
    from supreme.eval_metrics import membership_inference_attack as attack
    from supreme.utils.training import train_main
    from supreme.utils.unlearning import unlearn_main

    for place in (train_main, unlearn_main):
        place.num_cuda_devices = functools.partial(_at_least_one, place.num_cuda_devices)
    classifier = attack.LogisticRegression
    if "multi_class" not in inspect.signature(classifier).parameters:
        attack.LogisticRegression = lambda multi_class, **given: classifier(C=2.0, **given)


def _at_least_one(count: Callable[[], int]) -> int:
    return max(1, count())


class Published:
    """The package on one folder of images.

    Args:
        job: images, workspace, classes, epochs and threads, as ``side_by_side.py`` writes them.
        name: keeps the files of jobs apart.
    """

    def __init__(self, job: dict[str, Any], name: str) -> None:
        os.environ["SUPREME_PROJECT_ROOT"] = str(Path(job["workspace"], name))
        import supreme

        torch.set_num_threads(job["threads"])
        self.job, self.root, self.supreme = job, Path(job["workspace"], name), supreme
        classes = {label: index for index, label in enumerate(job["classes"])}
        epochs = {"rn_epochs": job["epochs"], "rn_milestones": [1000]}
        supreme.register_dataset("Images", Images, root=job["images"], class_dict=classes, **epochs)
        patch()
        from supreme.utils.unlearning import unlearn_main

        self.clock = Clock()
        self.clock.around(unlearn_main, "track_resources", "method")
        self.clock.around(unlearn_main, "get_metric_scores", "evaluation")
        self.clock.around(supreme, "run_training", "train")
        self.clock.around(supreme, "run_unlearning", "unlearn")
        self.common = [
            *("-net", "ResNet18", "-dataset", "Images", "-classes", str(len(classes)), "-precision", "32-true"),
            *("-batch_size", str(BATCH), "-distributed_strategy", "auto"),
        ]

    def train(self) -> None:
        """M_o."""
        seeds = ["-training_seed", str(SEED), "-unlearning_seed", str(SEED)]
        self.supreme.run_training([*self.common, *seeds])

    @property
    def weights(self) -> Path:
        """The file of M_o."""
        return max(self.root.rglob("*best.pth"), key=lambda path: path.stat().st_mtime)

    def model(self, method: str, target: str) -> Path:
        """The file of a method's model."""
        name = METHODS[method].capitalize()
        return self._folder(target) / name / f"{name}_model.pth"

    def _folder(self, target: str) -> Path:
        return self.root / "logs" / "images" / "ResNet18" / "classes" / target

    def unlearn(
        self, method: str, target: str, weights: Path, evaluate: bool = False, again: bool = False, metrics: Any = None
    ) -> None:
        """Run a method, unless its model is there already, and evaluate it."""
        os.environ["PERFORM_EVALUATION"] = str(evaluate).lower()
        os.environ["LOG_DIR"] = str(self._folder(target))
        self._folder(target).mkdir(parents=True, exist_ok=True)
        wanted = [
            "-method",
            METHODS[method],
            "-forget_class_name",
            target,
            "-eval_metrics",
            ",".join(metrics or METRICS),
        ]
        kind = ["-type_of_unlearning_strategy", "fullclass", "-weight_path", str(weights), "-seed", str(SEED)]
        self.supreme.run_unlearning([*kind, *self.common, *wanted, *(["-force_reunlearning"] if again else [])])


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """M_o, M_r and one M_u for the jobs that evaluate, and what the other side has to know."""
    side = Published(job, "prepared")
    side.train()
    for method in ("Retrain", "SSD"):
        side.unlearn(method, job["targets"][0], side.weights, metrics=["accuracy"])
    from supreme.datasets import datasets as own

    models = {name: str(side.model(name, job["targets"][0])) for name in ("Retrain", "SSD")}
    return {
        "models": {"Original": str(side.weights), **models},
        "mean": own.CIFAR10_MEAN,
        "std": own.CIFAR10_STD,
        "versions": {name: metadata.version(name) for name in ("supreme-unlearning", "torch", "lightning")},
    }


def evaluation(job: dict[str, Any]) -> dict[str, Any]:
    """Every metric of the M_u that is there."""
    side = Published(job, "prepared")
    target = job["targets"][0]
    side.unlearn("SSD", target, Path(job["prepared"]["models"]["Original"]), evaluate=True)
    values = side.clock.results["evaluation"]
    found = {
        "layerwise_distance": values["layerwise_distance"]["unlearning_method"]["layerwise_distance"],
        "accuracy": values["accuracy"]["test"]["unlearning_method"]["whole_acc"],
    }
    return {
        "seconds": {"evaluation": side.clock.last("evaluation")},
        "cpu_seconds": {"evaluation": side.clock.last_cpu("evaluation")},
        "values": {name: value["final_value"] for name, value in found.items()},
    }


def importances(job: dict[str, Any]) -> dict[str, Any]:
    """SSD and LFSSD on a first and on a further target of the same M_o."""
    side, weights = Published(job, "importances"), Path(job["prepared"]["models"]["Original"])
    seconds, cpu_seconds = {}, {}
    for method in ("SSD", "LFSSD"):
        for name, target in zip(("first target", "further target"), job["targets"], strict=True):
            side.unlearn(method, target, weights, again=True, metrics=["accuracy"])
            seconds[f"{method}, {name}"] = side.clock.last("method")
            cpu_seconds[f"{method}, {name}"] = side.clock.last_cpu("method")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def cell(job: dict[str, Any]) -> dict[str, Any]:
    """Train, retrain, six methods, and an evaluation of each."""
    side = Published(job, f"cell-{os.getpid()}")
    started, before = time.perf_counter(), used()
    side.train()
    seconds = {"train": side.clock.last("train")}
    for method in METHODS:
        side.unlearn(method, job["targets"][0], side.weights, evaluate=True)
        seconds[method] = side.clock.last("method")
    seconds["evaluation"] = sum(side.clock.seconds["evaluation"])
    total, cpu = time.perf_counter() - started, used() - before
    return {
        "seconds": {"total": total, **seconds, "other": total - sum(seconds.values())},
        "cpu_seconds": {"total": cpu},
    }


JOBS = {"prepare": prepare, "evaluation": evaluation, "importances": importances, "cell": cell}


def main() -> None:
    """Do the job of the first file and write what it took to the second."""
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(JOBS[job["job"]](job)))


if __name__ == "__main__":
    main()
