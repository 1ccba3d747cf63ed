"""Programs that focaldet cannot depend on, for those who have them: each built by its public interface.

Both are measured where they can be imported, as `run.py` tells; docs/benchmarks.md says how to install them. Neither
needs its compiled operators for a RetinaNet, except for MMCV's NMS, in whose place torchvision's is put.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from focaldet.bench.contenders import (
    Contender,
    Pass,
    count_gmac,
    imitate_training,
    random_picture,
    random_truth,
    sgd,
    update,
)
from focaldet.structures import Size


def importable_peers() -> list[Contender]:
    """Return the peers that are installed."""
    found = {"detectron2": Detectron2, "mmdet": MMDetection}
    return [peer() for module, peer in found.items() if importlib.util.find_spec(module) is not None]


def in_precision(dtype: torch.dtype) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()


class Detectron2:
    """detectron2's RetinaNet of its COCO baselines."""

    name = "detectron2"

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        model = self._build().eval()
        head = model.head
        imitate_training(head.cls_score, head.bbox_pred, lambda images: self._outputs(model, images))
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
        optimizer, truth = sgd(model), random_truth(size)
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

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        model = self._build().eval()
        head = model.bbox_head
        imitate_training(head.retina_cls, head.retina_reg, lambda images: self._outputs(model, images))
        images, samples = random_picture(size), [self._sample(size)]

        def run() -> object:
            with torch.inference_mode(), in_precision(dtype):
                return model(images, samples, mode="predict")

        return Pass(run, lambda: count_gmac(model, self._outputs, size, backward=False))

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        from mmengine.structures import InstanceData

        model = self._build().train()
        optimizer, truth = sgd(model), random_truth(size)
        images, sample = random_picture(size), self._sample(size)
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
    def _sample(size: Size) -> Any:
        from mmdet.structures import DetDataSample

        shapes = {name: size for name in ("img_shape", "ori_shape", "batch_input_shape", "pad_shape")}
        return DetDataSample(metainfo={**shapes, "scale_factor": (1.0, 1.0)})

    @staticmethod
    def _outputs(model: Any, images: Tensor) -> list[Tensor]:
        logits, deltas = model(images, mode="tensor")
        return [*logits, *deltas]


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
