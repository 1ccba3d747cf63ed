"""Recognize a data set by what lies in its folder, and open one of its splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from focaldet.data.coco import read_coco
from focaldet.data.dataset import FORMAT_NAMES, Dataset, Kind
from focaldet.data.dota import label_folder, read_dota
from focaldet.data.hrsc import is_rotated, read_hrsc
from focaldet.data.icdar import read_icdar
from focaldet.data.listing import (
    ALIASES,
    NoSplitError,
    check_pictures,
    class_list,
    list_file,
    listed_pictures,
    pictures_in,
    with_own_names,
)
from focaldet.data.tiles import MANIFEST
from focaldet.data.voc import parse_xml, read_voc
from focaldet.data.yolo import has_rotated_labels, read_yolo
from focaldet.errors import FocaldetError, UsageError, did_you_mean

Opener = Callable[[], Dataset]
Listing = Callable[[], list[Path]]

PICTURE_FOLDERS = ("images", "AllImages", "JPEGImages")
ROTATED_FORMATS = ("dota", "yolo-obb", "hrsc", "icdar")
"""Those that are taken for rotated recipes where a folder holds several, the first before the others."""


@dataclass(frozen=True)
class Place:
    """Where a split is looked for.

    Attributes:
        root: the folder.
        split: "train" or "val".
        names: the class names that were given, or None.
        whole: whether all pictures of the folder are the split if no list in it says otherwise.
        listed: the text file that lists the split's pictures, where a data.yaml names one; None looks for one.
        roots: folders besides `root` in which what lists and jsons name may lie.
    """

    root: Path
    split: str
    names: Sequence[str] | None = None
    whole: bool = False
    listed: Path | None = None
    roots: tuple[Path, ...] = ()

    def within(self, folder: Path, whole: bool) -> Place:
        """Return the place in a folder of this one; `whole` as above, if this one is not."""
        return replace(self, root=folder, whole=self.whole or whole, roots=(self.root, *self.roots))

    def list_in(self, folders: Iterable[Path]) -> Path | None:
        """Return the text file that lists the split's pictures: the one given, else one of the folders'."""
        return self.listed or list_file(folders, self.split)

    def pictures(self, lines: Path, folders: Sequence[Path]) -> list[Path]:
        """Return the pictures that a text file lists; stems are looked for in the folders."""
        return listed_pictures(lines, folders, (self.root, *self.roots))


def open_folder(
    root: Path,
    split: str,
    format: str | None = None,
    kind: Kind | None = None,
    names: Sequence[str] | None = None,
    *,
    whole: bool = False,
    listed: Path | None = None,
    roots: Sequence[Path] = (),
) -> Dataset:
    """Open a split of a folder.

    Args:
        root: the folder.
        split: "train" or "val".
        format: decides where several formats fit.
        kind: where several fit, those with boxes of this kind come first.
        names: class names, for label files that do not bring their own.
        whole: whether the folder is the split, unless a list in it says otherwise.
        listed: the text file that lists the split's pictures; None looks for one.
        roots: folders besides this one in which what lists and jsons name may lie.

    Raises:
        NoSplitError: it has a format that is known, but not this split.
        FocaldetError: it has no format that is known, or several.
    """
    if format is not None and format not in FINDERS:
        raise UsageError(f"format={format!r} is not known{did_you_mean(format, FINDERS)}; use {', '.join(FINDERS)}")
    place = Place(root, split, names, whole, listed, tuple(roots))
    fitting = {name: find for name, find in FINDERS.items() if format in (None, name)}
    found = {name: opener for name, find in fitting.items() if (opener := find(place)) is not None}
    if not found:
        _complain(place, fitting)
    name = _choose(root, list(found), kind)
    dataset = check_pictures(found[name]())
    if len(found) == 1:
        return dataset
    others = " and ".join(FORMAT_NAMES[other] for other in found if other != name)
    own = "rbox" if name in ROTATED_FORMATS else "hbox"
    wanted = f" for its {'upright' if kind == 'hbox' else 'rotated'} boxes" if kind == own else ""
    note = f"the folder holds {others} too; {FORMAT_NAMES[name]} is taken{wanted}, format= decides"
    return replace(dataset, notes=(note, *dataset.notes))


def _choose(root: Path, found: list[str], kind: Kind | None) -> str:
    """Return the format that counts of those that fit a folder."""
    if len(found) == 1:
        return found[0]
    rotated = [name for name in ROTATED_FORMATS if name in found]
    if (kind == "rbox" and rotated) or len(rotated) == len(found):
        return rotated[0]
    left = [name for name in found if kind is None or name not in rotated]
    if len(left) > 1:
        names = " and ".join(FORMAT_NAMES[name] for name in left)
        raise FocaldetError(
            f"{root} holds {names}; say which one counts by a data.yaml with a line such as 'format: {min(left)}'"
        )
    return left[0]


def open_coco(path: Path, split: str, stems: set[str] | None = None, roots: Sequence[Path] = ()) -> Dataset:
    """Open a COCO json and find its pictures.

    Args:
        path: the json.
        split: "train" or "val".
        stems: the pictures of the split, where the json holds more; None takes all.
        roots: as in `read_coco`.
    """
    dataset = read_coco(path, split, roots=roots)
    if stems is not None:
        dataset = dataset.select([k for k in range(len(dataset)) if Path(dataset.name(k)).stem in stems])
    return dataset


def open_yolo(pictures: Sequence[Path], classes: Sequence[str], split: str, source: Path) -> Dataset:
    """Open pictures with YOLO labels; none at all is an error."""
    if not pictures:
        raise FocaldetError(f"{source} has no pictures for {split}")
    return read_yolo(pictures, classes, split, source)


def _find_coco(place: Place) -> Opener | None:
    root, split, roots = place.root, place.split, (place.root, *place.roots)
    stems = _listed_stems(place)
    for alias in ALIASES[split]:
        paths = _jsons_of(root, alias)
        if len(paths) > 1:
            shown = " and ".join(path.name for path in paths)
            raise FocaldetError(f"{root} holds {shown} for {split}; name one by 'train:' and 'val:' in a data.yaml")
        if paths:
            chosen = stems if place.listed else None  # a train.txt that just lies there may be of another format
            return lambda: open_coco(paths[0], split, chosen, roots)
    whole = _jsons_without_split(root)
    if stems is not None and len(whole) == 1:
        return lambda: open_coco(whole[0], split, stems, roots)
    return None


def _jsons(root: Path) -> list[Path]:
    paths = [*root.glob("*.json"), *root.glob("annotations/*.json")]
    return sorted(path for path in paths if path.name != MANIFEST)


def _jsons_of(root: Path, alias: str) -> list[Path]:
    """Return the jsons whose name has the alias as a word, those called instances_* before others."""
    word = re.compile(rf"(^|[_.-]){alias}(20\d\d)?([_.-]|$)")
    paths = [path for path in _jsons(root) if word.search(path.stem)]
    instances = [path for path in paths if path.stem.startswith("instances")]
    return instances or paths or sorted(root.glob(f"{alias}/_annotations.coco.json"))


def _jsons_without_split(root: Path) -> list[Path]:
    aliased = {path for names in ALIASES.values() for alias in names for path in _jsons_of(root, alias)}
    return [path for path in _jsons(root) if path not in aliased]


def _listed_stems(place: Place) -> set[str] | None:
    path = place.listed or place.root / f"{place.split}.txt"
    return (
        {Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()} if path.is_file() else None
    )


def _find_yolo(place: Place, rotated: bool = False) -> Opener | None:
    pictures = _yolo_pictures(place)
    if pictures is None or has_rotated_labels(pictures()) != rotated:
        return None

    def opener() -> Dataset:
        classes = place.names or class_list(place.root)
        if classes is None:
            raise FocaldetError(
                f"nothing in {place.root} names the class numbers of its labels; add a classes.txt, a name a line"
            )
        return open_yolo(pictures(), classes, place.split, place.root)

    return opener


def _yolo_pictures(place: Place) -> Listing | None:
    """Return what lists the pictures of a split, None where the folder is not laid out for YOLO or lacks the split."""
    root, split = place.root, place.split
    for alias in ALIASES[split] if place.listed is None else ():
        for tail, labels in ((f"images/{alias}", f"labels/{alias}"), (f"{alias}/images", f"{alias}/labels")):
            if (root / labels).is_dir() and (root / tail).is_dir():
                return lambda tail=tail: pictures_in(root / tail)  # type: ignore[misc]
    lines = place.listed or root / f"{split}.txt"
    if (root / "labels").is_dir() and lines.is_file():
        return lambda: place.pictures(lines, [root / "images"])
    return None


def _find_voc(place: Place) -> Opener | None:
    root = place.root
    if not (root / "Annotations").is_dir() or _has_rotated_xml(root / "Annotations"):
        return None
    lines = place.list_in((root / "ImageSets/Main", root))
    if lines is None:
        return None
    folders = [root / "JPEGImages", root / "images"]
    return lambda: read_voc(place.pictures(lines, folders), root, place.split)


def _find_hrsc(place: Place) -> Opener | None:
    """Find HRSC2016 by its lists or by its folders Train and Test, and VOC's layout with rotated boxes."""
    root = place.root
    parts = {"train": root / "Train", "val": root / "Test"}
    for base in (root, root / "FullDataSet", parts[place.split]):
        if not (base / "Annotations").is_dir() or not _has_rotated_xml(base / "Annotations"):
            continue
        lists = (root / "ImageSets", root / "ImageSets/Main", root)
        inner = place.within(base, whole=base == parts[place.split])
        listing = _listing(inner, lists)
        if listing is not None:
            return lambda base=base, listing=listing: read_hrsc(  # type: ignore[misc]
                listing(), base / "Annotations", place.split, root, place.names or class_list(root)
            )
    return None


def _has_rotated_xml(folder: Path) -> bool:
    """Tell by the first xml with an object whether boxes are rotated; what is no xml shows when it is read."""
    for path in sorted(folder.glob("*.xml")):
        try:
            rotated = is_rotated(parse_xml(path))
        except FocaldetError:
            continue
        if rotated is not None:
            return rotated
    return False


def _find_dota(place: Place) -> Opener | None:
    """Find label files in labelTxt (or annfiles) beside pictures, a folder a split or with lists of the splits."""
    for alias in ALIASES[place.split]:
        part = place.root / alias
        if _has_labels(part):
            listing = _listing(place.within(part, whole=True), ())
            return None if listing is None else _dota_opener(place, part, listing)
    root = place.root.parent if _is_label_folder(place.root) else place.root
    if not _has_labels(root):
        return None
    listing = _listing(replace(place, root=root), (root,))
    return None if listing is None else _dota_opener(place, root, listing)


def _dota_opener(place: Place, part: Path, listing: Listing) -> Opener:
    def opener() -> Dataset:
        named = place.root if _is_label_folder(place.root) else part
        labels, pictures = _label_files(named), listing()
        if not pictures:
            raise FocaldetError(f"{part} has label files in {labels}, but no pictures; put them into {part / 'images'}")
        others = [_label_files(folder) for folder in _split_folders(place.root) if folder != part]
        names = place.names or class_list(place.root)
        all_labels = place.list_in((part,)) is None
        return read_dota(pictures, labels, place.split, place.root, names, beside=others, all_labels=all_labels)

    return opener


def _split_folders(root: Path) -> list[Path]:
    return [root / alias for names in ALIASES.values() for alias in names if _has_labels(root / alias)]


def _is_label_folder(folder: Path) -> bool:
    return folder.name.startswith("labelTxt") or folder.name == "annfiles"


def _has_labels(folder: Path) -> bool:
    return folder.is_dir() and any(_is_label_folder(inner) and inner.is_dir() for inner in folder.iterdir())


def _label_files(folder: Path) -> Path:
    """Return where a folder's label files are; a folder without any is that of pictures without objects."""
    return label_folder(folder) or folder


def _find_icdar(place: Place) -> Opener | None:
    """Find gt_*.txt in `gt` beside pictures, a folder a split or with lists, or in the challenge's own folders."""
    root, split = place.root, place.split
    for base in (*(root / alias for alias in ALIASES[split]), root):
        listing = _listing(place.within(base, whole=base != root), (base,))
        if any((base / "gt").glob("gt_*.txt")) and listing is not None:
            return lambda base=base, listing=listing: read_icdar(listing(), base / "gt", split, root)  # type: ignore[misc]
    pictures, labels = (root / name for name in ICDAR_FOLDERS[split])
    if pictures.is_dir() and labels.is_dir():
        listed = place.listed
        listing = (lambda: pictures_in(pictures)) if listed is None else (lambda: place.pictures(listed, [pictures]))
        return lambda: read_icdar(with_own_names(listing()), labels, split, root)
    return None


ICDAR_FOLDERS = {
    "train": ("ch4_training_images", "ch4_training_localization_transcription_gt"),
    "val": ("ch4_test_images", "Challenge4_Test_Task1_GT"),
}
"""Pictures and labels of ICDAR 2015, challenge 4, as they are handed out."""


def _listing(place: Place, lists: Sequence[Path]) -> Listing | None:
    """Return what lists the pictures of a split: a text file in one of the folders, or else all, if that is the split.

    A folder without any list is taken as a training set.
    """
    lines = place.list_in(lists)
    if lines is not None:
        folders = list(_picture_folders(place.root))
        return lambda: with_own_names(place.pictures(lines, folders))
    if any(list_file(lists, split) for split in ALIASES) or not (place.whole or place.split == "train"):
        return None
    return lambda: _all_pictures(place.root)


def _all_pictures(root: Path) -> list[Path]:
    return with_own_names([path for folder in _picture_folders(root) for path in pictures_in(folder)])


def _picture_folders(root: Path) -> Iterator[Path]:
    """Return where a folder has its pictures: in `images` or the like, else in itself."""
    folders = [root / name for name in PICTURE_FOLDERS if (root / name).is_dir()]
    yield from folders or [root]


FINDERS: Mapping[str, Callable[[Place], Opener | None]] = {
    "coco": _find_coco,
    "dota": _find_dota,
    "yolo": _find_yolo,
    "yolo-obb": lambda place: _find_yolo(place, rotated=True),
    "voc": _find_voc,
    "hrsc": _find_hrsc,
    "icdar": _find_icdar,
}


def _complain(place: Place, finders: Mapping[str, Callable[[Place], Opener | None]]) -> None:
    root, split = place.root, place.split
    other = "val" if split == "train" else "train"
    if any(find(replace(place, split=other)) is not None for find in finders.values()):
        raise NoSplitError(
            f"{root} has a {other} split but no {split} split; name its pictures in a {split}.txt or a data.yaml"
        )
    raise FocaldetError(
        f"{root} is no data set of a known format for {split}: expected instances_{split}.json with images/ (COCO), "
        f"labelTxt/ with images/ (DOTA), labels/ with images/ (YOLO), Annotations/ with JPEGImages/ (VOC, HRSC) or gt/ "
        f"with images/ (ICDAR), the splits named by {split}.txt"
    )
