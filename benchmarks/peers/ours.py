"""Our side of the comparison: ``python ours.py JOB.json RESULT.json``, the same jobs as ``published.py``.

Every job is timed from outside, around what a user calls: making of Trainers, reading of the image store and set-up
count. Images are decoded once per machine, into the store; that has a row of its own, and is part of a cell. The
``floor`` of an evaluation is what its forward passes alone would take at the machine's speed of large matrix products.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supreme.datasets import ImageFolder
from supreme.distributed import hushed, quiet_trainer
from supreme.evaluation import Evaluation
from supreme.experiment.pins import pin
from supreme.experiment.plan import load_plan
from supreme.experiment.scheduler import run_plan
from supreme.methods import LFSSD, SSD
from supreme.models import ResNet18
from supreme.models.build import reinitialise
from supreme.scenarios import FullClass

METHODS = ("Retrain", "FineTune", "BadTeacher", "RandomLabels", "UNSIR", "SSD", "LFSSD")
SEED, BATCH = 260, 64


def dataset(job: dict[str, Any]) -> ImageFolder:
    """The images, from the store in the workspace."""
    return ImageFolder(job["images"], size=32, root=str(Path(job["workspace"], "store")))


def network(job: dict[str, Any], name: str) -> nn.Module:
    """A model that the other side trained: the layers are the same, in the same order, under other names."""
    made = ResNet18(num_classes=len(job["classes"]))
    stored = torch.load(job["prepared"]["models"][name], weights_only=True)
    values = list(stored.get("model", stored).values())
    made.load_state_dict(dict(zip(made.state_dict(), values, strict=True)))
    made.input_spec = {"mean": job["prepared"]["mean"], "std": job["prepared"]["std"]}
    return made


def scenario(job: dict[str, Any], target: str) -> FullClass:
    """The request to forget a class, in batches as the published side has them."""
    return FullClass(dataset(job), target, batch_size=BATCH, evaluation_batch_size=BATCH)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds and CPU seconds that a piece of work takes, and what it gives."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    with hushed():
        result = work()
    return time.perf_counter() - started, sum(os.times()[:4]) - before, result


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """The image store."""
    return {"seconds": {"image store, once per machine": timed(dataset(job).prepare)[0]}}


def evaluation(job: dict[str, Any]) -> dict[str, Any]:
    """Every metric of one M_u: with nothing known, then with the stored outputs of the models that methods share."""
    unlearned, retrained, original = (network(job, name) for name in ("SSD", "Retrain", "Original"))
    incompetent = reinitialise(original, SEED)

    def evaluate(**known: Any) -> Evaluation:
        made = Evaluation(unlearned, retrained, original, incompetent, seed=SEED, **known)
        data = scenario(job, job["targets"][0])
        quiet_trainer(accelerator="cpu").test(made, datamodule=data, verbose=False)
        return made

    new_s, new_cpu_s, made = timed(evaluate)
    shared = {name: made.outputs[name] for name in ("retrained", "original", "incompetent")}
    cached_s, cached_cpu_s, again = timed(lambda: evaluate(outputs=shared))
    assert again.scores == made.scores, "outputs that were stored give other metrics"
    values = {"layerwise_distance": made.scores["layerwise_distance"], "accuracy": 100 * made.scores["whole/accuracy"]}
    per_s, images = image_ceiling(unlearned), {name: len(rows.index) for name, rows in made.outputs.items()}
    floors = {"floor": sum(images.values()) / per_s, "floor, outputs cached": images["unlearned"] / per_s}
    return {
        "seconds": {"evaluation": new_s, "evaluation, outputs cached": cached_s, **floors},
        "cpu_seconds": {"evaluation": new_cpu_s, "evaluation, outputs cached": cached_cpu_s},
        "values": values | {"images forwarded": sum(images.values()), "images a second at the ceiling": per_s},
    }


def image_ceiling(model: nn.Module, size: int = 4096) -> float:
    """Images of 32 x 32 a second that a network could forward if all its operations ran as fast as a large product.

    Args:
        model: the network.
        size: of the square matrices, whose best product of five counts.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    matrix = torch.ones(size, size)
    best = min(timed(lambda: matrix @ matrix)[0] for _ in range(5))
    return float(2 * size**3 / best / counter.get_total_flops())


def importances(job: dict[str, Any]) -> dict[str, Any]:
    """SSD and LFSSD on a first target, and on a further one with the importances of D that are there."""
    original, seconds, cpu_seconds = network(job, "Original"), {}, {}
    for chosen in (SSD, LFSSD):
        known: dict[str, Any] = {}
        for name, target in zip(("first target", "further target"), job["targets"], strict=True):

            def unlearn(target: str = target, known: dict[str, Any] = known, chosen: type[SSD] = chosen) -> SSD:
                method = chosen(original, **known)
                trainer = quiet_trainer(accelerator="cpu", max_epochs=1)
                trainer.fit(method, datamodule=scenario(job, target))
                return method

            step = f"{chosen.__name__}, {name}"
            seconds[step], cpu_seconds[step], method = timed(unlearn)
            known["full_importance"] = method.importances["full"]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def plan(job: dict[str, Any], folder: Path) -> Path:
    """The cell as a plan, with the published settings where they are not our defaults."""
    images = {"path": job["images"], "size": 32, "root": str(folder / "store")}
    augmentation = {"crop_padding": 4, "flip": True, "rotation": 15}
    content = {
        "name": "cell",
        "output": str(folder / "out"),
        "datasets": [{"class_path": "ImageFolder", "init_args": images}],
        "models": ["ResNet18"],
        "training": {"epochs": job["epochs"], "lr": 0.1, "batch_size": BATCH, "augmentation": augmentation},
        "scenarios": [{"class_path": "FullClass", "targets": [job["targets"][0]]}],
        "methods": ["Original", *METHODS],
        "seeds": [SEED],
        "evaluation": {"batch_size": BATCH},
        "trainer": {"accelerator": "cpu"},
        "threads": job["threads"],
    }
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def cell(job: dict[str, Any]) -> dict[str, Any]:
    """Train, retrain, six methods, and an evaluation of each and of M_o, from the files of the images."""
    folder = Path(job["workspace"], f"cell-{os.getpid()}")
    folder.mkdir(parents=True)
    total, cpu, summary = timed(lambda: run_plan(pin(load_plan(plan(job, folder)))))
    assert not summary.failed, summary.failed[0].reason
    seconds: dict[str, float] = {}
    for file in (folder / "out" / "stages").glob("*/*/stage.json"):
        stage = json.loads(file.read_text())
        name = _name(stage)
        seconds[name] = seconds.get(name, 0.0) + stage["seconds"]
    return {
        "seconds": {"total": total, **seconds, "other": total - sum(seconds.values())},
        "cpu_seconds": {"total": cpu},
    }


def _name(stage: dict[str, Any]) -> str:
    """What the published side calls a stage; outputs that methods share belong to the evaluation."""
    if stage["kind"] == "unlearn":
        return str(stage["config"]["method"]["class_path"]).rsplit(".", maxsplit=1)[-1]
    return {"outputs": "evaluation", "evaluate": "evaluation"}.get(stage["kind"], stage["kind"])


JOBS = {"prepare": prepare, "evaluation": evaluation, "importances": importances, "cell": cell}


def main() -> None:
    """Do the job of the first file and write what it took to the second."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    Path(sys.argv[2]).write_text(json.dumps(JOBS[job["job"]](job)))


if __name__ == "__main__":
    main()
