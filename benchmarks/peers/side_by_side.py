"""The published implementation and ours, in turn, on the same images: how long each takes for the same job.

    python benchmarks/peers/side_by_side.py IMAGES                                      # all three jobs
    python benchmarks/peers/side_by_side.py IMAGES --jobs cell --repeats 1
    python benchmarks/peers/side_by_side.py IMAGES --train 200 --test 50 --repeats 1    # a first try

IMAGES has folders train and test with a folder of image files per class; the first files of every class are taken.
Both sides compute in float32 on the CPU with the same number of threads, every job in a process of its own, the sides
taking turns. Start of the interpreter and imports are not counted. CPU time stands beside wall-clock; it has the loader
workers in it. Jobs:

- ``evaluation``: all metrics of one ResNet18 that SSD unlearned; both sides load the same weights. The published side
  as shipped and with its loader workers set to 0, ours with nothing known and with the stored outputs of M_r, M_o and
  the incompetent teacher, which all methods of a target share.
- ``importances``: SSD and LFSSD, on a first target and on a further one of the same M_o; ours then reuses the
  importances of D.
- ``cell``: train, retrain, six methods and all evaluations, with the share of each stage. The published side evaluates
  the seven models, ours M_o too; ours reads the image files, decodes them and writes all results to disk.

``published.py`` says how the published package is called, and what newer versions of libraries make necessary.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from installed import PACKAGE, VERSION, InstallError, install
from table import Row, ratios, write

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
JOBS = ("evaluation", "importances", "cell")
PUBLISHED, NO_WORKERS, OURS = "published", "published, loader workers 0", "ours"
SIDES = {"evaluation": (PUBLISHED, NO_WORKERS, OURS), "importances": (PUBLISHED, OURS), "cell": (PUBLISHED, OURS)}
UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "values": ""}
KINDS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class PeerError(Exception):
    """What is wrong, in one sentence."""


# --- images


def choose(source: Path, target: Path, sizes: dict[str, int]) -> list[str]:
    """Copy the first images of every class.

    Args:
        source: folder with train and test.
        target: where the copies go; made anew.
        sizes: number of images by part, shared equally among the classes.

    Returns:
        The classes.

    Raises:
        PeerError: if the folder is not there, is built otherwise, or has too few images.
    """
    if not source.is_dir():
        raise PeerError(f"Expected a folder of images, but there is no '{source}'.")
    parts = {part: _classes(source / part) for part in sizes}
    classes = list(parts["train"])
    if len(classes) < 2 or any(list(found) != classes for found in parts.values()):
        raise PeerError(f"Expected '{source}' to have folders train and test with the same two or more class folders.")
    shutil.rmtree(target, ignore_errors=True)
    for part, found in parts.items():
        each, rest = divmod(sizes[part], len(classes))
        if rest or not each:
            raise PeerError(
                f"Expected a multiple of {len(classes)} {part} images, one per class at least, got {sizes[part]}."
            )
        for name, files in found.items():
            if len(files) < each:
                raise PeerError(f"Expected {each} {part} images of '{name}' in '{source}', but there are {len(files)}.")
            (target / part / name).mkdir(parents=True)
            for file in files[:each]:
                shutil.copyfile(file, target / part / name / file.name)
    return classes


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Image files by class, in order of names."""
    if not folder.is_dir():
        return {}
    places = sorted(place for place in folder.iterdir() if place.is_dir())
    return {place.name: sorted(f for f in place.iterdir() if f.suffix.lower() in KINDS) for place in places}


# --- processes


class Sides:
    """Starts the two sides.

    Args:
        python: the published side's interpreter.
        workspace: folder for jobs, results and what both sides write.
        threads: of each side.
    """

    def __init__(self, python: Path, workspace: Path, threads: int) -> None:
        self.python, self.workspace, self.threads = python, workspace, threads

    def run(self, side: str, job: dict[str, Any]) -> dict[str, Any]:
        """One job of one side, in a process of its own.

        Raises:
            PeerError: if it fails, with its last words.
        """
        files = {name: self.workspace / f"{name}.json" for name in ("job", "result")}
        files["job"].write_text(json.dumps(job))
        files["result"].unlink(missing_ok=True)
        command = [sys.executable, HERE / "ours.py"] if side == OURS else [self.python, HERE / "published.py"]
        log = self.workspace / f"{job['job']}-{side.replace(', ', '-').replace(' ', '-')}.log"
        with log.open("w") as words:
            done = subprocess.run(
                [str(word) for word in (*command, files["job"], files["result"])],
                env=self._environment(side),
                cwd=self.workspace,
                stdout=words,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode or not files["result"].is_file():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise PeerError(
                f"The {side} side failed at '{job['job']}' with code {done.returncode}; its last words:\n{last}"
            )
        found: dict[str, Any] = json.loads(files["result"].read_text())
        return found

    def _environment(self, side: str) -> dict[str, str]:
        chosen = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        for name in ("SCALENE", "PYTHONHOME", *(() if side == OURS else ("PYTHONPATH",))):
            chosen.pop(name, None)
        chosen |= {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"}
        return {**chosen, "SCALENE": "1"} if side == NO_WORKERS else chosen


def measure(sides: Sides, job: dict[str, Any], prepared: dict[str, Any], name: str, repeats: int) -> list[Row]:
    """All repeats of a job, the sides in turn.

    Args:
        sides: starts them.
        job: what all jobs share.
        prepared: what the published side prepared.
        name: which job.
        repeats: how often.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for turn in range(repeats):
        for side in SIDES[name]:
            result = sides.run(side, {**job, "job": name, "prepared": prepared})
            _tell(f"{name}, {turn + 1} of {repeats}, {side}", result["seconds"])
            for kind, unit in UNITS.items():
                for quantity, value in result.get(kind, {}).items():
                    found.setdefault((side, quantity, unit), []).append(value)
    rows = list(_rows(name, found))
    return [*rows, *ratios(rows)]


def _rows(job: str, found: dict[tuple[str, str, str], list[float]]) -> Iterator[Row]:
    for (side, quantity, unit), values in found.items():
        yield Row(job, side, quantity, unit, statistics.median(values), tuple(values))


def _tell(what: str, seconds: dict[str, float]) -> None:
    print(what + ": " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()), flush=True)


# --- results


def conditions(given: argparse.Namespace) -> dict[str, Any]:
    """Hardware, versions and settings, for every line of the file."""
    from supreme.callbacks.environment import hardware, versions

    machine, have = hardware(), versions()
    return {
        "train_images": given.train,
        "test_images": given.test,
        "network": "ResNet18",
        "precision": "32-true",
        "threads": given.threads,
        "hardware": f"{machine['cpu']}, {machine['cores']} cores",
        "system": platform.platform(),
        "load": f"{os.getloadavg()[0]:.1f}",
        PACKAGE: VERSION,
        **{name: have[name] for name in ("supreme", "python", "torch", "torchvision", "lightning", "scikit-learn")},
        "notes": "published side patched: one device asked for without CUDA; LogisticRegression(C=2) for multi_class",
    }


def file_name(job: str, about: dict[str, Any]) -> str:
    """By job, hardware, precision and torch version."""
    words = "_".join([about["hardware"].replace(",", ""), about["precision"], "torch", about["torch"]])
    return f"peers_{job}_{re.sub(r'[^A-Za-z0-9._+-]+', '-', words)}.csv"


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("images", type=Path, help="folder with train/<class>/ and test/<class>/")
    made.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--train", type=int, default=2000, help="training images")
    made.add_argument("--test", type=int, default=500, help="test images")
    made.add_argument("--epochs", type=int, default=2, help="of M_o and M_r")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each side")
    made.add_argument("--environment", type=Path, default=HERE / ".environment", help="the published side's; reused")
    made.add_argument("--borrow", action="store_true", help="libraries of this interpreter are not installed once more")
    made.add_argument("--workspace", type=Path, help="folder for what both sides write; the default is temporary")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files, one per job")
    return made


def main() -> int:
    """Install, measure, print and write."""
    given = options().parse_args()
    try:
        if min(given.repeats, given.threads, given.epochs) < 1:
            raise PeerError("Expected at least one repeat, one thread and one epoch.")
        with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
            workspace = (given.workspace or Path(temporary)).resolve()
            workspace.mkdir(parents=True, exist_ok=True)
            sizes = {"train": given.train, "test": given.test}
            classes = choose(given.images, workspace / "images", sizes)
            python = install(given.environment.absolute(), given.borrow)
            job = {"images": str(workspace / "images"), "workspace": str(workspace), "classes": classes}
            job |= {"targets": classes[:2], "epochs": given.epochs, "threads": given.threads}
            _all_jobs(Sides(python, workspace, given.threads), job, given)
    except (PeerError, InstallError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _all_jobs(sides: Sides, job: dict[str, Any], given: argparse.Namespace) -> None:
    """What the jobs need, then one after the other; a file is written when its job is done."""
    prepared = sides.run(PUBLISHED, {**job, "job": "prepare", "epochs": 1})
    built = sides.run(OURS, {**job, "job": "prepare"})
    store = list(_rows("prepare", {(OURS, name, "s"): [value] for name, value in built["seconds"].items()}))
    for name in given.jobs:
        about = conditions(given)
        rows = [*store, *measure(sides, job, prepared, name, given.repeats)]
        write(rows, about, given.results / file_name(name, about))


if __name__ == "__main__":
    sys.exit(main())
