"""D3, the Description Detection Dataset (shikras/d-cube): 422 sentences as categories, in groups of about four.

In the data folder, or one below it each: `d3_json/d3_full_annotations.json` (COCO; a category's id is its sentence's),
`d3_pkl/{images,groups,sentences}.pkl` (dicts by id) and `d3_images/`. An image is asked for the sentences of its own
group (`inner_sent_id`), the authors' intra-group setting. A sentence with `is_negative` describes by absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionr1.data.dataset import PartedDataset, dataset_from_table, keep_filled_parts
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.data.pickles import read_pickle
from visionr1.data.readers.coco import read_table
from visionr1.data.row_log import OnBad, RowLog, first_file, is_object_list
from visionr1.data.table import BoxTable
from visionr1.errors import DataError, short_repr

LENGTHS = {"1-3 words": (1, 3), "4-6 words": (4, 6), "7-9 words": (7, 9), "10 or more words": (10, 10**6)}
"""The authors' parts by length: the fewest and the most words, which are what blanks separate."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a pickle."""

    rows: Mapping[Id, Mapping[str, Any]]
    ids: IdIndex

    def get(self, value: object) -> Mapping[str, Any]:
        """Return the row of an id; an empty one if there is none."""
        identity = self.ids.find(value)
        return {} if identity is None else self.rows[identity]


def read_d3(folder: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> PartedDataset:
    """Read D3 in `folder`; DataError naming the file that is missing or wrong."""
    table = read_table(_find_file(folder, "d3_json", "d3_full_annotations.json"), on_bad=on_bad)
    sentences = _read_by_id(_find_file(folder, "d3_pkl", "sentences.pkl"))
    unknown = [identity for identity in table.category_ids if identity not in sentences.ids]
    if unknown:
        problem = f"{len(unknown)} have no sentence, such as id {short_repr(unknown[0])}"
        raise DataError(f"{table.path}: categories: {problem}")

    parts = _split_into_parts(table, sentences)
    if not with_images:
        return PartedDataset((), table, table.report, parts)

    log = RowLog(table.path, on_bad, table.report)
    image_folders = (folder / "d3_images", folder / "images", folder)
    image_folder = next(path for path in image_folders if path.is_dir())
    dataset = dataset_from_table(table, log, image_folder, _read_group_sentences(table, folder))
    return PartedDataset(dataset.samples, dataset.table, dataset.report, parts)


def _split_into_parts(table: BoxTable, sentences: _Rows) -> dict[str, tuple[int, ...]]:
    """Return the positions of the sentences of each part: all, by presence, by absence, by length."""
    parts: dict[str, list[int]] = {}
    for name in ("FULL", "PRES", "ABS", *LENGTHS):
        parts[name] = []

    for position, identity in enumerate(table.category_ids):
        parts["FULL"].append(position)
        if sentences.get(identity).get("is_negative"):
            parts["ABS"].append(position)
        else:
            parts["PRES"].append(position)

        # Words are counted as the authors count them, so not by split().
        num_words = len(table.categories[position].split(" "))
        for name, (shortest, longest) in LENGTHS.items():
            if shortest <= num_words <= longest:
                parts[name].append(position)
    return keep_filled_parts(parts)


def _read_group_sentences(table: BoxTable, folder: Path) -> list[list[str]]:
    """Return the sentences of each image's group, in the order of the group."""
    images = _read_by_id(_find_file(folder, "d3_pkl", "images.pkl"))
    groups = _read_by_id(_find_file(folder, "d3_pkl", "groups.pkl"))
    category_ids = IdIndex(table.category_ids)
    sentences = dict(zip(table.category_ids, table.categories, strict=True))
    sentences_of_images = []
    for image_id in table.image_ids:
        group = groups.get(images.get(image_id).get("group_id"))
        sentence_ids = group.get("inner_sent_id")
        if not isinstance(sentence_ids, list):
            raise DataError(
                f"{folder}: image {short_repr(image_id)} of {table.path.name} has no group with sentences in the .pkl"
            )

        # A group may name sentences that the annotations do not have.
        texts = []
        for sentence_id in map(category_ids.find, sentence_ids):
            if sentence_id is not None:
                texts.append(sentences[sentence_id])
        sentences_of_images.append(texts)
    return sentences_of_images


def _find_file(folder: Path, below: str, name: str) -> Path:
    """Return a file of D3 in its usual folder `below` or beside it; DataError if it is in neither."""
    file = first_file((folder / below / name, folder / name))
    if file is None:
        raise DataError(f"{folder}: expected {below}/{name} or {name} of D3, found neither")
    return file


def _read_by_id(path: Path) -> _Rows:
    """Return the rows of a pickle by id; DataError if it is no dict of dicts."""
    content = read_pickle(path)
    if not isinstance(content, dict) or not is_object_list(list(content.values())):
        raise DataError(f"{path}: expected a dict of dicts by id, as D3's authors publish it")

    rows: dict[Id, Mapping[str, Any]] = {}
    for key, row in content.items():
        identity = read_id(key)
        if identity is not None:
            rows[identity] = row
    return _Rows(rows, IdIndex(rows))
