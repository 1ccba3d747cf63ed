"""Programs that focaldet cannot depend on, for those who have them: each built by its public interface.

All are measured where they can be imported, as `run.py` tells; docs/benchmarks.md says how to install them. For upright
boxes none needs its compiled operators, except for MMCV's NMS, in whose place torchvision's is put; mmrotate cannot do
without them (docs/benchmarks-rotated.md).
"""

from __future__ import annotations

import collections
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from focaldet.bench.contenders import Contender, Pass, count_gmac, imitate_training, sgd, update
from focaldet.bench.networks import COCO, R3DET, ROTATED, Network, random_picture
from focaldet.geometry import polygon_to_rbox
from focaldet.structures import Size


def importable_peers() -> list[Contender]:
    """Return the peers that are installed."""
    peers: dict[str, list[Contender]] = {
        "detectron2": [Detectron2()],
        "mmdet": [MMDetection()],
        "mmrotate": [MMRotate(ROTATED), MMRotate(R3DET)],
    }
    return [peer for module in peers if importlib.util.find_spec(module) is not None for peer in peers[module]]


def in_precision(dtype: torch.dtype) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()


class Detectron2:
    """detectron2's RetinaNet of its COCO baselines."""

    name = "detectron2"
    network = COCO

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        model = self._build().eval()
        head = model.head
        layers = head.cls_score, head.bbox_pred
        imitate_training(*layers, lambda images: self._outputs(model, images), self.network.passing_share)
        picture = random_picture(size)[0] * model.pixel_std + model.pixel_mean  # it normalizes by itself
        inputs = [{"image": picture, "height": size[0], "width": size[1]}]

        def run() -> object:
            with torch.inference_mode(), in_precision(dtype):
                return model(inputs)

        return Pass(run, lambda: count_gmac(model, self._outputs, size, backward=False))

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        from detectron2.structures import Boxes, Instances
        from detectron2.utils.events import EventStorage

        model = self._build().train()
        optimizer, truth = sgd(model), self.network.truth(size)
        instances = Instances(size, gt_boxes=Boxes(truth.boxes), gt_classes=truth.labels)
        inputs = [{"image": random_picture(size)[0], "instances": instances}]

        def step() -> None:
            with EventStorage():
                update(optimizer, sum(model(inputs).values()))

        return Pass(step, lambda: count_gmac(model, self._outputs, size, backward=True))

    def _build(self) -> Any:
        from detectron2 import model_zoo
        from detectron2.modeling import build_model

        torch.manual_seed(0)
        config = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
        config.MODEL.DEVICE = "cpu"
        return build_model(config)

    @staticmethod
    def _outputs(model: Any, images: Tensor) -> list[Tensor]:
        maps = model.backbone(images)
        logits, deltas = model.head([maps[name] for name in model.head_in_features])
        return [*logits, *deltas]


class MMDetection:
    """mmdetection's row 2 of the COCO table."""

    name = "mmdetection"
    network = COCO

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        model = self._build().eval()
        layers = model.bbox_head.retina_cls, model.bbox_head.retina_reg
        imitate_training(*layers, lambda images: self._outputs(model, images), self.network.passing_share)
        images, samples = random_picture(size), [sample_of(size)]

        def run() -> object:
            with torch.inference_mode(), in_precision(dtype):
                return model(images, samples, mode="predict")

        return Pass(run, lambda: count_gmac(model, self._outputs, size, backward=False))

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        from mmengine.structures import InstanceData

        model = self._build().train()
        optimizer, truth = sgd(model), self.network.truth(size)
        images, sample = random_picture(size), sample_of(size)
        sample.gt_instances = InstanceData(bboxes=truth.boxes, labels=truth.labels)

        def step() -> None:
            losses = model(images, [sample], mode="loss")
            update(optimizer, sum(sum(levels) for levels in losses.values()))

        return Pass(step, lambda: count_gmac(model, self._outputs, size, backward=True))

    def _build(self) -> Any:
        put_nms_into_mmcv()
        import mmdet
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config
        from mmengine.logging import MMLogger

        register_all_modules()
        MMLogger.get_instance("mmengine", log_level="WARNING")  # or it tells of every parameter
        torch.manual_seed(0)
        configs = Path(mmdet.__file__).parent / ".mim" / "configs"
        model = Config.fromfile(configs / "retinanet" / "retinanet_r50_fpn_1x_coco.py").model
        model.backbone.init_cfg = None  # would download weights
        built = MODELS.build(model)
        built.init_weights()
        return built

    @staticmethod
    def _outputs(model: Any, images: Tensor) -> list[Tensor]:
        logits, deltas = model(images, mode="tensor")
        return [*logits, *deltas]


@dataclass(frozen=True)
class MMRotate:
    """mmrotate's rotated RetinaNet of form le90, or its R3Det of form oc, each from its own configuration."""

    network: Network
    name: str = "mmrotate"

    def inference(self, size: Size, dtype: torch.dtype) -> Pass | None:
        """See `Contender`; mmcv's rotated operators have no bf16 on a CPU."""
        if dtype == torch.bfloat16:
            return None
        model = self._build().eval()
        for head in self._heads(model):
            layers = head.retina_cls, head.retina_reg
            imitate_training(*layers, lambda images: self._outputs(model, images), self.network.passing_share)
        images, samples = random_picture(size), [sample_of(size)]

        def run() -> object:
            with torch.inference_mode():
                return model(images, samples, mode="predict")

        return Pass(run, lambda: count_gmac(model, self._outputs, size, backward=False))

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        from mmengine.structures import InstanceData
        from mmrotate.structures.bbox import RotatedBoxes

        model = self._build().train()
        optimizer, truth = sgd(model), self.network.truth(size)
        images, sample = random_picture(size), sample_of(size)
        boxes = RotatedBoxes(polygon_to_rbox(truth.boxes.flatten(1)))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=truth.labels)

        def step() -> None:
            losses = model(images, [sample], mode="loss")
            optimizer.zero_grad(set_to_none=True)
            sum(sum(levels) for levels in losses.values()).backward()
            clip_grad_norm_(model.parameters(), MMROTATE_CLIP)
            optimizer.step()

        return Pass(step, lambda: count_gmac(model, self._outputs, size, backward=True))

    def _build(self) -> Any:
        import_mmrotate()
        import mmrotate
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmrotate.registry import MODELS
        from mmrotate.utils import register_all_modules

        register_all_modules()
        MMLogger.get_instance("mmengine", log_level="WARNING")
        torch.manual_seed(0)
        configs = Path(mmrotate.__file__).parent / ".mim" / "configs"
        model = Config.fromfile(configs / MMROTATE_CONFIGS[self.network.name]).model
        model.backbone.init_cfg = None  # would download weights
        built = MODELS.build(model)
        built.init_weights()
        return built

    @staticmethod
    def _heads(model: Any) -> Sequence[Any]:
        return [model.bbox_head] if hasattr(model, "bbox_head") else [model.bbox_head_init, *model.bbox_head_refine]

    def _outputs(self, model: Any, images: Tensor) -> list[Tensor]:
        """Return logits and deltas of all heads; without data, maps are not aligned, for mmcv's operator needs data."""
        maps = model.extract_feat(images)
        first, *others = self._heads(model)
        found = [first(maps)]
        for head in others:
            with mock.patch(MMROTATE_ALIGN, lambda level, *rest: level) if images.is_meta else nullcontext():
                boxes = [[level[0] for level in maps]] if images.is_meta else first.filter_bboxes(*found[0])
                found.append(head(head.feature_refine(maps, boxes)))
        return [level for logits, deltas in found for level in (*logits, *deltas)]


MMROTATE_CONFIGS = {
    ROTATED.name: "rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py",
    R3DET.name: "r3det/r3det-oc_r50_fpn_1x_dota.py",
}
MMROTATE_ALIGN = "mmrotate.models.layers.align.rotated_feature_align"
MMROTATE_CLIP = 35
"""Largest norm of its gradients, in all its configurations."""


def import_mmrotate() -> None:
    """Let mmrotate 1.0.0rc1 be imported: a library that its ReDet alone needs is missing, a name of Python 3.9 too."""
    for name in ("utils.enn", "backbones.re_resnet", "necks.re_fpn"):
        sys.modules.setdefault(f"mmrotate.models.{name}", OperatorsMissing(name))
    vars(collections).setdefault("Sequence", Sequence)
    warnings.filterwarnings("ignore", module=r"mmdet|mmrotate|torch\.functional")


def sample_of(size: Size) -> Any:
    """Return what mmdetection and mmrotate want to know of a picture of (height, width)."""
    from mmdet.structures import DetDataSample

    shapes = {name: size for name in ("img_shape", "ori_shape", "batch_input_shape", "pad_shape")}
    return DetDataSample(metainfo={**shapes, "scale_factor": (1.0, 1.0)})


def put_nms_into_mmcv() -> None:
    """Let MMCV do without its compiled operators: NMS becomes torchvision's, the others raise when they are called."""
    if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
        module: Any = OperatorsMissing("mmcv._ext")
        module.nms = lambda boxes, scores, iou_threshold, offset: torchvision.ops.nms(boxes, scores, iou_threshold)
        sys.modules["mmcv._ext"] = module


class OperatorsMissing(types.ModuleType):
    """A module that has every name; what is called by it raises."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*arguments: object, **options: object) -> None:
            raise NotImplementedError(f"{name} is a compiled operator of MMCV, which is not installed")

        return missing
