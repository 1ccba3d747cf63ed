"""Dataset: pictures and their objects as a few flat arrays, however many there are.

No Python object is kept a picture or an object: a worker that is forked shares the arrays' memory, and reference counts
never make it copy a page. Sizes are (height, width), boxes in pixels of the picture as its file shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from focaldet.data.pictures import read_picture
from focaldet.errors import UsageError, did_you_mean
from focaldet.geometry.quads import cross_themselves, quad_areas
from focaldet.results.tables import TruthTable, picture_key

if TYPE_CHECKING:  # whoever only reads labels does without torch
    from focaldet.structures import Sample

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Format = Literal["coco", "dota", "yolo", "yolo-obb", "voc", "hrsc", "icdar"]
Kind = Literal["hbox", "rbox"]
"""Boxes that a recipe is about: upright or rotated."""

ANY_CLASS = -1
"""Label of a region that is to be ignored whatever a detector finds there (`ignored` in data.yaml)."""

FORMAT_NAMES: dict[str, str] = {
    "coco": "COCO json",
    "dota": "DOTA labelTxt",
    "yolo": "YOLO labels",
    "yolo-obb": "YOLO-OBB labels",
    "voc": "VOC xml",
    "hrsc": "HRSC xml",
    "icdar": "ICDAR quadrilaterals",
}


@dataclass(frozen=True)
class LeftOut:
    """Objects of a file that are not in the dataset: how many, why, and where the first one stands."""

    reason: str
    count: int
    first: str

    def __str__(self) -> str:
        """Return e.g. "boxes without area: 2 (the first: annotation 7 of x.json)"."""
        return f"{self.reason}: {self.count} (the first: {self.first})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures with objects, in P + N flat arrays. Built by the readers; `open_dataset` finds the right one.

    Attributes:
        classes: names, label k is `classes[k]`.
        category_ids: (C,) the file's own number of each class, for results files.
        format: of the files it came from.
        split: "train" or "val".
        source: the file or folder of the labels.
        folder: where the pictures' names start.
        name_bytes, name_ends: all names as one UTF-8 array, and (P,) where each ends.
        ids: (P,) numbers of the pictures, the file's own where it has them.
        sizes: (P, 2) height and width as the file says.
        starts: (P + 1,); the objects of picture p are `starts[p]` to `starts[p + 1]`.
        corners: (N, 4, 2) float32 corners, as annotated; of upright boxes clockwise from the upper left.
        boxes: (N, 4) float64 x, y, width, height as written, so that scores are those of the file to the last bit; of
            rotated objects their hulls.
        labels: (N,) 0 to C-1, or ANY_CLASS.
        crowd, difficult, ignore: (N,) flags. A crowd is a region full of objects.
        areas: (N,) areas for scoring, the file's own where it has them.
        object_ids: (N,) annotation numbers.
        left_out: what the files hold and the dataset does not.
        polygons: (N, 4, 2) float64 corners as written, where objects are rotated; None where they are upright.
        notes: what else is to be said of how the files were taken, a clause each.
    """

    classes: tuple[str, ...]
    category_ids: Ints
    format: Format
    split: str
    source: Path
    folder: Path
    name_bytes: npt.NDArray[np.uint8]
    name_ends: Ints
    ids: Ints
    sizes: Ints
    starts: Ints
    corners: npt.NDArray[np.float32]
    boxes: Floats
    labels: Ints
    crowd: Bools
    difficult: Bools
    ignore: Bools
    areas: Floats
    object_ids: Ints
    left_out: tuple[LeftOut, ...] = ()
    polygons: Floats | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.ids)

    @property
    def num_objects(self) -> int:
        """Objects of all pictures, crowds and ignored ones included."""
        return len(self.labels)

    @property
    def kind(self) -> Kind:
        """Whether objects are upright or rotated."""
        return "hbox" if self.polygons is None else "rbox"

    @property
    def counts(self) -> Ints:
        """(P,) objects of each picture."""
        return np.diff(self.starts)

    @property
    def object_pictures(self) -> Ints:
        """(N,) the picture of each object."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def tall(self) -> Bools:
        """(P,) pictures that are narrower than high; batches are made of one kind (spec section 10)."""
        return self.sizes[:, 1] < self.sizes[:, 0]

    def name(self, index: int) -> str:
        """Return a picture's file name, relative to `folder`."""
        start = int(self.name_ends[index - 1]) if index else 0
        return self.name_bytes[start : self.name_ends[index]].tobytes().decode()

    def path(self, index: int) -> Path:
        """Return a picture's file."""
        return self.folder / self.name(index)

    def sample(self, index: int, channels: int = 3) -> Sample:
        """Read a picture with all its objects.

        Args:
            index: 0 to P-1.
            channels: of the picture, 3 for RGB.

        Raises:
            FocaldetError: the picture cannot be read; the sentence names it.
        """
        from focaldet.structures import Sample

        image = read_picture(self.path(index), channels)
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return Sample(
            image=image,
            corners=self.corners[part].copy(),
            labels=self.labels[part].copy(),
            crowd=self.crowd[part].copy(),
            difficult=self.difficult[part].copy(),
            id=int(self.ids[index]),
            index=index,
            name=self.name(index),
            original=(image.shape[0], image.shape[1]),
            rotated=self.polygons is not None,
        )

    def as_kind(self, kind: Kind) -> Dataset:
        """Return the dataset for recipes of a kind: rotated objects by their hulls, or upright ones as rectangles."""
        if kind == self.kind:
            return self
        if kind == "rbox":
            return replace(
                self,
                polygons=xywh_to_polygons(self.boxes),
                notes=(*self.notes, "upright boxes are taken as rotated ones"),
            )
        return replace(
            self,
            corners=xywh_to_corners(self.boxes),
            polygons=None,
            notes=(*self.notes, "rotated objects are taken by their upright hulls"),
        )

    def select(self, indices: Sequence[int] | Ints) -> Dataset:
        """Return the dataset of some pictures, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        counts = self.counts[chosen]
        starts = _starts(counts)
        # object numbers: each picture's run of old numbers, laid end to end
        objects = np.arange(starts[-1]) + np.repeat(self.starts[:-1][chosen] - starts[:-1], counts)
        name_bytes, name_ends = pack_names([self.name(int(index)) for index in chosen])
        pictures = replace(
            self,
            name_bytes=name_bytes,
            name_ends=name_ends,
            ids=self.ids[chosen],
            sizes=self.sizes[chosen],
            starts=starts,
        )
        return pictures._with_objects(objects)

    def keep_objects(self, wanted: Bools) -> Dataset:
        """Return the dataset with the (N,) wanted objects only; pictures stay, some perhaps without objects."""
        counts = np.bincount(self.object_pictures[wanted], minlength=len(self))
        return replace(self, starts=_starts(counts))._with_objects(np.flatnonzero(wanted))

    def with_classes(self, classes: Sequence[str], *, missing_ok: bool = False) -> Dataset:
        """Return the dataset in another class list, joined by name.

        Objects of classes that are not asked for are left out and counted; their pictures stay.

        Args:
            classes: the new list; label k becomes `classes[k]`.
            missing_ok: take names that the dataset does not know, as classes without objects.

        Raises:
            UsageError: a name is not among the dataset's; the sentence gives both lists.
        """
        if tuple(classes) == self.classes:
            return self
        unknown = [name for name in classes if name not in self.classes]
        if unknown and not missing_ok:
            raise UsageError(
                f"class {unknown[0]!r} is not in {self.source}{did_you_mean(unknown[0], self.classes)}: "
                f"asked for {', '.join(classes)}; it has {', '.join(self.classes)}"
            )
        number_of = dict(zip(self.classes, self.category_ids.tolist(), strict=True))
        free = itertools.count(max(number_of.values(), default=0) + 1)
        category_ids = [number_of[name] if name in number_of else next(free) for name in classes]
        labels, dropped = self._join_labels(classes)
        joined = replace(self, classes=tuple(classes), category_ids=np.array(category_ids, np.int64), labels=labels)
        note = left_out("objects of classes that were not asked for", dropped, self._object_place)
        return replace(joined.keep_objects(~dropped), left_out=self.left_out + note)

    def _join_labels(self, classes: Sequence[str]) -> tuple[Ints, Bools]:
        """Return (N,) labels in another class list, and (N,) which objects have none there."""
        new_label = {name: label for label, name in enumerate(classes)}
        table = np.array([*(new_label.get(name, len(classes)) for name in self.classes), ANY_CLASS], dtype=np.int64)
        labels = table[self.labels]  # ANY_CLASS, -1, finds the table's last entry: itself
        return labels, labels == len(classes)

    def with_ignored(self, classes: Sequence[str]) -> Dataset:
        """Return the dataset with some classes turned into regions that are to be ignored, whatever is found there."""
        if not classes:
            return self
        kept = [name for name in self.classes if name not in classes]
        self.with_classes(classes)  # complains about unknown names
        ignored = np.isin(self.labels, [self.classes.index(name) for name in classes])
        labels = np.where(ignored, ANY_CLASS, self.labels)
        return replace(self, labels=labels, crowd=self.crowd | ignored).with_classes(kept)

    def to_coco(self) -> dict[str, Any]:
        """Return the dataset as COCO json, for scoring: ids, boxes and areas as they stand in the file.

        What a detector may find without gain or loss becomes `iscrowd`, the only such mark that COCO's evaluators heed:
        crowds, difficult objects (VOC), and regions to be ignored, which become a crowd of every class.
        """
        images = [
            {"id": image_id, "file_name": self.name(index), "height": height, "width": width}
            for index, (image_id, (height, width)) in enumerate(
                zip(self.ids.tolist(), self.sizes.tolist(), strict=True)
            )
        ]
        category_ids = self.category_ids.tolist()
        categories = [{"id": number, "name": name} for number, name in zip(category_ids, self.classes, strict=True)]
        return {"images": images, "annotations": self._annotations(category_ids), "categories": categories}

    def _annotations(self, category_ids: list[int]) -> list[dict[str, Any]]:
        pictures = self.ids[self.object_pictures].tolist()
        boxes, areas, labels = self.boxes.tolist(), self.areas.tolist(), self.labels.tolist()
        crowd, ignore, ids = (self.crowd | self.difficult).tolist(), self.ignore.tolist(), self.object_ids.tolist()
        annotations = []
        extra_id = max(ids, default=0)
        for k, label in enumerate(labels):
            for copy, category in enumerate(category_ids if label == ANY_CLASS else [category_ids[label]]):
                extra_id += copy > 0
                annotation = {
                    "id": extra_id if copy else ids[k],
                    "image_id": pictures[k],
                    "category_id": category,
                    "bbox": boxes[k],
                    "area": areas[k],
                    "iscrowd": int(crowd[k]),
                }
                annotations.append(annotation | {"ignore": 1} if ignore[k] else annotation)
        return annotations

    def to_truth(self) -> TruthTable:
        """Return the objects as truth for scoring rotated detections: corners as written.

        What a detector may find without gain or loss counts as difficult; a region to be ignored becomes a difficult
        object of every class.
        """
        polygons = xywh_to_polygons(self.boxes) if self.polygons is None else self.polygons
        free = self.crowd | self.difficult | self.ignore
        any_class = self.labels == ANY_CLASS
        rows = np.repeat(np.arange(self.num_objects), np.where(any_class, len(self.classes), 1))
        starts = np.repeat(np.flatnonzero(np.diff(rows, prepend=-1)), np.bincount(rows, minlength=self.num_objects))
        labels = np.where(any_class[rows], np.arange(len(rows)) - starts, self.labels[rows])
        return TruthTable(
            pictures=tuple(picture_key(self.name(index)) for index in range(len(self))),
            classes=self.classes,
            polygons=polygons[rows],
            owners=self.object_pictures[rows],
            labels=labels,
            difficult=free[rows],
        )

    def describe(self) -> str:
        """Return what was recognized, in a line (more where something was left out)."""
        per_class = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        order = np.argsort(-per_class, kind="stable")
        shown = [f"{self.classes[k]} {per_class[k]}" for k in order[:6]]
        if len(order) > 6:
            shown.append(f"{len(order) - 6} more")
        empty, difficult = int((self.counts == 0).sum()), int(self.difficult.sum())
        line = (
            f"{self.source} ({FORMAT_NAMES[self.format]}, {self.split}): {len(self)} pictures, {empty} of them without "
            f"objects; {self.num_objects} objects in {len(self.classes)} classes ({', '.join(shown)})"
            + (f", {difficult} of them difficult" if difficult else "")
        )
        taken = [f"  {note}" for note in self.notes]
        return "\n".join([line, *taken, *(f"  left out: {note}" for note in self.left_out)])

    def _object_place(self, number: int) -> str:
        picture = int(np.searchsorted(self.starts, number, side="right")) - 1
        return f"annotation {self.object_ids[number]} of picture {self.name(picture)}"

    def _with_objects(self, objects: Ints) -> Dataset:
        return replace(
            self,
            corners=self.corners[objects],
            boxes=self.boxes[objects],
            labels=self.labels[objects],
            crowd=self.crowd[objects],
            difficult=self.difficult[objects],
            ignore=self.ignore[objects],
            areas=self.areas[objects],
            object_ids=self.object_ids[objects],
            polygons=None if self.polygons is None else self.polygons[objects],
        )


@dataclass
class Objects:
    """Objects as a reader finds them, in file order; `build_dataset` sorts them by picture.

    Attributes:
        pictures: (N,) index of each object's picture.
        boxes: (N, 4) float64 x, y, width, height; None where `polygons` are given, means their hulls.
        labels: (N,).
        crowd, difficult, ignore: (N,) flags; None means none.
        areas: (N,); None means width times height.
        ids: (N,); None means 1 to N.
        polygons: (N, 4, 2) float64 corners of rotated objects.
    """

    pictures: Ints
    boxes: Floats | None
    labels: Ints
    crowd: Bools | None = None
    difficult: Bools | None = None
    ignore: Bools | None = None
    areas: Floats | None = None
    ids: Ints | None = None
    polygons: Floats | None = None


def build_dataset(
    *,
    classes: Sequence[str],
    category_ids: Ints | None = None,
    format: Format,
    split: str,
    source: Path,
    folder: Path,
    names: Sequence[str],
    ids: Ints | None = None,
    sizes: Ints,
    objects: Objects,
    left_out: tuple[LeftOut, ...] = (),
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Put what a reader found into a Dataset; within a picture the objects keep their order in the file."""
    total = len(objects.labels)
    none = np.zeros(total, dtype=bool)
    order = np.argsort(objects.pictures, kind="stable")
    polygons = objects.polygons
    if objects.boxes is None:
        assert polygons is not None
        boxes = polygon_hulls(polygons)
    else:
        boxes = objects.boxes
    areas = boxes[:, 2] * boxes[:, 3] if objects.areas is None else objects.areas
    name_bytes, name_ends = pack_names(names)
    return Dataset(
        classes=tuple(classes),
        category_ids=np.arange(1, len(classes) + 1) if category_ids is None else category_ids,
        format=format,
        split=split,
        source=source,
        folder=folder,
        name_bytes=name_bytes,
        name_ends=name_ends,
        ids=np.arange(1, len(names) + 1) if ids is None else ids,
        sizes=sizes.reshape(-1, 2),
        starts=_starts(np.bincount(objects.pictures, minlength=len(names))),
        corners=xywh_to_corners(boxes[order]) if polygons is None else polygons[order].astype(np.float32),
        boxes=boxes[order],
        labels=objects.labels[order],
        crowd=none if objects.crowd is None else objects.crowd[order],
        difficult=none if objects.difficult is None else objects.difficult[order],
        ignore=none if objects.ignore is None else objects.ignore[order],
        areas=areas[order],
        object_ids=np.arange(1, total + 1) if objects.ids is None else objects.ids[order],
        left_out=left_out,
        polygons=None if polygons is None else polygons[order],
        notes=notes,
    )


def left_out(reason: str, flags: Bools, place: Callable[[int], str]) -> tuple[LeftOut, ...]:
    """Return the note on the flagged objects, or nothing where there are none.

    Args:
        reason: in the plural, e.g. "boxes without area".
        flags: (N,) which objects.
        place: called with the first one's number, says where it stands.
    """
    if not flags.any():
        return ()
    return (LeftOut(reason, int(flags.sum()), place(int(flags.argmax()))),)


def sort_out(boxes: Floats, place: Callable[[int], str]) -> tuple[Bools, tuple[LeftOut, ...]]:
    """Return (N,) which x, y, width, height boxes are of use, and notes on the others: not finite, negative, flat."""
    sides = boxes[:, 2:]
    finite = np.all(np.isfinite(boxes), axis=1)
    negative = finite & np.any(sides < 0, axis=1)
    flat = finite & np.any(sides == 0, axis=1) & ~negative
    notes = (
        left_out("boxes with numbers that are not finite", ~finite, place),
        left_out("boxes with a negative width or height", negative, place),
        left_out("boxes without area", flat, place),
    )
    return finite & ~negative & ~flat, tuple(itertools.chain(*notes))


def sort_out_polygons(polygons: Floats, place: Callable[[int], str]) -> tuple[Bools, tuple[LeftOut, ...]]:
    """Return which polygons (N, 4, 2) are of use, (N,), and notes on the others: crossing themselves, without area."""
    crossing = cross_themselves(polygons)
    flat = ~crossing & (quad_areas(polygons) == 0)
    notes = (
        *left_out("objects whose polygon crosses itself", crossing, place),
        *left_out("objects without area", flat, place),
    )
    return ~crossing & ~flat, notes


def note_outside(polygons: Floats, sizes: Ints, place: Callable[[int], str]) -> tuple[str, ...]:
    """Return a note on the polygons (N, 4, 2) that reach out of their pictures, of (N, 2) height and width."""
    beyond = np.any((polygons < 0) | (polygons > sizes[:, None, ::-1]), axis=(1, 2))
    return tuple(f"kept: {note}" for note in left_out("objects that reach out of their picture", beyond, place))


def polygon_hulls(polygons: Floats) -> Floats:
    """Return x, y, width, height (N, 4) of the upright hulls of polygons (N, 4, 2)."""
    low, high = polygons.min(axis=1), polygons.max(axis=1)
    return np.concatenate([low, high - low], axis=1)


def xywh_to_polygons(boxes: Floats) -> Floats:
    """Turn (N, 4) x, y, width, height into (N, 4, 2) float64 corners, clockwise from the upper left."""
    x1, y1 = boxes[:, 0], boxes[:, 1]
    x2, y2 = x1 + boxes[:, 2], y1 + boxes[:, 3]
    return np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2)


def xywh_to_corners(boxes: Floats) -> npt.NDArray[np.float32]:
    """Turn (N, 4) x, y, width, height into (N, 4, 2) corners, clockwise on the screen from the upper left.

    The sum is taken in float64 and rounded once, as the reference reader does (spec section 10).
    """
    return xywh_to_polygons(boxes).astype(np.float32)


def pack_names(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Join names into one UTF-8 array; return it and where each name ends."""
    encoded = [name.encode() for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def _starts(counts: npt.NDArray[Any]) -> Ints:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
