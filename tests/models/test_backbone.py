from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from focaldet.errors import FocaldetError, UsageError
from focaldet.models.backbone import Backbone, Frozen, Norm, build_backbone
from focaldet.models.folding import FoldedConv2d, FoldedNorm, conv_norm_pairs

NETWORKS = {
    "resnet18": (128, 256, 512),
    "resnet50d": (512, 1024, 2048),
    "mobilenetv2_100": (32, 96, 320),
    "mobilenetv3_small_050": (16, 24, 288),
    "tf_efficientnet_lite0": (40, 112, 320),
    "convnext_atto": (80, 160, 320),
    "regnetx_002": (56, 152, 368),
    "densenet121": (512, 1024, 1024),
    "dla34": (128, 256, 512),
}


def randomize(backbone: Backbone) -> None:
    """Give every norm statistics and affines that would show if they were left out."""
    for module in backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, FoldedNorm)):
            for name, low, high in (("weight", 0.5, 1), ("bias", -0.1, 0.1)):
                nn.init.uniform_(module.get_parameter(name), low, high)
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_kinds_answer_maps_of_stride_8_16_32(name: str) -> None:
    backbone = build_backbone(name)
    assert backbone.channels == NETWORKS[name]
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "mobilenetv2_100", "tf_efficientnet_lite0", "densenet121"])
def test_folding_changes_neither_names_nor_answers_nor_gradients(name: str) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, frozen="none", norm="trained").double()
    randomize(plain)
    folded = build_backbone(name, frozen="none").double()
    folded.load_state_dict(plain.state_dict())  # strict: the names are the same
    assert any(isinstance(module, FoldedConv2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    answers = [backbone(images) for backbone in (plain.eval(), folded.train())]
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs)
    gradients = [
        torch.autograd.grad(sum(level.square().sum() for level in maps), list(backbone.parameters()))
        for maps, backbone in zip(answers, (plain, folded), strict=True)
    ]
    assert [key for key, _ in plain.named_parameters()] == [key for key, _ in folded.named_parameters()]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * theirs.abs().max().item())


def test_a_copy_of_a_folded_network_folds_its_own_norms() -> None:
    backbone = build_backbone("resnet18")
    copied = copy.deepcopy(backbone)
    images = torch.randn(1, 3, 32, 32)
    before = backbone(images)[0].detach()
    for module in copied.modules():
        if isinstance(module, FoldedNorm):
            nn.init.zeros_(module.weight)
    assert torch.equal(backbone(images)[0], before)
    assert not torch.equal(copied(images)[0], before)


class Branches(nn.Module):
    """One convolution that may be folded, and three that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.good_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.seen_twice, self.seen_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.shared, self.shared_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.free_norm = nn.BatchNorm2d(4, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.good_norm(self.good(images))
        seen = self.seen_twice(first)
        both = self.seen_norm(seen) + seen
        return self.free_norm(self.shared_norm(self.shared(self.shared(both))))


def test_only_what_is_a_pair_is_folded() -> None:
    assert conv_norm_pairs(Branches(), 3) == [("good", "good_norm")]


@pytest.mark.parametrize(
    ("name", "stem", "layer1"),
    [
        ("resnet18", {"conv1", "bn1"}, {"conv1", "bn1", "layer1"}),
        ("mobilenetv2_100", {"conv_stem", "bn1"}, {"conv_stem", "bn1", "blocks.0", "blocks.1"}),
        ("convnext_atto", {"stem_0", "stem_1"}, {"stem_0", "stem_1", "stages_0"}),
        ("regnetx_002", {"stem"}, {"stem", "s1"}),
    ],
)
def test_frozen_parts_of_many_networks(name: str, stem: set[str], layer1: set[str]) -> None:
    kinds: dict[Frozen, set[str]] = {"none": set(), "stem": stem, "stem+layer1": layer1}
    for frozen, expected in kinds.items():
        with torch.device("meta"):
            body = build_backbone(name, frozen=frozen).body
        prefixes = tuple(f"{part}." for part in expected)
        for key, parameter in body.named_parameters():
            assert parameter.requires_grad != (bool(prefixes) and key.startswith(prefixes)), key


@pytest.mark.parametrize("norm", ["frozen", "affine", "trained"])
def test_training_mode_leaves_alone_what_does_not_learn(norm: Norm) -> None:
    backbone = build_backbone("resnet18", norm=norm).train()
    randomize(backbone)
    statistics = {key: value.clone() for key, value in backbone.state_dict().items() if "running" in key}
    maps = backbone(torch.randn(2, 3, 64, 64))
    moved = {
        key for key, value in backbone.state_dict().items() if "running" in key and not value.equal(statistics[key])
    }
    assert not backbone.body.layer1.training and not backbone.body.bn1.training
    assert backbone.body.layer2.training
    assert all(("layer1" not in key and "body.bn1" not in key) for key in moved)
    assert bool(moved) == (norm == "trained")
    sum(level.sum() for level in maps).backward()
    affines = [parameter for key, parameter in backbone.named_parameters() if ".bn" in key and "layer3" in key]
    assert all((parameter.grad is not None) == (norm != "frozen") for parameter in affines)


def test_caffe_style_moves_the_stride_of_bottlenecks_only() -> None:
    with torch.device("meta"):
        caffe = build_backbone("resnet50", style="caffe").body
        basic = build_backbone("resnet18", style="caffe").body
    for layer in (caffe.layer2, caffe.layer3, caffe.layer4):
        assert layer[0].conv1.stride == (2, 2) and layer[0].conv2.stride == (1, 1)
        assert layer[0].downsample[0].stride == (2, 2) and layer[1].conv1.stride == (1, 1)
    assert caffe.layer1[0].conv1.stride == (1, 1)
    assert basic.layer2[0].conv1.stride == (2, 2) and basic.layer2[0].conv2.stride == (1, 1)


def test_the_pool_of_a_v1d_shortcut_counts_no_padding() -> None:
    # TensorFlow's SAME: at an odd border a window has two cells, in an odd corner one
    with torch.device("meta"):
        body = build_backbone("resnet50d").body
    first, second = body.layer1[0], body.layer2[0]
    assert isinstance(first.downsample[0], nn.Identity)
    rows = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert second.downsample[0](rows).flatten().tolist() == [3, 5, 6.5, 10.5, 12.5, 14]
    assert second.conv2.stride == (2, 2) and second.conv2.padding == (1, 1)


@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_norms_take_the_epsilon_that_they_are_given(norm: Norm) -> None:
    backbone = build_backbone("resnet18", norm=norm, norm_eps=3.0)
    norms = [module for module in backbone.modules() if isinstance(module, (nn.BatchNorm2d, FoldedNorm))]
    assert len(norms) == 20 and all(module.eps == 3.0 for module in norms)
    # mean 0 and variance 1: the norm halves
    conv, images = backbone.body.conv1, torch.randn(1, 3, 32, 32)
    expected = torch.nn.functional.conv2d(images, conv.weight, stride=2, padding=3) / 2
    torch.testing.assert_close(backbone.eval().body.bn1(conv(images)), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"name": "resnet5O"}, UsageError, r"backbone='resnet5O' is no network of timm \(did you mean 'resnet50'\?\)"),
        ({"name": "vit_tiny_patch16_224"}, FocaldetError, r"its features have stride 16, .* but 8, 32 is needed too"),
        ({"name": "swin_tiny_patch4_window7_224"}, FocaldetError, r"its maps have the channels last"),
        ({"name": "mixer_s32_224"}, FocaldetError, r"mixer_s32_224 cannot be a backbone"),
        ({"name": "mobilenetv2_100", "style": "caffe"}, FocaldetError, r"mobilenetv2_100 is none; use style='pytorch'"),
    ],
)
def test_what_cannot_be_a_backbone_is_one_sentence(
    arguments: dict[str, str], error: type[FocaldetError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build_backbone(**arguments)  # type: ignore[arg-type]
