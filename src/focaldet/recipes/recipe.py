"""The Recipe record: every fact that moves a number is a field, once; what follows from others is a property."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from focaldet.errors import UsageError, did_you_mean

State = Literal["published", "fixed", "clean"]

COCO_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what a detector learns and answers. Paths, devices and worker counts move no number: not here.

    The defaults are the COCO RetinaNet of `../shared/spec/horizontal.md` (Lin et al. 2017, arXiv:1708.02002).
    Sizes are in pixels, boxes in continuous coordinates, labels 0 to C-1 in the order of `classes`.
    """

    # --- who it is ---
    name: str
    row: int = 0
    """Row in its published table; 0 for a recipe that is in none."""
    reported: float | None = None
    """Box AP x 100 as its table reports it. Never measured by us."""
    gpus: int = 1
    """GPUs of the published run; documents only."""
    paper: str = ""
    source: str = ""
    """Name of the original configuration; "" for a recipe of our own."""
    note: str = ""
    """What else is to be known of its figure, or of the checkpoints that fit."""
    # --- objects and pictures ---
    kind: Literal["hbox", "rbox"] = "hbox"
    """What is found: upright or rotated boxes."""
    classes: tuple[str, ...] = COCO_CLASSES
    in_channels: int = 3
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted, in channel order, from values 0 to 255."""
    std: tuple[float, ...] = IMAGENET_STD
    unit_range: bool = False
    """Divide pictures, mean and std by 255 first: the same numbers up to rounding."""
    # --- network ---
    backbone: str = "resnet50"
    """Any timm network that has features of stride 8, 16 and 32."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """caffe: the stride of a ResNet bottleneck sits on its first 1x1 convolution instead of the 3x3."""
    frozen: Literal["none", "stem", "stem+layer1", "weights-of-stem+layer1"] = "stem+layer1"
    """What of the backbone never learns; of "weights-of" the norms still take the statistics of each batch."""
    backbone_norm: Literal["frozen", "affine", "trained"] = "affine"
    """Batch norm of the backbone: all fixed; statistics fixed and affine trained; or ordinary."""
    norm_eps: float | None = None
    """What the backbone's norms add to the variance; None: what its weights were trained with."""
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    """Pyramid levels that carry a head; level k has stride 2^k."""
    neck: Literal["fpn", "fpn-average"] = "fpn"
    """fpn-average: half the coarser map plus half the finer one, enlarged and padded as TensorFlow does."""
    neck_channels: int = 256
    neck_init: Literal["xavier", "kaiming"] = "xavier"
    """How the neck's convolutions start: Xavier-uniform, or Kaiming-uniform with a = 1."""
    neck_norm: Literal["none", "group"] = "none"
    """Behind each convolution of the neck; "group" makes its maps independent of the scale of the backbone's."""
    p6_from: Literal["c5", "p5"] = "c5"
    p7_relu: bool = False
    """ReLU between P6 and P7, as in the paper; the table's rows have none."""
    head_convs: int = 4
    head_channels: int = 256
    head_norm: Literal["none", "group", "group-no-bias"] = "none"
    """Behind each convolution of the towers, which may then do without a bias."""
    head_init: Literal["normal", "kaiming"] = "normal"
    """How the towers start: with a deviation of 0.01, as published for 256 channels, or by their width."""
    prior: float = 0.01
    """Score that every class starts from."""
    # --- anchors and assignment ---
    anchors: Literal["octave", "whole", "h21", "h55", "r90", "r90-crossed"] = "octave"
    """octave: `anchor_scales` times `anchor_ratios`. whole: the same in whole pixels, as far apart as the padded input
    shares out among a map's places (torchvision). The others are the original rotated program's, fixed sets: upright
    ones of whole pixels, and turned ones; crossed ones have w and h in the other order (quirk)."""
    anchor_scales: tuple[float, ...] = (4.0, 4.0 * 2.0 ** (1 / 3), 4.0 * 2.0 ** (2 / 3))
    """Square root of an anchor's area, in strides of its level."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """height / width."""
    anchor_offset: float = 0.0
    """Centre of the first place, in strides."""
    anchor_angle: Literal["zero", "oc", "oc-negative", "le90", "le135"] | None = None
    """How octave anchors of rotated recipes are written as rboxes; "zero": w along x, theta 0. None: those that are
    assigned by hulls in the recipe's `angle`, others with w along x."""
    anchor_squares: Literal["alike", "rounded"] = "alike"
    """Which side of a square H anchor is w: everywhere the same, or what float32 rounding makes of it (quirk)."""
    angle: Literal["le90", "le135", "oc", "oc-negative", "tf90", "tf180"] = "le90"
    """Form in which rotated boxes are coded; see docs/conventions.md."""
    angle_code: Literal["difference", "direction"] = "difference"
    """What stands for the angle of a rotated box among its deltas: the difference to the anchor's, or a vector of twice
    the angle, which does not jump where an angle does; `edge_swap` and `norm_factor` are of the former."""
    proj_xy: bool = False
    """Offsets of rotated boxes are measured along the anchor's sides instead of the picture's; with
    `angle_code=direction` by these sides instead of the root of the anchor's area, as sizes are then."""
    edge_swap: bool = False
    """Of the two ways to name the sides of a rotated box, the one whose angle is nearer to the anchor's is coded."""
    norm_factor: float | None = None
    """Angle differences are divided by this times pi."""
    max_log_scale: float | None = 4.135166556742356
    """dw and dh are clamped to plus or minus this when decoded; None: not at all."""
    assign: Literal["hull", "rbox", "rbox-hull"] = "hull"
    """What of a rotated truth anchors are compared with: the upright hull of its polygon as annotated, its rbox, or the
    upright hull of its rbox."""
    rectangle: Literal["least-area", "by-sides"] = "least-area"
    """Which rbox an annotated polygon is: that of least area around it; or one that has the lengths of its first two
    sides (quirk)."""
    log_scale_clamp: Literal["both", "above"] = "both"
    """On which sides dw and dh of upright boxes are clamped."""
    beyond: Literal["excluded", "background"] = "excluded"
    """What anchors are whose place lies in the padding of a batch: out of the loss, or like others."""
    pixels: Literal["continuous", "plus_one"] = "continuous"
    """What a side measures when anchors and truth are compared: the difference of its ends, or one pixel more."""
    positive: float = 0.5
    negative: float = 0.4
    negative_inclusive: bool = False
    """An anchor whose best IoU is `negative` itself is background; else it is ignored."""
    claim: Literal["none", "ties", "ties-overwrite", "ties-zero"] = "ties"
    """Which anchors a truth box claims beyond `positive`: none; all that tie for its best IoU; the same, even from a
    truth box that they overlap better (quirk); the same as `ties`, and all anchors where it meets none (quirk)."""
    crowd: Literal["background", "ignored"] = "background"
    """Anchors on crowd boxes: ordinary background, or out of the loss where half of the anchor lies on one."""
    # --- refinement: R3Det and what follows it ---
    refine_stages: int = 0
    """Stages behind the first, each with features aligned with the boxes of the stage before it; 0: RetinaNet."""
    refine_positive: tuple[float, ...] = (0.6, 0.7)
    """`positive` of each refine stage; entries beyond `refine_stages` are not read."""
    refine_negative: tuple[float, ...] = (0.5, 0.6)
    """`negative` of each refine stage."""
    refine_convs: Literal["per-level", "shared"] = "per-level"
    """Whether the convolutions before the sampling are each level's own or one set for all."""
    refine_points: Literal[1, 5] = 1
    """Where features are sampled: at the box's centre; or at its corners too, and summed."""
    refine_sampling: Literal["true", "transposed", "original", "original-transposed"] = "true"
    """true: bilinear at the place of the box; transposed: x and y exchanged (quirk of mmcv's operator); the others are
    the original program's arithmetic, in which a whole-numbered coordinate weighs nothing (quirks)."""
    refine_output: Literal["f+sample", "p+f+sample"] = "f+sample"
    """What a refined map is the sum of: the convolved map F, F at the boxes, and the pyramid's map P."""
    refine_gradient: Literal["detached", "attached"] = "detached"
    """Whether the sampled places pass gradients back to the boxes of the stage before."""
    box_sides: Literal["exact", "plus_one"] = "exact"
    """plus_one: anchors' sides count one more, and logarithms 1e-5, when truth is encoded, but not when decoded
    (quirk)."""
    inld: tuple[int, ...] = ()
    """Instance-level denoising (R3Det++): convolutions of each level's trunk before its last two; (): none."""
    inld_masks: Literal["classes", "binary"] = "classes"
    """What the painted masks tell apart: every class, or object and background."""
    # --- losses ---
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: Literal[
        "l1",
        "smooth_l1",
        "smooth_l1_one_sided",
        "smooth_l1_atan",
        "iou_smooth_l1",
        "iou_smooth_l1_exp",
        "giou",
        "diou",
        "ciou",
    ] = "l1"
    """one_sided: what lies below its target is punished by the square without bound (quirk)."""
    box_beta: float = 0.11111111
    """Where smooth L1 turns from square to straight."""
    box_weight: float = 1.0
    iou_floor: float = 1e-6
    """Smallest IoU that iou_smooth_l1 believes; with 0 a box that misses its truth makes the loss infinite."""
    # --- training ---
    batch: int = 16
    """Pictures an update, over all processes."""
    normalize_over: int = 2
    """Pictures that share a loss normalizer; gradients of these groups are averaged."""
    normalizer: Literal["batch", "picture", "moving"] = "batch"
    """What losses of such a group are divided by: its positives, at least one a picture; each picture's own, at least
    one, and then the mean; or an average over steps of its positives, at least one."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """At the peak, for `lr_per` pictures an update; scaled by batch / lr_per."""
    lr_per: int = 16
    backbone_lr: float = 1.0
    """Factor on the backbone's learning rate."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_all: bool = True
    """Weight decay on norms and biases too."""
    bias_gradient: float = 1.0
    """Factor on the gradients of convolutions' biases."""
    clip: float | None = None
    """Largest L2 norm of the gradient."""
    clip_per: Literal["total", "variable"] = "total"
    """Norm of all gradients together, or of each variable's by itself, its weight decay included."""
    schedule: Literal["step", "cosine"] = "step"
    epochs: int = 12
    drops: tuple[int, ...] = (8, 11)
    """Epochs after which the learning rate falls to a tenth (schedule "step")."""
    drop_from: Literal["first", "second"] = "first"
    """Which update of the next epoch is the first with the fallen rate."""
    warmup_steps: int = 500
    warmup_from: float = 0.001
    warmup_until: Literal["last", "next"] = "next"
    """Full rate at the last warm-up step (index warmup_steps - 1) or at the one after."""
    images_per_epoch: int | None = None
    """None: the data's own number."""
    pictures: int | None = None
    """Pictures of the row's own data, where `images_per_epoch` does not tell them: an epoch of rows that count steps is
    as many steps as their drops of the learning rate need."""
    empty_pictures: bool = False
    """Train on pictures without any object too."""
    min_picture: int = 32
    """Pictures with a shorter side below this are not trained on."""
    min_side: float | None = 1.0
    """Objects with a side below this, and those outside their picture, are not trained on; None: all are."""
    seed: int = 0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """What the network computes in; weights, boxes and losses are float32 anyway."""
    loss_scale: float | None = None
    """fp16: factor on the loss while gradients are computed; None: as large as goes without overflow."""
    ema: float | None = None
    """What is kept of the averaged weights in each step (0.9998, say); they are scored and saved. None: no average."""
    # --- what is done to the pictures ---
    sizes: tuple[tuple[int, int], ...] = ((1333, 800),)
    """Training sizes (longest side, shortest side), ratio kept; of several one is drawn for each picture."""
    sizes_drawn: Literal["listed", "between"] = "listed"
    """between: of two sizes, each side is drawn as a whole number from the one to the other."""
    test_size: tuple[int, int] = (1333, 800)
    test_sizes: tuple[tuple[int, int], ...] = ()
    """Sizes of which each is looked at, all answers being merged by one NMS; (): `test_size` alone."""
    test_flips: tuple[Literal["horizontal", "vertical"], ...] = ()
    """Mirrorings that are looked at besides, at every size."""
    test_resize: Literal["opencv", "opencv-truncated", "tensorflow"] | None = None
    """How pictures are resized when not training, to the sizes that `resize` gives them; None: as `resize` does.
    opencv-truncated: those smaller than a tile in floats, cut to whole grey levels (quirk)."""
    resize: Literal["opencv", "tensorflow", "torch", "pillow"] = "opencv"
    """tensorflow: bilinear as in TensorFlow 1, without rounding to grey levels, the shorter side first, stretched where
    a limit cuts the longer one; corners are whole numbers. torch: as torchvision does, in floats, sides cut to whole
    pixels. pillow: as detectron2 does, smoothed where a picture shrinks."""
    difficult: Literal["ignored", "trained"] = "ignored"
    """Objects marked difficult: neither to be found nor background, or like the others."""
    pad: int = 32
    """Inputs are padded right and below to a multiple of this."""
    augment: tuple[Literal["flip", "vflip", "rotate90", "rotate", "affine", "color", "grey", "original"], ...] = (
        "flip",
    )
    """Each with probability 0.5; "affine" scales by 0.7 to 1.4 and shifts, "color" changes brightness and contrast.
    "original" stands alone: grey, turns and flips as the original rotated program did them (`rotated.md` 3.3)."""
    # --- answers ---
    stages: Literal["last", "refined"] = "last"
    """Whose boxes are answered: those of the last stage, or of all refine stages together."""
    score: float = 0.05
    per_level: int | None = 1000
    """At most so many (anchor, class) pairs a level go on to NMS; None: all that are over `score`."""
    per_level_of: Literal["pairs", "anchors"] = "pairs"
    """What is counted there: pairs, or anchors by their best class, of which all pairs over `score` go on."""
    nms: float = 0.5
    nms_equal: Literal["keep", "suppress"] = "keep"
    """Whether an IoU equal to `nms` suppresses a rotated box (quirk) or not."""
    nms_labels: Literal["separate", "offset"] = "separate"
    """How NMS keeps the classes apart: by comparing labels, or by shifting boxes in float32 (quirk)."""
    max_per_class: int | None = None
    """At most so many detections of a class and picture; None: all."""
    max_detections: int | None = 100
    """At most so many a picture, or tile; None: all."""
    finish: Literal["clip-scale-nms", "clip-nms-scale", "nms-scale-clip"] = "clip-scale-nms"
    """In which order upright boxes are clipped to the picture, scaled to the original one, and suppressed."""
    centres: Literal["free", "clamped"] = "free"
    """clamped: centres of rotated boxes are moved into the picture before NMS, as mmrotate does."""
    tile: int | None = None
    """Side of the tiles, in pixels, that scenes are looked at by: pictures with a side of over `whole` tiles. None: any
    picture is seen as a whole."""
    whole: float = 1.5
    """Longest side, in tiles, of a picture that is seen as a whole."""
    overlap: int = 0
    """Pixels that neighbouring tiles share."""
    tile_pad: tuple[int, int, int] | None = None
    """RGB colour that fills up a tile which reaches out of the picture; None: it ends with the picture."""
    cut: Literal["mmrotate", "original"] = "mmrotate"
    """By whose rule `focaldet tile --like` gives objects to the tiles of `tile` and `overlap` that are trained on:
    where at least 0.7 of the object lie, or where its corners have their mean."""
    merge_nms: Literal["nms", "single-scale", "multi-scale", "after-2020"] = "nms"
    """IoU over which the worse of two boxes of a class from several tiles goes: `nms`, or one a class, as the original
    program merged rows 1 to 17, row 18, and in its last state."""
    merge_per_class: int | None = None
    """At most so many of a class and scene; None: all."""
    merge_corners: Literal["exact", "compared-whole", "whole"] = "exact"
    """Truncation of corners when tiles are merged, in comparing or for good (quirks)."""
    refit: Literal["none", "original-180"] = "none"
    """original-180: rotated boxes outside the range are dropped and the corners of the others truncated (quirk)."""

    def __post_init__(self) -> None:
        """Check what can be checked without data: a wrong value is one sentence now, not a traceback later."""
        for item in fields(self):
            value = coerce(item.name, getattr(self, item.name), FIELD_TYPES[item.name])
            object.__setattr__(self, item.name, value)
        self._check_ranges()

    def _check_ranges(self) -> None:
        def demand(condition: bool, sentence: str) -> None:
            if not condition:
                raise UsageError(f"recipe {self.name}: {sentence}")

        demand(len(self.classes) > 0, "classes is empty; name at least one class")
        demand(len(set(self.classes)) == len(self.classes), "classes names a class twice")
        for name in (
            "in_channels",
            "batch",
            "normalize_over",
            "epochs",
            "head_channels",
            "neck_channels",
            "per_level",
            "min_side",
            "max_per_class",
            "max_detections",
        ):
            value = getattr(self, name)
            demand(value is None or value > 0, f"{name}={value} must be above 0")
        demand(
            self.batch % self.normalize_over == 0,
            f"batch={self.batch} is no multiple of normalize_over={self.normalize_over}",
        )
        demand(
            0 < self.negative <= self.positive <= 1,
            f"0 < negative={self.negative} <= positive={self.positive} <= 1 must hold",
        )
        demand(self.lr > 0, f"lr={self.lr} must be above 0")
        demand(self.whole >= 1, f"whole={self.whole} must be at least 1: a tile is seen whole")
        demand(0 < self.prior < 1, f"prior={self.prior} must lie between 0 and 1")
        channels_ok = len(self.mean) == len(self.std) == self.in_channels
        demand(channels_ok, f"mean and std need in_channels={self.in_channels} numbers each")
        rising = list(self.levels) == list(range(self.levels[0], self.levels[-1] + 1)) if self.levels else False
        demand(rising and self.levels[0] in (2, 3), f"levels={self.levels} must rise by one from 2 or 3")

    # --- what follows ---
    @property
    def published(self) -> bool:
        """Whether it is of a published table or configuration, and not our own."""
        return bool(self.source)

    @property
    def num_anchors(self) -> int:
        """Anchors a place."""
        return FIXED_SETS.get(self.anchors, len(self.anchor_scales) * len(self.anchor_ratios))

    @property
    def peak_lr(self) -> float:
        """Learning rate after warm-up for this recipe's batch."""
        return self.lr * self.batch / self.lr_per

    def steps_per_epoch(self, num_pictures: int) -> int:
        """Return the updates of an epoch: pictures dealt to batch / normalize_over groups, each batched by itself."""
        pictures = self.images_per_epoch or num_pictures
        groups = self.batch // self.normalize_over
        return math.ceil(math.ceil(pictures / groups) / self.normalize_over)

    @property
    def quirks(self) -> tuple[str, ...]:
        """Options of this recipe that stand in `docs/quirks.md`, as "field=value"."""
        return tuple(
            f"{quirk.field}={quirk.value}" for quirk in QUIRKS if quirk.held_by(self) and quirk.value != quirk.clean
        )

    def at(self, state: State) -> Recipe:
        """Return a published recipe in another state.

        `published` is what made the figure, `fixed` the last state of the original program, which mended some of its
        faults (`shared/spec/rotated.md` section 0.2), `clean` has every quirk off.
        """
        if state not in typing.get_args(State):
            raise UsageError(f"state={state!r} does not exist; use published, fixed or clean")
        changes = (
            {}
            if state == "published"
            else {
                quirk.field: quirk.fixed if state == "fixed" else quirk.clean for quirk in QUIRKS if quirk.held_by(self)
            }
        )
        return dataclasses.replace(self, **changes)

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed; a name that is no field gets a did-you-mean.

        in_channels alone also repeats mean and std, so that one field suffices for pictures of other bands.
        """
        for name in changes:
            if name not in FIELD_TYPES:
                raise UsageError(f"{name!r} is no field of a recipe{did_you_mean(name, FIELD_TYPES)}")
        channels = changes.get("in_channels", self.in_channels)
        if channels != self.in_channels and "mean" not in changes and "std" not in changes:
            repeat = -(-channels // len(self.mean))
            changes |= {"mean": (self.mean * repeat)[:channels], "std": (self.std * repeat)[:channels]}
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain lists, numbers and strings, fit for YAML and JSON."""
        return {item.name: plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from `to_dict`'s answer; unknown fields are an error with a did-you-mean."""
        for name in values:
            if name not in FIELD_TYPES:
                raise UsageError(f"{name!r} is no field of a recipe{did_you_mean(name, FIELD_TYPES)}")
        return cls(**values)


@dataclass(frozen=True)
class Quirk:
    """A value of a field that exists only because a published row has it; `docs/quirks.md` explains each.

    Attributes:
        field: which one.
        value: in state `published`.
        fixed: in state `fixed`.
        clean: in state `clean`.
        rows: of the DOTA table it belongs to, where the value is an ordinary one elsewhere; None: any recipe.
    """

    field: str
    value: Any
    fixed: Any
    clean: Any
    rows: frozenset[int] | None = None

    def held_by(self, recipe: Recipe) -> bool:
        """Whether a recipe has it."""
        here = self.rows is None or (recipe.kind == "rbox" and recipe.row in self.rows)
        return here and getattr(recipe, self.field) == self.value


REFINED_ROWS = frozenset(range(11, 19))
"""R3Det and what follows it."""
STAR_ROWS = frozenset({12, 15})
"""R3Det*, which refines twice."""

QUIRKS = (
    Quirk("claim", "ties-overwrite", "ties-overwrite", "ties"),
    Quirk("claim", "ties-zero", "ties-zero", "ties"),
    Quirk("nms_labels", "offset", "offset", "separate"),
    Quirk("warmup_until", "last", "last", "next"),
    Quirk("box_loss", "smooth_l1_one_sided", "smooth_l1", "smooth_l1"),
    Quirk("anchors", "r90-crossed", "r90", "r90"),
    Quirk("anchor_squares", "rounded", "rounded", "alike"),
    Quirk("drop_from", "second", "second", "first"),
    Quirk("nms_equal", "suppress", "suppress", "keep"),
    Quirk("max_per_class", 100, 200, None),
    Quirk("max_detections", None, None, 2000),
    Quirk("refit", "original-180", "original-180", "none"),
    Quirk("merge_nms", "single-scale", "after-2020", "after-2020"),
    Quirk("merge_per_class", 500, 5000, None),
    Quirk("merge_per_class", 1000, 5000, None, rows=frozenset({18})),
    Quirk("merge_per_class", 1500, 5000, None, rows=frozenset({16, 17})),
    Quirk("merge_corners", "whole", "compared-whole", "exact"),
    Quirk("merge_nms", "multi-scale", "after-2020", "after-2020"),
    Quirk("refine_sampling", "original-transposed", "original", "true"),
    Quirk("refine_sampling", "transposed", "transposed", "true"),
    Quirk("rectangle", "by-sides", "by-sides", "least-area"),
    Quirk("refine_gradient", "attached", "attached", "detached"),
    Quirk("test_resize", "opencv-truncated", "opencv-truncated", "opencv"),
    Quirk("box_sides", "exact", "plus_one", "exact", rows=REFINED_ROWS),
    Quirk("stages", "last", "refined", "last", rows=STAR_ROWS),
)

FIXED_SETS = {"h21": 21, "h55": 55, "r90": 90, "r90-crossed": 90}
"""Anchors a place of the sets that scales and ratios do not describe."""


def plain(value: Any) -> Any:
    """Turn tuples into lists, at any depth."""
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def coerce(name: str, value: Any, expected: Any) -> Any:
    """Bring a value (from YAML, the command line or Python) into the type of its field, or say what would fit.

    >>> coerce("drops", [8, 11], tuple[int, ...])
    (8, 11)
    >>> coerce("lr", 1, float)
    1.0
    """
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(expected)
        if value is None and type(None) in options:
            return None
        return coerce(name, value, next(option for option in options if option is not type(None)))
    if origin is Literal:
        choices = typing.get_args(expected)
        if value in choices:
            return value
        guess = did_you_mean(str(value), [str(choice) for choice in choices])
        raise UsageError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}{guess}")
    if origin is tuple:
        return _coerce_tuple(name, value, typing.get_args(expected))
    if expected is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if expected is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
        return value
    raise UsageError(f"{name}={value!r} should be of type {getattr(expected, '__name__', expected)}")


def _coerce_tuple(name: str, value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{name}={value!r} should be a list, such as [{'a, b' if inner[0] is str else '1, 2'}]")
    if inner[-1] is Ellipsis:
        return tuple(coerce(name, item, inner[0]) for item in value)
    if len(value) != len(inner):
        raise UsageError(f"{name}={value!r} should have {len(inner)} entries")
    return tuple(coerce(name, item, kind) for item, kind in zip(value, inner, strict=True))


FIELD_TYPES: dict[str, Any] = typing.get_type_hints(Recipe)
"""Type of every field, by name."""
