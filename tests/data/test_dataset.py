from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldet.data.dataset import ANY_CLASS, Dataset, Objects, build_dataset
from focaldet.errors import UsageError


def make(counts: list[int], names: list[str] | None = None) -> Dataset:
    total = sum(counts)
    order = np.random.default_rng(0).permutation(total)  # files list objects in any order
    pictures = np.repeat(np.arange(len(counts)), counts)[order]
    boxes = np.stack([order, order + 1, order % 7 + 1, order % 5 + 1], axis=1).astype(np.float64)
    return build_dataset(
        classes=["cat", "dog", "cow"],
        category_ids=np.array([5, 2, 9]),
        format="coco",
        split="train",
        source=Path("made.json"),
        folder=Path(),
        names=names or [f"{k}.png" for k in range(len(counts))],
        ids=np.arange(len(counts)) * 3,
        sizes=np.full((len(counts), 2), 50),
        objects=Objects(pictures=pictures, boxes=boxes, labels=order % 3, ids=order),
    )


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8), data=st.data())
def test_select_takes_pictures_with_their_objects(counts: list[int], data: st.DataObject) -> None:
    dataset = make(counts)
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=6))
    part = dataset.select(chosen)
    assert len(part) == len(chosen)
    for new, old in enumerate(chosen):
        assert part.name(new) == dataset.name(old)
        assert part.ids[new] == dataset.ids[old]
        new_part, old_part = (slice(d.starts[k], d.starts[k + 1]) for d, k in ((part, new), (dataset, old)))
        assert part.object_ids[new_part].tolist() == dataset.object_ids[old_part].tolist()
        assert np.array_equal(part.corners[new_part], dataset.corners[old_part])


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8), data=st.data())
def test_keep_objects_keeps_pictures(counts: list[int], data: st.DataObject) -> None:
    dataset = make(counts)
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=sum(counts), max_size=sum(counts))), dtype=bool)
    part = dataset.keep_objects(wanted)
    assert len(part) == len(dataset)
    assert part.object_ids.tolist() == dataset.object_ids[wanted].tolist()
    assert part.object_pictures.tolist() == dataset.object_pictures[wanted].tolist()


@given(names=st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_names_come_back(names: list[str]) -> None:
    dataset = make([0] * len(names), names)
    assert [dataset.name(k) for k in range(len(names))] == names


def test_classes_are_joined_by_name() -> None:
    dataset = make([4, 0, 5])
    joined = dataset.with_classes(["cow", "cat"])
    assert joined.category_ids.tolist() == [9, 5]
    assert len(joined) == 3
    kept = dataset.labels != 1
    assert joined.object_ids.tolist() == dataset.object_ids[kept].tolist()
    assert [joined.classes[k] for k in joined.labels] == [dataset.classes[k] for k in dataset.labels[kept]]
    assert "objects of classes that were not asked for: 3" in joined.describe()


def test_unknown_class_gives_both_lists() -> None:
    with pytest.raises(UsageError) as caught:
        make([1]).with_classes(["cat", "dgo"])
    message = str(caught.value)
    assert "'dgo' is not in made.json (did you mean 'dog'?)" in message
    assert "asked for cat, dgo; it has cat, dog, cow" in message


def test_missing_classes_are_taken_where_that_is_fine() -> None:
    joined = make([3]).with_classes(["horse", "cat", "dog", "cow"], missing_ok=True)
    assert joined.category_ids.tolist() == [10, 5, 2, 9]
    assert 0 not in joined.labels
    assert joined.num_objects == 3


def test_ignored_classes_become_a_crowd_of_every_class() -> None:
    dataset = make([2, 4]).with_ignored(["dog"])
    assert dataset.classes == ("cat", "cow")
    assert dataset.num_objects == 6
    ignored = dataset.labels == ANY_CLASS
    assert ignored.sum() == 2
    assert dataset.crowd[ignored].all()
    annotations = dataset.to_coco()["annotations"]
    assert len(annotations) == 4 + 2 * 2
    assert len({annotation["id"] for annotation in annotations}) == len(annotations)
    assert sum(annotation["iscrowd"] for annotation in annotations) == 4
    # joined once more, they stay what they are
    assert (dataset.with_classes(["cow"]).labels == ANY_CLASS).sum() == 2


def test_difficult_objects_are_scored_as_crowds() -> None:
    dataset = make([2])
    dataset.difficult[1] = True
    assert [annotation["iscrowd"] for annotation in dataset.to_coco()["annotations"]] == [0, 1]


def test_memory_is_arrays_only_and_survives_pickling() -> None:
    dataset = make([3] * 50)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.name(49) == dataset.name(49)
    lists = [name for name, value in vars(dataset).items() if isinstance(value, (list, dict))]
    assert lists == []


def test_describe_says_what_was_recognized() -> None:
    line = make([4, 0, 5]).describe()
    assert line == (
        "made.json (COCO json, train): 3 pictures, 1 of them without objects; "
        "9 objects in 3 classes (cat 3, dog 3, cow 3)"
    )
