"""Feature refinement: every place of a map gets features from where its box lies (Yang et al. 2019, arXiv:1908.05612).

    P -> conv 1x5 -> conv 5x1 -+-> F -> F + F at the place's box (+ P)
    P -> conv 1x1 -------------+

Section 3.2 of the paper; `shared/spec/rotated.md` sections 4.2 and 8.2 say in what the programs differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focaldet.errors import FocaldetError
from focaldet.models.heads import HeadInit
from focaldet.structures import Size

Points = Literal[1, 5]
Sampling = Literal["true", "transposed", "original", "original-transposed"]
Convs = Literal["per-level", "shared"]
Output = Literal["f+sample", "p+f+sample"]


class RefineConvs(nn.Module):
    """What a map goes through before it is sampled: F = 5x1(1x5(P)) + 1x1(P), linear.

    Args:
        channels: of P and of F.
        init: "normal" of deviation 0.01, as published, under which the signal of narrow ones fades; or "kaiming".
    """

    def __init__(self, channels: int, init: HeadInit = "normal") -> None:
        super().__init__()
        self.conv_1x5 = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))
        self.conv_5x1 = nn.Conv2d(channels, channels, (5, 1), padding=(2, 0))
        self.conv_1x1 = nn.Conv2d(channels, channels, 1)
        for conv in (self.conv_1x5, self.conv_5x1, self.conv_1x1):
            if init == "kaiming":
                nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
            else:
                nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, image_map: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        result: Tensor = self.conv_5x1(self.conv_1x5(image_map)).add_(self.conv_1x1(image_map))
        return result


class FeatureRefinement(nn.Module):
    """Convolves the pyramid's maps and aligns them with boxes.

    Args:
        channels: of the maps.
        strides: pixels between places, one a level.
        convs: "per-level", as the original program has them; or "shared" by all levels, as in mmrotate.
        points: where a box is sampled, see `align_features`.
        sampling: how, see `align_features`.
        output: "f+sample"; or "p+f+sample", the pyramid's map added, as in mmrotate.
        init: see `RefineConvs`.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        convs: Convs = "per-level",
        points: Points = 1,
        sampling: Sampling = "true",
        output: Output = "f+sample",
        init: HeadInit = "normal",
    ) -> None:
        super().__init__()
        self.strides, self.points, self.sampling, self.output = tuple(strides), points, sampling, output
        number = len(self.strides) if convs == "per-level" else 1
        self.convs = nn.ModuleList(RefineConvs(channels, init) for _ in range(number))

    def forward(self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Refine maps (B, channels, H, W) by the rboxes (B, H * W, 5) of their places, in the frame `input`."""
        convs = list(self.convs) * (len(pyramid) if len(self.convs) == 1 else 1)
        maps = [conv(level) for conv, level in zip(convs, pyramid, strict=True)]
        refined = align_features(maps, boxes, self.strides, self.points, self.sampling)
        if self.output == "p+f+sample":
            refined = [aligned.add_(level) for aligned, level in zip(refined, pyramid, strict=True)]
        return refined


def align_features(
    maps: Sequence[Tensor],
    boxes: Sequence[Tensor],
    strides: Sequence[int],
    points: Points = 1,
    sampling: Sampling = "true",
) -> list[Tensor]:
    """Add to every place of every map what the map holds at the centre, or centre and corners, of the place's box.

    A point of a map is its coordinates in pixels divided by the stride, without half a place, and lies between four
    neighbours. The weighted sum of these and of the place itself is one pass over a map, without temporaries of its
    size, and the neighbours of all levels are worked out together.

    Args:
        maps: (B, C, H, W), one a level; fastest channels_last.
        boxes: (B, H * W, 5) rboxes in the frame `input`, one a place, rows outer; one tensor a level.
        strides: pixels between places, one a level.
        points: 1, the centre; or 5, the corners too, their samples summed.
        sampling: "true": bilinear; a point outside of [-1, size] gives 0, one between the border and there the value of
            the border. The others are quirks. "transposed": the same with x and y of the centre exchanged, as mmcv's
            operator does. "original": the original program's, 2020-08 and later: neighbours clamped into the map,
            weights |x - x_other| |y - y_other|, so that a whole-numbered coordinate weighs nothing and a point outside
            extrapolates. "original-transposed": before that, x counted rows and y columns; a neighbour outside of the
            map gives 0, as on the GPUs that the published rows were trained on.

    Returns:
        (B, C, H, W) a level, with gradients to the maps and, through the weights of neighbours, to the boxes.

    Raises:
        FocaldetError: another number of boxes than places.
    """
    sizes = [(level.shape[-2], level.shape[-1]) for level in maps]
    wanted = [(len(level), height * width, 5) for level, (height, width) in zip(maps, sizes, strict=True)]
    if [tuple(level.shape) for level in boxes] != wanted:
        raise FocaldetError(f"boxes have shapes {[tuple(level.shape) for level in boxes]}; give one a place: {wanted}")
    index, weight = _neighbours(
        _spots(torch.cat(list(boxes), dim=1), strides, sizes, points, sampling), sizes, sampling
    )
    counts = [height * width for height, width in sizes]
    parts = zip(maps, torch.split(index, counts, dim=1), torch.split(weight, counts, dim=1), strict=True)
    return [_weighted_rows(level, numbers, weights) for level, numbers, weights in parts]


def _per_place(values: Sequence[int], sizes: Sequence[Size], like: Tensor) -> Tensor:
    """Return the value of each level at all of its places, (places, 1), of the type of `like`."""
    parts = zip(values, sizes, strict=True)
    return torch.cat([like.new_full((height * width, 1), value) for value, (height, width) in parts])


def _spots(boxes: Tensor, strides: Sequence[int], sizes: Sequence[Size], points: Points, sampling: Sampling) -> Tensor:
    """Return where boxes (B, places, 5) are sampled, (B, places, points, 2) x, y in places of the level's map."""
    centres = boxes[..., :2]
    if sampling == "transposed":
        centres = centres.flip(-1)
    spots = centres[..., None, :]
    if points == 5:
        spots = torch.cat([spots, _corners(centres, boxes)], dim=2)
    return spots / _per_place(strides, sizes, boxes)[..., None]


def _corners(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return the corners (..., 4, 2) of rboxes (..., 5) around other centres (..., 2).

    Unlike `rbox_to_polygon` of any numbers, and on any device.
    """
    half_sides = boxes[..., 2:4] / 2
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    along = torch.stack([cos, sin], dim=-1) * half_sides[..., :1]
    across = torch.stack([-sin, cos], dim=-1) * half_sides[..., 1:]
    return torch.stack([centres + a * along + b * across for a in (-1, 1) for b in (-1, 1)], dim=-2)


def _neighbours(spots: Tensor, sizes: Sequence[Size], sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return which places of its map a place takes, itself first, and how much of each.

    Returns:
        Numbers (B, places, 1 + 4 * points) int64 into the level's places, pictures joined, and weights of that shape.
    """
    x, y = spots.unbind(-1)
    height, width = (_per_place([size[axis] for size in sizes], sizes, x) for axis in (0, 1))
    if sampling == "original-transposed":
        rows, columns = _transposed_pair(x, width, height), _transposed_pair(y, height, width)
    else:
        pair = _clamped_pair if sampling == "original" else _bilinear_pair
        rows, columns = pair(y, height), pair(x, width)
    own = torch.cat([torch.arange(high * wide, device=x.device) for high, wide in sizes]).expand(x.shape[:2])[..., None]
    picture = torch.arange(len(x), device=x.device)[:, None, None]
    numbers = [own, *((row * width + column).long() for row, _ in rows for column, _ in columns)]
    weights = [torch.ones_like(x[..., :1]), *(high * wide for _, high in rows for _, wide in columns)]
    return torch.cat(numbers, dim=-1) + picture * (height * width).long(), torch.cat(weights, dim=-1)


Pair = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The two neighbours of points along one axis: (place, weight) of the lower and of the higher."""


def _bilinear_pair(spot: Tensor, size: Tensor) -> Pair:
    inside = (spot >= -1) & (spot <= size)
    spot = torch.minimum(spot.clamp(min=0), size - 1)
    low = _whole(spot.detach().floor())
    part = spot - low
    return (low, (1 - part) * inside), (torch.minimum(low + 1, size - 1), part * inside)


def _clamped_pair(spot: Tensor, size: Tensor) -> Pair:
    low, high = (torch.minimum(_whole(end).clamp(min=0), size - 1) for end in _ends(spot))
    return (low, (high - spot).abs()), (high, (spot - low).abs())


def _transposed_pair(spot: Tensor, size: Tensor, extent: Tensor) -> Pair:
    """Clamp by the size of the axis that `spot` is measured along, and count along the other, of `extent` places."""
    low, high = _whole(_ends(spot)[0]).clamp(min=0), torch.minimum(_whole(_ends(spot)[1]), size - 1)
    weights = (high - spot).abs(), (spot - low).abs()
    kept = [weight * ((end >= 0) & (end < extent)) for end, weight in zip((low, high), weights, strict=True)]
    low, high = (torch.minimum(end.clamp(min=0), extent - 1) for end in (low, high))
    return (low, kept[0]), (high, kept[1])


def _ends(spot: Tensor) -> tuple[Tensor, Tensor]:
    spot = spot.detach()
    return spot.floor(), spot.ceil()


def _whole(place: Tensor) -> Tensor:
    """Let a box that is not a number fetch place 0, with a weight that is none either: the loss will tell."""
    return place.nan_to_num(0.0)


def _weighted_rows(image_map: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum, at every place, rows of channels of a map (B, C, H, W), as `index` and `weight` (B, H * W, K) say."""
    batch, channels, height, width = image_map.shape
    rows = image_map.permute(0, 2, 3, 1).reshape(-1, channels)
    total = F.embedding_bag(
        index.flatten(0, 1), rows, mode="sum", per_sample_weights=weight.flatten(0, 1).to(rows.dtype)
    )
    return total.view(batch, height, width, channels).permute(0, 3, 1, 2)
