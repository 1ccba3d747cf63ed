"""Convolution and frozen batch norm as one step: y = norm(conv(x)) is a convolution with other weights.

A batch norm whose statistics are fixed only scales and shifts channels. After `fold_norms` the convolution computes
with w * scale and shift, worked out anew each step: the norm's pass over the map is gone, and its weight and bias get
their exact gradients through w * scale. All parameters keep their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PROBE_SIZE = 64
"""Height and width of the picture that the search for pairs sends through a network; any would do."""


class FoldedNorm(nn.Module):
    """A batch norm with fixed statistics whose work the convolution before it does; what is left is its activation.

    Holds the same parameters and buffers as the batch norm did, under the same names.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.act: nn.Module = getattr(norm, "act", nn.Identity())  # timm's norms may hold the activation behind them

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return what the norm multiplies by and adds, each (channels,)."""
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def forward(self, image_map: Tensor) -> Tensor:
        """Pass the map on through the activation: it comes scaled and shifted."""
        result: Tensor = self.act(image_map)
        return result


class FoldedConv2d(nn.Module):
    """A convolution that also does the work of the batch norm behind it."""

    def __init__(self, conv: nn.Conv2d, norm: FoldedNorm) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.in_channels, self.out_channels, self.kernel_size = conv.in_channels, conv.out_channels, conv.kernel_size
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.same = isinstance(conv, Conv2dSame)  # TensorFlow's padding, which depends on the size of the map
        self.padding = (0, 0) if self.same else conv.padding
        self._norm = (norm,)  # in a tuple: the norm is registered where it was, under its own name

    @property
    def norm(self) -> FoldedNorm:
        """The norm whose work this does."""
        return self._norm[0]

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight (out, in / groups, kh, kw) and bias (out,) of convolution and norm together."""
        scale, shift = self.norm.scale_and_shift()
        bias = shift if self.bias is None else shift + self.bias * scale
        return self.weight * scale[:, None, None, None], bias

    def forward(self, image_map: Tensor) -> Tensor:
        """Map (B, in, H, W) to the normalized (B, out, H', W')."""
        if self.same:
            image_map = pad_same(image_map, [*self.kernel_size], [*self.stride], [*self.dilation])
        weight, bias = self.folded()
        return F.conv2d(image_map, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def fold_norms(network: nn.Module, in_channels: int) -> None:
    """Replace, in place, every convolution with a batch norm right behind it by a pair that computes as one.

    The caller promises that the statistics of these norms stay fixed. The network is left in evaluation mode.
    """
    network.eval()
    for conv_name, norm_name in conv_norm_pairs(network, in_channels):
        norm = FoldedNorm(network.get_submodule(norm_name))  # type: ignore[arg-type]
        conv = FoldedConv2d(network.get_submodule(conv_name), norm)  # type: ignore[arg-type]
        network.set_submodule(norm_name, norm)
        network.set_submodule(conv_name, conv)


def conv_norm_pairs(network: nn.Module, in_channels: int) -> list[tuple[str, str]]:
    """Find, by running the network on an empty picture, convolutions whose output a batch norm takes and nothing else.

    Returns:
        (name of the convolution, name of the norm), in the order in which they run.
    """
    watch, hooks = _ConvOutputs(), []
    for name, module in network.named_modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and getattr(module, "padding_mode", "zeros") == "zeros":
            hooks.append(module.register_forward_hook(watch.after_conv(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(watch.before_norm(name)))
    probe = next(network.parameters()).new_zeros(1, in_channels, PROBE_SIZE, PROBE_SIZE)
    with torch.no_grad(), watch:
        network(probe)
    for hook in hooks:
        hook.remove()
    return watch.pairs()


class _ConvOutputs(TorchFunctionMode):
    """Follows the outputs of convolutions: who made each, which norm took it, and how often it was used at all."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_of: dict[int, str] = {}
        self._norm_of: dict[int, str] = {}
        self._uses: Counter[int] = Counter()
        self._calls: Counter[str] = Counter()
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of one that is followed

    def after_conv(self, name: str) -> Callable[..., None]:
        """Return a forward hook for the convolution of this name."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._conv_of[id(output)] = name
            self._calls[name] += 1
            self._alive.append(output)

        return hook

    def before_norm(self, name: str) -> Callable[..., None]:
        """Return a forward pre-hook for the norm of this name."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._calls[name] += 1
            if id(inputs[0]) in self._conv_of:
                self._norm_of[id(inputs[0])] = name

        return hook

    def pairs(self) -> list[tuple[str, str]]:
        """Return (convolution, norm) where each ran once and the norm alone saw what the convolution made."""
        found = [(self._conv_of[key], norm) for key, norm in self._norm_of.items() if self._uses[key] == 1]
        return [pair for pair in found if self._calls[pair[0]] == self._calls[pair[1]] == 1]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):  # not a question about the shape
            self._uses.update(id(item) for item in args if id(item) in self._conv_of)
        return result
