from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models import imagenet
from focaldet.models.imagenet import BUNDLED, imagenet_input, imagenet_weights
from focaldet.models.retinanet import build_retinanet
from focaldet.models.weights import load_backbone

# timm's name: (file of the shared folder, how its names become timm's, its last convolution and norm, epsilon)
ORIGINS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_imagenet", imagenet.lite0_to_timm, "_conv_head", "_bn1", 1e-3),
    "mobilenetv2_100": (
        "mobilenet_v2_imagenet_features",
        imagenet.mobilenet_v2_to_timm,
        "features.18.0",
        "features.18.1",
        1e-5,
    ),
}


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOCALDET_WEIGHTS", raising=False)


def original(shared: Path, backbone: str) -> dict[str, Tensor]:
    return safetensors.torch.load_file(shared / "data" / "backbone-weights" / f"{ORIGINS[backbone][0]}.safetensors")


@pytest.mark.data
@pytest.mark.parametrize("backbone", ORIGINS)
def test_bundled_files_are_the_originals_renamed(shared: Path, backbone: str) -> None:
    converted = ORIGINS[backbone][1](original(shared, backbone))
    bundled = safetensors.torch.load_file(BUNDLED / f"{backbone}.safetensors")
    kept = {key: value for key, value in converted.items() if not key.endswith("num_batches_tracked")}
    assert bundled.keys() == kept.keys()
    assert all(torch.equal(value, kept[key]) and value.dtype == kept[key].dtype for key, value in bundled.items())


@pytest.mark.data
@pytest.mark.parametrize("backbone", ORIGINS)
def test_pooled_features_equal_an_independent_implementation(shared: Path, backbone: str) -> None:
    file, _, last_conv, last_norm, eps = ORIGINS[backbone]
    folder = shared / "data" / "backbone-weights" / "imagenet-check"
    reference = json.loads((folder / "reference_features.json").read_text())
    weights = {key: value.float() for key, value in original(shared, backbone).items()}
    network = build_retinanet(backbone=backbone, num_classes=1)
    load_backbone(network, imagenet_weights(backbone))
    mean, std = imagenet_input(backbone)
    norm = [weights[f"{last_norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    for number, name in enumerate(reference["images"]):
        picture = Image.open(folder / "images" / name).convert("RGB")
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        image = torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            last = network.eval().features(image)[0][-1]
            head = F.batch_norm(F.conv2d(last, weights[f"{last_conv}.weight"]), *norm, eps=eps)
            pooled = F.relu6(head).mean(dim=(2, 3))[0]
        expected = reference[file]
        assert pooled.norm().item() == pytest.approx(expected["l2"][number], rel=1e-3)
        assert pooled.argmax().item() == expected["argmax"][number]
        np.testing.assert_allclose(pooled[:8], expected["first8"][number], rtol=1e-3, atol=1e-3)


def test_the_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}}, tmp_path / "resnet50_msra-5891d200.pth")
    safetensors.torch.save_file({"conv1.weight": torch.zeros(1).half()}, tmp_path / "mobilenetv2_100.safetensors")
    monkeypatch.setenv("FOCALDET_WEIGHTS", str(tmp_path))
    assert imagenet_weights("resnet50", "caffe")["conv1.weight"].item() == 1
    assert imagenet_weights("mobilenetv2_100")["conv1.weight"].dtype == torch.float32


@pytest.mark.parametrize("backbone", ["resnet50d", "resnet101d"])
def test_v1d_backbones_take_gluons_weights_by_name(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        published = timm.create_model(backbone).state_dict()
        network = build_retinanet(backbone=backbone, num_classes=1)
    assert load_backbone(network, published).left_over == ("fc.weight", "fc.bias")
    safetensors.torch.save_file({"conv1.0.weight": torch.ones(1)}, tmp_path / f"{backbone}.gluon_in1k.safetensors")
    monkeypatch.setenv("FOCALDET_WEIGHTS", str(tmp_path))
    assert imagenet_weights(backbone)["conv1.0.weight"].item() == 1
    assert timm.get_pretrained_cfg(f"{backbone}.gluon_in1k").hf_hub_id == f"timm/{backbone}.gluon_in1k"


def test_caffe_weights_that_no_package_ships_are_named() -> None:
    with pytest.raises(FocaldetError, match=r"caffe-style resnet101; put resnet101_msra-6cc46731\.pth into a folder"):
        imagenet_weights("resnet101", "caffe")


def test_offline_is_one_sentence_with_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FocaldetError, match=r"resnet18 are here; connect .* resnet18\.tv_in1k\.safetensors .* FOCALDET"
    ):
        imagenet_weights("resnet18")


def test_resnext_weights_of_the_table_are_replaced_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match=r"taking timm's gluon_in1k instead"), pytest.raises(FocaldetError):
        imagenet_weights("resnext101_64x4d")


def test_a_file_cut_short_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOCALDET_WEIGHTS", str(tmp_path))
    for name in ("resnet18.safetensors", "convnext_tiny.pth"):
        (tmp_path / name).write_bytes(b"\x10\x00\x00")
        with pytest.raises(FocaldetError, match=r"is no complete file of weights"):
            imagenet_weights(name.split(".")[0])


def test_input_of_a_network_comes_from_timm_where_it_is_not_bundled() -> None:
    mean, std = imagenet_input("resnet50")
    assert mean == pytest.approx((123.675, 116.28, 103.53)) and std == pytest.approx((58.395, 57.12, 57.375))
