"""Stands in for training, evaluation, data and report: writes the files that they write. Run as a script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

BEHAVIOUR = "STUB_BEHAVIOUR"  # e.g. "fail:negatives_8-seed_0", "hang", "nothing"
COUNTER = "STUB_COUNTER"  # file that gets one line for each start


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_data(directory: Path) -> None:
    """What stands for a written split: a manifest of 60,000 images, and a file of no bytes."""
    sizes = {"side_px": 28, "widest_px": 28, "tallest_px": 28, "channels": 3, "max_side_px": None, "jpeg_quality": None}
    versions = {"ffcv_format": 2, "ffcv_version": None, "writer_version": 1}
    names = {"dataset": "fashion_mnist", "split": "train", "class_names": [], "format": "raw", "labels_sha256": "0"}
    write(directory / "train.json", {**names, **sizes, **versions, "images": 60_000, "classes": 10, "bytes": 0})
    (directory / "train.beton").touch()


def main() -> int:
    kind, target, *rest = sys.argv[1:]
    path = Path(target)
    with open(os.environ[COUNTER], "a") as counter:
        counter.write(f"{kind} {path.name} {os.environ['OMP_NUM_THREADS']}\n")
    behaviour, _, where = os.environ.get(BEHAVIOUR, "").partition(":")
    if behaviour and kind == "train" and path.name.startswith(where):
        if behaviour == "fail":
            print("the planted cause")
            return 3
        if behaviour == "nothing":
            return 0
        if behaviour in ("hang", "stubborn"):  # as torchrun does: the worker has a session of its own
            if behaviour == "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
            write(path / "progress.json", {"step": 1, "total_steps": 4, "images_per_second": 64.0, "loss": 2.5})
            (path / "worker").write_text(str(worker.pid))
            time.sleep(120)
    match kind:
        case "data":
            write_data(path)
        case "train":
            fingerprint = path.name.rpartition("-")[2]
            numbers = {"total_steps": 4, "train_seconds": 2.0, "images_per_second": 128.0, "final": {"loss": 1.5}}
            write(path / "result.json", {"fingerprint": fingerprint, **numbers})
        case "report":
            write(path / "report/report.html", "a report")
        case _:
            run = {"fingerprint": path.name.rpartition("-")[2], "step": 4, "finished": True}
            task, _, fingerprint = rest[0].rpartition("-")
            identity = {"task": task, "fingerprint": fingerprint, "run": run}
            write(path / "eval" / rest[0] / "result.json", {**identity, "top1": 87.25, "knn_top1": 80.5})
    return 0


if __name__ == "__main__":
    sys.exit(main())
