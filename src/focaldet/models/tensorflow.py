"""Variables of the original rotated program (TensorFlow 1) -> our state dict; TensorFlow itself is not needed.

Where TensorFlow is installed, three lines write a checkpoint as the `.npz` that `read_variables` reads:

    reader = tensorflow.train.load_checkpoint("DOTA_model.ckpt")
    variables = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    numpy.savez("variables.npz", **variables)
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError

SCOPES = re.compile(r"(resnet\d+_v1d|build_pyramid|rpn_net|refine_feature_pyramid\w*|enrich_semantics)/")
"""Beginnings of a variable's name."""
BLOCK = re.compile(r"resnet\d+_v1d/C([2-5])/bottleneck_(\d+)/(?:conv([0-2])|shortcut)")
PARTS = re.compile(r"(.+?)/(weights|biases|BatchNorm/\w+)")

STEM = {
    "C1/conv0": ("conv1.0", "conv1.1"),
    "C1/conv1": ("conv1.3", "conv1.4"),
    "C1/conv2": ("conv1.6", "bn1"),
}
"""Convolution and norm of the three steps of a v1d's stem."""

NECK_AND_HEAD = {
    "build_pyramid/build_P3/reduce_dim_P3": "neck.lateral.0",
    "build_pyramid/build_P4/reduce_dim_P4": "neck.lateral.1",
    "build_pyramid/build_P5": "neck.lateral.2",
    "build_pyramid/fuse_P3": "neck.output.0",
    "build_pyramid/fuse_P4": "neck.output.1",
    "build_pyramid/fuse_P5": "neck.output.2",
    "build_pyramid/p6_conv": "neck.output.3",
    "build_pyramid/p7_conv": "neck.output.4",
    **{f"rpn_net/conv2d_3x3_cls_{number}": f"head.class_tower.{number}" for number in range(4)},
    **{f"rpn_net/conv2d_3x3_reg_{number}": f"head.box_tower.{number}" for number in range(4)},
    "rpn_net/rpn_classification": "head.logits",
    "rpn_net/rpn_regression": "head.deltas",
}

REFINEMENT = re.compile(
    r"refine_feature_pyramid(?:_stage(\d+))?/"
    r"(?:refine_(1x5|5x1|1x1)_P(\d)|refine_net(?:_stage\d+)?/(?:conv2d_3x3_(cls|reg)_(\d)|refine_(classification|regression)))"
)
"""Refine stages: the first has no number, the next is `stage3`."""
DENOISING = re.compile(r"enrich_semantics/(?:enrich_P(\d)/Conv(?:_(\d+))?|g(mask|dot)_P(\d))")
FIRST_LEVEL = 3
TOWERS = {"cls": "class_tower", "reg": "box_tower"}
LAST_CONVS = {"classification": "logits", "regression": "deltas"}
DENOISING_CONVS = {"mask": "masks", "dot": "weights"}

CONV_ENTRIES = {"weights": "weight", "biases": "bias"}
NORM_ENTRIES = {
    "BatchNorm/gamma": "weight",
    "BatchNorm/beta": "bias",
    "BatchNorm/moving_mean": "running_mean",
    "BatchNorm/moving_variance": "running_var",
}

TRAINING_ONLY = re.compile(r"global_step|.*/(Momentum|ExponentialMovingAverage)")
"""What a checkpoint holds beside weights: the step, and per weight what the optimizer and an unused average keep."""


def read_variables(path: Path) -> dict[str, Tensor]:
    """Read an `.npz` of TensorFlow variables, with their names and layout.

    Raises:
        FocaldetError: the file is absent, cut short, or holds something else than arrays of numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except FileNotFoundError:
        raise FocaldetError(f"there is no file {path} of TensorFlow variables") from None
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise FocaldetError(f"{path} is no complete .npz of TensorFlow variables ({error})") from error


def holds_variables(names: Iterable[str]) -> bool:
    """Tell whether some of the names are those of the original program's weights.

    >>> holds_variables(["global_step", "rpn_net/rpn_regression/biases:0"])
    True
    """
    return any(SCOPES.match(name) for name in names)


def variables_to_ours(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the variables under our names, kernels turned from [kh, kw, in, out] to (out, in, kh, kw).

    What only training needs is left out; a variable that has no place in our detectors keeps its name.
    """
    weights = {_bare(name): value for name, value in variables.items()}
    return {
        our_name(name): value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
        for name, value in weights.items()
        if not TRAINING_ONLY.fullmatch(name)
    }


def our_name(variable: str) -> str:
    """Return our name of a variable, or the variable's own where it has none.

    >>> our_name("resnet50_v1d/C3/bottleneck_0/shortcut/BatchNorm/moving_variance")
    'backbone.body.layer2.0.downsample.2.running_var'
    """
    parts = PARTS.fullmatch(variable)
    if parts is None:
        return variable
    scope, leaf = parts.groups()
    conv, norm = _modules(scope)
    if leaf in CONV_ENTRIES and conv:
        return f"{conv}.{CONV_ENTRIES[leaf]}"
    return f"{norm}.{NORM_ENTRIES[leaf]}" if leaf in NORM_ENTRIES and norm else variable


def _modules(scope: str) -> tuple[str | None, str | None]:
    """Return our convolution and batch norm of a scope, where it has them."""
    conv = NECK_AND_HEAD.get(scope) or _refining(scope) or _denoising(scope)
    if conv:
        return conv, None
    block = BLOCK.fullmatch(scope)
    if block is None:
        conv, norm = STEM.get(scope.partition("/")[2], (None, None))
        return (f"backbone.body.{conv}", f"backbone.body.{norm}") if conv else (None, None)
    stage, number, conv = block.groups()
    prefix = f"backbone.body.layer{int(stage) - 1}.{number}"
    if conv is None:
        return f"{prefix}.downsample.1", f"{prefix}.downsample.2"
    return f"{prefix}.conv{int(conv) + 1}", f"{prefix}.bn{int(conv) + 1}"


def _refining(scope: str) -> str | None:
    """Return our convolution of a refine stage's scope.

    >>> _refining("refine_feature_pyramid_stage3/refine_5x1_P4")
    'refine.1.alignment.convs.1.conv_5x1'
    >>> _refining("refine_feature_pyramid/refine_net/conv2d_3x3_reg_2")
    'refine.0.head.box_tower.2'
    """
    match = REFINEMENT.fullmatch(scope)
    if match is None:
        return None
    number, kernel, level, tower, position, last = match.groups()
    stage = f"refine.{int(number or 2) - 2}"
    if kernel:
        return f"{stage}.alignment.convs.{int(level) - FIRST_LEVEL}.conv_{kernel}"
    return f"{stage}.head.{f'{TOWERS[tower]}.{position}' if tower else LAST_CONVS[last]}"


def _denoising(scope: str) -> str | None:
    """Return our convolution of InLD's scope.

    >>> _denoising("enrich_semantics/enrich_P3/Conv_4"), _denoising("enrich_semantics/gdot_P7")
    ('inld.trunks.0.4', 'inld.weights.4')
    """
    match = DENOISING.fullmatch(scope)
    if match is None:
        return None
    trunk, position, branch, level = match.groups()
    if trunk:
        return f"inld.trunks.{int(trunk) - FIRST_LEVEL}.{position or 0}"
    return f"inld.{DENOISING_CONVS[branch]}.{int(level) - FIRST_LEVEL}"


def _bare(name: str) -> str:
    return name.removesuffix(":0")
