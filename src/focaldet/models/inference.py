"""The network that predicts: norms folded for good, activations and sums inside the convolutions, weights packed once.

`prepare_for_inference` makes of a model one that answers the same, up to rounding, in less time and memory, and that
cannot learn. On the CPU it uses the fused convolutions of oneDNN that compiled models use too; where these are missing,
and on other devices, the same steps run one after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from timm.models import FeatureListNet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from focaldet.models.convs import ConvReLU, NormedConv2d
from focaldet.models.folding import FoldedConv2d, FoldedNorm, fold_norms
from focaldet.models.inld import InLD
from focaldet.models.refine import RefineConvs

Model = TypeVar("Model", bound=nn.Module)

FUSED_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""Name and numbers that oneDNN gives an activation; others run behind the convolution."""


def prepare_for_inference(model: Model, dtype: torch.dtype = torch.float32) -> Model:
    """Return a detector that answers as this one does now, and only predicts; the one handed in stays as it is.

    Its weights have another form, which is not for saving, and do not follow those of the model.

    Args:
        model: on the device where the other will work, with its norms inside `backbone.body`.
        dtype: in which the network computes and answers; images of another type are cast.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared).eval()  # modules are copied, weights not: most are about to change their form
    backbone: Any = model.backbone
    fold_norms(backbone.body, backbone.in_channels)
    _hand_over_activations(backbone.body)
    _replace(model, _is_plain_block, FusedBlock)
    _replace(model, lambda module: isinstance(module, FoldedConv2d), FusedConv2d.of_folded)
    _replace(model, lambda module: isinstance(module, FoldedNorm), lambda norm: norm.act)
    _replace(model, lambda module: isinstance(module, InLD), InLD.without_masks)
    _replace(model, lambda module: isinstance(module, RefineConvs), FusedRefineConvs)
    _replace(model, lambda module: isinstance(module, ConvReLU), lambda conv: FusedConv2d.of(conv, nn.ReLU()))
    _replace(model, lambda module: isinstance(module, NormedConv2d), _with_fused_conv)
    _replace(model, _is_plain_conv, FusedConv2d.of)
    for module in model.modules():
        if isinstance(module, FusedConv2d):
            module.settle(dtype)
        else:
            _own_tensors(module, dtype)
    return model


def _replace(model: nn.Module, wanted: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]) -> None:
    for name in [name for name, module in model.named_modules() if wanted(module)]:
        model.set_submodule(name, make(model.get_submodule(name)))


def _own_tensors(module: nn.Module, dtype: torch.dtype) -> None:
    """Give a module copies of its parameters and buffers, which do not learn."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(parameter.detach().to(dtype, copy=True), requires_grad=False))
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, buffer.to(dtype if buffer.is_floating_point() else buffer.dtype, copy=True))


def _with_fused_conv(conv: NormedConv2d) -> nn.Sequential:
    """Return the same steps with a fused convolution; a group norm's statistics are the picture's, and stay a pass."""
    return nn.Sequential(FusedConv2d.of(conv), conv.norm, nn.ReLU(inplace=True) if conv.relu else nn.Identity())


def _is_plain_conv(module: nn.Module) -> bool:
    if type(module) not in (nn.Conv2d, Conv2dSame):
        return False
    return getattr(module, "padding_mode", None) == "zeros" and isinstance(getattr(module, "padding", None), tuple)


def _hand_over_activations(body: nn.Module) -> None:
    """Give a norm the activation right behind it, in parts of the network that run their children in order."""
    for sequence in [module for module in body.modules() if isinstance(module, (nn.Sequential, FeatureListNet))]:
        for (_, norm), (name, activation) in pairwise(list(sequence.named_children())):
            if isinstance(norm, FoldedNorm) and type(norm.act) is nn.Identity and type(activation) in FUSED_ACTIVATIONS:
                norm.act = activation
                sequence.set_submodule(name, nn.Identity())


class FusedConv2d(nn.Module):
    """A convolution, what is to be added to its result, and an activation, in one pass over the map.

    Args:
        weight: (out, in / groups, kh, kw).
        bias: (out,), or None.
        conv: whose stride, padding, dilation and groups to take.
        activation: comes last.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor | None, conv: nn.Conv2d | FoldedConv2d, activation: nn.Module
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if bias is None else bias)
        self.in_channels, self.kernel_size = conv.in_channels, list(conv.kernel_size)
        self.stride, self.padding = list(conv.stride), [int(number) for number in conv.padding]
        self.dilation, self.groups = list(conv.dilation), conv.groups
        self.same = conv.same if isinstance(conv, FoldedConv2d) else isinstance(conv, Conv2dSame)
        fused = FUSED_ACTIVATIONS.get(type(activation))
        self.activation_name, self.activation_numbers = fused or ("none", [])
        self.activation_behind = nn.Identity() if fused else activation
        self.activation = activation
        self.packs = False
        self.packed: Tensor | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d, activation: nn.Module | None = None) -> FusedConv2d:
        """Return what computes the convolution and the activation behind it."""
        bias = None if conv.bias is None else conv.bias.detach()
        return cls(conv.weight.detach(), bias, conv, activation or nn.Identity())

    @classmethod
    def of_folded(cls, conv: FoldedConv2d) -> FusedConv2d:
        """Return what computes the convolution, its norm, and the activation that the norm holds, which it loses."""
        weight, bias = conv.folded()
        activation, conv.norm.act = conv.norm.act, nn.Identity()
        return cls(weight.detach(), bias.detach(), conv, activation)

    def settle(self, dtype: torch.dtype) -> None:
        """Take an own copy of weight and bias, of the type in which to compute."""
        self.bias = self.bias.to(dtype, copy=True)
        self.weight = self.weight.to(dtype, copy=True)
        self.packs = self.weight.device.type == "cpu" and fused_convolutions_work(dtype)
        if not self.packs:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def _pack(self, size: list[int]) -> None:
        """Put the weight into the order that the machine wants for maps of this size, the first that comes.

        Were it packed for maps of quite another size, oneDNN would order it anew in every call.
        """
        self.packed = pack_weight(self.weight, self.padding, self.stride, self.dilation, self.groups, size)
        del self.weight  # all of it is in `packed`

    def forward(self, image_map: Tensor, addend: Tensor | None = None) -> Tensor:
        """Map (B, in, H, W) to (B, out, H', W').

        Args:
            image_map: cast to the weight's type.
            addend: (B, out, H', W'), added before the activation; overwritten.
        """
        image_map = image_map.to(self.bias.dtype)
        if self.same:
            image_map = pad_same(image_map, self.kernel_size, self.stride, self.dilation)
        if self.packs and self.packed is None:
            self._pack(list(image_map.shape))
        result = self._in_steps(image_map, addend) if self.packed is None else self._fused(image_map, addend)
        return result

    def _in_steps(self, image_map: Tensor, addend: Tensor | None) -> Tensor:
        result = F.conv2d(image_map, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        answer: Tensor = self.activation(result if addend is None else result.add_(addend))
        return answer

    def _fused(self, image_map: Tensor, addend: Tensor | None) -> Tensor:
        geometry = (self.packed, self.bias, self.padding, self.stride, self.dilation, self.groups)
        activation = (self.activation_name, self.activation_numbers, "")
        if addend is None:
            result = torch.ops.mkldnn._convolution_pointwise(image_map, *geometry, *activation)
        else:
            fused_sum = torch.ops.mkldnn._convolution_pointwise_.binary
            behind = (None, [], None) if self.activation_name == "none" else activation
            result = fused_sum(addend, image_map, *geometry, "add", 1.0, *behind)
        answer: Tensor = self.activation_behind(result)
        return answer


def pack_weight(weight: Tensor, *geometry: Any) -> Tensor:
    """Return a weight as oneDNN keeps it for a convolution of this padding, stride, dilation, groups and input size."""
    packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *geometry)
    return packed


@cache
def fused_convolutions_work(dtype: torch.dtype) -> bool:
    """Try oneDNN's fused convolutions, which are no public part of torch, on small numbers."""
    image_map = torch.linspace(-1, 1, 2 * 16 * 5 * 7).reshape(2, 16, 5, 7).to(dtype, memory_format=torch.channels_last)
    weight, bias = (
        torch.linspace(-1, 1, 16 * 16 * 9).reshape(16, 16, 3, 3).to(dtype),
        torch.linspace(-1, 1, 16).to(dtype),
    )
    try:
        conv = FusedConv2d(weight, bias, nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        expected = [conv._in_steps(image_map, addend) for addend in (None, image_map)]
        conv.packed = pack_weight(weight, [1, 1], [1, 1], [1, 1], 1, list(image_map.shape))
        found = [conv._fused(image_map, addend) for addend in (None, image_map.clone())]
    except (AttributeError, RuntimeError, TypeError):
        return False
    return all(torch.allclose(*pair, rtol=0.05, atol=0.05) for pair in zip(found, expected, strict=True))


def _is_plain_block(module: nn.Module) -> bool:
    """Tell whether a ResNet's block does nothing between its convolutions that `FusedBlock` lacks."""
    if not isinstance(module, (BasicBlock, Bottleneck)):
        return False
    extras: tuple[Any, ...] = (module.se, module.drop_path, module.drop_block, module.aa)
    convs = [child for name, child in module.named_children() if name.startswith("conv")]
    activations = [child for name, child in module.named_children() if name.startswith("act")]
    return (
        all(extra is None or isinstance(extra, nn.Identity) for extra in extras)
        and all(isinstance(conv, FoldedConv2d) for conv in convs)
        and all(isinstance(activation, nn.ReLU) for activation in activations)
    )


class FusedBlock(nn.Module):
    """A ResNet's block, with every ReLU and the sum inside the convolutions."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        convs = [child for name, child in block.named_children() if name.startswith("conv")]
        for conv in convs:
            conv.norm.act = nn.ReLU()
        self.convs = nn.ModuleList(FusedConv2d.of_folded(conv) for conv in convs)
        self.downsample = block.downsample

    def forward(self, image_map: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride); overwrites its input where that is the shortcut."""
        *first, last = self.convs
        shortcut = image_map if self.downsample is None else self.downsample(image_map)
        for conv in first:
            image_map = conv(image_map)
        result: Tensor = last(image_map, shortcut)
        return result


class FusedRefineConvs(nn.Module):
    """The convolutions of a feature refinement, with their sum inside the last one."""

    def __init__(self, convs: RefineConvs) -> None:
        super().__init__()
        self.conv_1x5, self.conv_5x1, self.conv_1x1 = (
            FusedConv2d.of(conv) for conv in (convs.conv_1x5, convs.conv_5x1, convs.conv_1x1)
        )

    def forward(self, image_map: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        result: Tensor = self.conv_5x1(self.conv_1x5(image_map), self.conv_1x1(image_map))
        return result
