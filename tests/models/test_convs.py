from types import SimpleNamespace

import pytest
import torch

from focaldet.assets import asset_path
from focaldet.data.pictures import read_picture
from focaldet.errors import FocaldetError
from focaldet.models.backbone import build_backbone
from focaldet.models.convs import ConvReLU, NormedConv2d, build_conv
from focaldet.models.fpn import FPN
from focaldet.models.heads import Head
from focaldet.models.imagenet import imagenet_input, imagenet_weights
from focaldet.models.inference import FusedConv2d, prepare_for_inference
from focaldet.models.retinanet import build_retinanet
from focaldet.models.weights import load_backbone

PICTURES = [asset_path("bccd") / "images" / f"BloodImage_00{number}.jpg" for number in (301, 379)]


def test_a_normed_convolution_forgets_the_scale_of_its_input():
    conv, image_map = NormedConv2d(4, 16, relu=True), torch.randn(2, 4, 6, 5)
    torch.nn.init.zeros_(conv.get_parameter("bias"))
    # 1e-4: the norm's own epsilon of 1e-5 beside variances of about 1
    torch.testing.assert_close(conv(10 * image_map), conv(image_map), atol=1e-4, rtol=0)
    assert conv(image_map).detach().min() == 0


def test_kernel_and_stride_decide_the_size_of_the_map():
    image_map = torch.randn(1, 4, 7, 9)
    for norm in ("none", "group"):
        assert build_conv(norm, 4, 8, 1)(image_map).shape == (1, 8, 7, 9)
        assert build_conv(norm, 4, 8)(image_map).shape == (1, 8, 7, 9)
        assert build_conv(norm, 4, 8, stride=2)(image_map).shape == (1, 8, 4, 5)


def test_channels_that_make_no_groups_are_refused():
    with pytest.raises(FocaldetError, match="takes 8 channels together, so 60 channels do not fit"):
        build_conv("group", 4, 60)


def test_a_neck_with_norms_makes_the_same_pyramid_of_maps_ten_times_as_large():
    neck = FPN((4, 6, 8), 16, norm="group")
    maps = [torch.randn(1, channels, size, size) for channels, size in ((4, 16), (6, 8), (8, 4))]
    for level, larger in zip(neck(maps), neck([10 * level for level in maps]), strict=True):
        torch.testing.assert_close(larger, level, atol=1e-3, rtol=0)  # epsilon again, through two norms


def test_without_norms_the_parameters_are_the_published_ones():
    keys = {*FPN((4, 6, 8), 16).state_dict(), *Head(16, 16).state_dict()}
    assert not any("norm" in key for key in keys)
    assert isinstance(Head(16, 16).class_tower[0], ConvReLU)


@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_the_network_that_predicts_answers_the_same_with_norms(backbone: str):
    torch.manual_seed(0)
    model = build_retinanet(
        backbone=backbone, num_classes=2, neck_channels=16, neck_norm="group", head_channels=16, head_norm="group"
    ).eval()
    fast, images = prepare_for_inference(model), torch.randn(1, 3, 64, 96)
    assert not any(isinstance(module, NormedConv2d) for module in fast.modules())
    assert sum(isinstance(module, FusedConv2d) for module in fast.modules()) > 20
    with torch.inference_mode():
        for found, expected in zip(fast(images)[0].flat(), model(images)[0].flat(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_backbones_that_ship_differ_far_in_the_scale_of_their_maps():
    """Why the small recipes have norms: docs/decisions/small-recipe.md."""
    pictures = torch.stack([torch.from_numpy(read_picture(path)[:224, :320]) for path in PICTURES]).permute(0, 3, 1, 2)
    deviations = {}
    for name in ("mobilenetv2_100", "tf_efficientnet_lite0"):
        backbone = build_backbone(name).eval()
        load_backbone(SimpleNamespace(backbone=backbone), imagenet_weights(name))  # type: ignore[arg-type]
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in imagenet_input(name))
        with torch.inference_mode():
            deviations[name] = torch.stack([level.std() for level in backbone((pictures - mean) / std)])
    assert bool((deviations["tf_efficientnet_lite0"] > 5 * deviations["mobilenetv2_100"]).all())
