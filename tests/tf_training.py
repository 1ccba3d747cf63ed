"""How to compare variables with what the original rotated program stored of their gradients and changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from focaldet.engine.optimizer import UpdateRule
from focaldet.models.tensorflow import our_name
from focaldet.structures import Truth

PICTURE_SIZES = {"a": (256, 256), "b": (320, 384), "c": (200, 232)}


def described(golden: Path, case: str) -> Any:
    """What a file holds of the variables of a case."""
    return json.loads((golden / "tf" / "vars" / f"{case}.json").read_text())


def stored_truth(stored: Any, tag: str) -> tuple[Truth, Tensor]:
    """The truth of a picture: as annotated, and as rboxes, which the original fitted to the polygons in float32."""
    polygons = torch.from_numpy(stored[f"{tag}.gt_quad"])
    degrees = torch.from_numpy(stored[f"{tag}.gt_r"])
    rboxes = torch.cat([degrees[:, :4], degrees[:, 4:5].double().deg2rad().float()], dim=1)
    return Truth(polygons[:, :8].reshape(-1, 4, 2).float(), polygons[:, 8].long() - 1), rboxes


def assert_variables(
    golden: Path,
    case: str,
    stored: Any,
    name: str,
    ours: Mapping[str, Tensor],
    *,
    norm: float,
    sample: float,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Compare what belongs to each trainable variable; `sample` is relative to the largest element of a variable.

    Of changes of weights `weights` are one end: a change is then known up to what float32 rounds in a weight.
    """
    variables = described(golden, case)["trainable_order"]
    assert set(ours) == {our_name(variable) for variable in variables}
    for number, variable in enumerate(variables):
        values = in_their_layout(ours[our_name(variable)]).ravel()
        expected = stored[f"{name}.sample"][number][: values.size]
        got = values[(np.arange(len(expected)) * 1000003) % values.size if len(expected) < values.size else slice(None)]
        rounding = 0.0 if weights is None else np.spacing(weights[our_name(variable)].abs().max().item(), dtype="f4")
        atol = sample * np.abs(values).max() + rounding
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol, err_msg=variable)
        length = np.linalg.norm(values.astype(np.float64))
        assert length == pytest.approx(stored[f"{name}.l2"][number], rel=norm), variable


def in_their_layout(values: Tensor) -> Any:
    """A kernel (out, in, kh, kw) as [kh, kw, in, out]; anything else as it is."""
    return (values.permute(2, 3, 1, 0) if values.ndim == 4 else values).detach().contiguous().numpy()


def assert_weight_decay(golden: Path, case: str, stored: Any, network: nn.Module, rule: UpdateRule) -> None:
    """Compare the variables that decay and the sum of all terms.

    Decay is on the kernels of convolutions; on the frozen ones too, where it is but a number.
    """
    parameters = dict(network.named_parameters())
    for variable, entry in described(golden, case)["variables"].items():
        if our_name(variable) in parameters:
            assert rule.decay(parameters[our_name(variable)]) == sum(entry["l2"] or ()), variable
    terms = [rule.decay(p) * p.detach().double().square().sum() / 2 for p in parameters.values()]
    assert sum(terms).item() == pytest.approx(stored["reg_loss.total"].item(), rel=1e-5)  # type: ignore[union-attr]
