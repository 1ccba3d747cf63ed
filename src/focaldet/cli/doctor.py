"""What `focaldet doctor` looks at: versions, devices, back ends, weights, and a detector that has to work."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("focaldet", "torch", "torchvision", "timm", "numpy", "numba", "pillow", "safetensors", "faster-coco-eval")


@dataclass
class Findings:
    """What was found on this machine.

    Attributes:
        facts: what is there, by name.
        problems: what is wrong and what to do, a sentence each.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether focaldet works here."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return {"ready": self.ready, "problems": self.problems, **self.facts}

    def text(self) -> str:
        """Write it for people; the last line says "ready", or the last lines say what to do."""
        lines = [f"{name:<16}{_line(value)}" for name, value in self.facts.items()]
        return "\n".join([*lines, *(["ready"] if self.ready else self.problems)])


def examine() -> Findings:
    """Look at everything; a part that cannot be looked at becomes a problem, never an exception."""
    findings = Findings()
    findings.facts["system"] = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    parts: dict[str, Callable[[], Any]] = {
        "versions": versions,
        "devices": devices,
        "threads": threads,
        "bf16": native_bf16,
        "back ends": back_ends,
        "weights": weights_folder,
        "self-test": self_test,
    }
    for name, look in parts.items():
        try:
            findings.facts[name] = look()
        except Exception as error:
            findings.facts[name] = "failed"
            findings.problems.append(f"{name}: {error}")
    return findings


def versions() -> dict[str, str]:
    """Return the version of each package that focaldet stands on.

    Raises:
        RuntimeError: one is missing.
    """
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise RuntimeError(f"{name} is not installed; run: pip install {name}") from None
    return found


def devices() -> list[str]:
    """Return what torch can compute on."""
    import torch

    cuda = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [f"cpu {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores", *cuda, *mps]


def threads() -> int:
    """Return how many threads torch uses on the CPU."""
    import torch

    return torch.get_num_threads()


def native_bf16() -> dict[str, bool]:
    """Return which kinds of device compute in bf16 by themselves."""
    import torch

    from focaldet.engine.build import bf16_is_native

    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {kind: bf16_is_native(torch.device(kind)) for kind in kinds}


def back_ends() -> dict[str, bool | str]:
    """Return which fast paths there are; each has a slower one that answers the same.

    Raises:
        RuntimeError: what computes rotated boxes here fails its self-test.
    """
    import torch

    from focaldet.geometry.kernels import choose

    available: Any = torch.backends  # its functions have no types
    rotated = ", ".join(f"{name} on {device}" for device, name in choose.back_ends().items())
    tested = ", ".join(f"{name} within {apart:.0e} of torch" for name, apart in choose.self_test().items())
    return {
        "oneDNN": available.mkldnn.is_available(),
        "OpenMP": available.openmp.is_available(),
        "numba": importlib.util.find_spec("numba") is not None,
        "OpenCV": importlib.util.find_spec("cv2") is not None,
        "rotated boxes by": rotated + (f" (self-test: {tested})" if tested else ""),
    }


def weights_folder() -> str:
    """Return where ImageNet weights are looked for first.

    Raises:
        RuntimeError: FOCALDET_WEIGHTS names no folder.
    """
    named = os.environ.get("FOCALDET_WEIGHTS")
    if named is None:
        return "bundled and downloaded ones; FOCALDET_WEIGHTS may name a folder to look into first"
    if not Path(named).is_dir():
        raise RuntimeError(f"FOCALDET_WEIGHTS names {named}, which is no folder; correct or unset it")
    return named


def self_test() -> str:
    """Run a small detector forwards and backwards and through NMS.

    Raises:
        RuntimeError: a result is wrong.
    """
    import numpy as np
    import torch

    import focaldet

    detector = focaldet.load("retinanet-small", classes=("thing",), test_size=(64, 64))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    truth = focaldet.Truth(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([0]))
    loss = detector.losses([picture], [truth])["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    found = detector.predict(picture, score=0.0, max_detections=5)
    falling = bool((found.scores[1:] <= found.scores[:-1]).all())
    if not (bool(torch.isfinite(loss)) and len(found.boxes) == 5 and falling):
        raise RuntimeError("the small detector answers nonsense on this machine; reinstall torch and torchvision")
    return f"loss {float(loss.detach()):.3f} of an untrained detector, {len(found.boxes)} boxes after NMS"


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_line(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
