"""The made-up weights and pictures that the stored outputs of the original programs were computed from.

The rules are those of `golden/coco/README.md`; weights are made under the published names and handed out under ours.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import from_ours

Array = npt.NDArray[Any]

MODELS: dict[str, dict[str, Any]] = {
    "r18_pytorch": {"backbone": "resnet18"},
    "r50_pytorch": {"backbone": "resnet50"},
    "r50_caffe": {"backbone": "resnet50", "style": "caffe", "backbone_norm": "frozen"},
    "r101_pytorch": {"backbone": "resnet101"},
    "r101_caffe": {"backbone": "resnet101", "style": "caffe", "backbone_norm": "frozen"},
    "x101_32x4d": {"backbone": "resnext101_32x4d"},
    "x101_64x4d": {"backbone": "resnext101_64x4d"},
}
"""Arguments of `build_retinanet` for each stored model (and one that has no file)."""

LATERAL_GAINS = {"r18": 0.05, "r50": 0.6, "r101": 0.2, "x101": 0.18}
PICTURE_SIZES = {"a": (256, 320), "b": (480, 640), "c": (200, 300)}
PYTORCH_INPUT = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE_INPUT = ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
SAMPLES = 4096


def raw(tag: str, count: int) -> npt.NDArray[np.uint64]:
    """The first `count` 64-bit numbers of the stream named `tag`."""
    return np.random.PCG64(zlib.crc32(tag.encode())).random_raw(count)


def signed(tag: str, count: int) -> npt.NDArray[np.float64]:
    """The stream as float64, uniform in [-1, 1)."""
    return 2.0 * ((raw(tag, count) >> np.uint64(11)) * 2.0**-53) - 1.0


def golden_entry(key: str, shape: Sequence[int], model: str) -> Tensor:
    """The value of one state-dict entry, by its published name."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = signed(key, math.prod(shape)).reshape(shape)
    if key.endswith("running_mean"):
        values = 0.1 * values
    elif key.endswith("running_var"):
        values = 1 + 0.25 * values
    elif len(shape) == 4:
        values = values * (math.sqrt(3.0) * _gain(key, model) / math.sqrt(math.prod(shape[1:])))
    elif key.startswith("backbone.") and key.endswith(".weight"):
        size = 0.3 if ".bn3." in key else 0.7 if ".downsample." in key else 1.0
        values = size * (1 + 0.2 * values)
    elif key.startswith("backbone."):
        values = 0.1 * values
    elif key == "bbox_head.retina_cls.bias":
        values = -4.5 + 0.5 * values
    else:
        values = 0.05 * values
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _gain(key: str, model: str) -> float:
    lateral = LATERAL_GAINS[model.split("_")[0]]
    gains = {
        "backbone.conv1.weight": 1 / 64 if model.endswith("caffe") else 1.0,
        "neck.lateral_convs.": lateral,
        "neck.fpn_convs.3.": 2 * lateral,
        "neck.fpn_convs.4.": 1.3,
        "neck.": 1.0,
        "bbox_head.retina_cls.": 1.0,
        "bbox_head.retina_reg.": 0.6,
    }
    return next((gain for prefix, gain in gains.items() if key.startswith(prefix)), math.sqrt(2.0))


def golden_state(network: RetinaNet, model: str) -> dict[str, Tensor]:
    """Our state dict of the network, filled by the rule."""
    ours = network.state_dict()
    published = from_ours({key: torch.empty(0) for key in ours}, "mmdetection")
    return {key: golden_entry(name, ours[key].shape, model) for key, name in zip(ours, published, strict=True)}


def golden_network(model: str, **changes: Any) -> RetinaNet:
    """The network of a stored file with its made-up weights, in evaluation mode."""
    network = build_retinanet(**(MODELS[model] | changes))
    network.load_state_dict(golden_state(network, model))
    return network.eval()


def picture(name: str) -> npt.NDArray[np.uint8]:
    """Picture a, b or c: (H, W, 3) uint8, BGR as the original programs read it."""
    height, width = PICTURE_SIZES[name]
    rows, columns = -(-height // 16), -(-width // 16)
    coarse = (raw(f"image.{name}.coarse", rows * columns * 3) >> np.uint64(56)).reshape(rows, columns, 3)
    coarse = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    fine = (raw(f"image.{name}.fine", height * width * 3) >> np.uint64(56)).reshape(height, width, 3)
    return ((3 * coarse + fine) // 4).astype(np.uint8)


def golden_input(model: str, names: str) -> Tensor:
    """Pictures, such as "ac", normalized and padded to one size: (B, 3, H, W) float32 in the order of the model."""
    mean, std = CAFFE_INPUT if model.endswith("caffe") else PYTORCH_INPUT
    pictures = [picture(name) if model.endswith("caffe") else picture(name)[:, :, ::-1] for name in names]
    height = -(-max(item.shape[0] for item in pictures) // 32) * 32
    width = -(-max(item.shape[1] for item in pictures) // 32) * 32
    batch = torch.zeros(len(pictures), 3, height, width)
    for image, item in zip(batch, pictures, strict=True):
        normalized = (item.astype(np.float32) - np.float32(mean)) / np.float32(std)
        image[:, : item.shape[0], : item.shape[1]] = torch.from_numpy(normalized).permute(2, 0, 1)
    return batch


def level_maps(stage: Any, level: int, images: Tensor, num_anchors: int = 9) -> tuple[Tensor, Tensor]:
    """Logits and deltas of P3 + `level` of a StageOutput as (B, channels, H, W) maps, the form of the stored ones."""
    height, width = (-(-side // 2 ** (level + 3)) for side in images.shape[-2:])
    maps = []
    for rows in (stage.logits[level], stage.deltas[level]):
        channels = num_anchors * rows.shape[-1]
        maps.append(rows.reshape(len(images), height, width, channels).permute(0, 3, 1, 2))
    return maps[0], maps[1]


def sampled(array: Tensor | Array, limit: int = SAMPLES) -> Array:
    """The elements that a stored file holds of an array: all, or `limit` spread over it, in C order."""
    flat = _numpy(array).reshape(-1)
    if flat.size <= SAMPLES:
        return flat[:limit]
    return flat[(np.arange(limit, dtype=np.int64) * 1000003) % flat.size]


def assert_sampled(stored: Any, name: str, array: Tensor | Array, atol: float, limit: int = SAMPLES) -> None:
    """Compare an array with the samples, the shape and the statistics that a stored file holds of it.

    `atol` is the largest difference of an element; the sum of absolute values may differ by that of each element.
    """
    values = _numpy(array)
    np.testing.assert_allclose(sampled(values, limit), stored[name], rtol=0, atol=atol, err_msg=name)
    if f"{name}.shape" in stored:
        assert tuple(values.shape) == tuple(stored[f"{name}.shape"]), name
        double = values.astype(np.float64)
        stats = [double.mean(), double.std(), double.min(), double.max(), np.abs(double).sum()]
        allowed = np.array([atol, atol, atol, atol, atol * double.size])
        assert (np.abs(np.array(stats) - stored[f"{name}.stats"]) <= allowed).all(), (name, stats)


def stored_model(golden: Path, model: str) -> Any:
    """The stored outputs of a model."""
    return np.load(golden / "coco" / f"{model}.npz")


def _numpy(array: Tensor | Array) -> Array:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
