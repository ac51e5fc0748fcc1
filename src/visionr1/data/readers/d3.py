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

from visionr1.data.dataset import dataset_from_table
from visionr1.data.pickles import read_pickle
from visionr1.data.readers.coco import read_table
from visionr1.data.row_log import Id, OnBad, RowLog, read_id
from visionr1.data.table import BoxTable
from visionr1.errors import DataError
from visionr1.samples import Sample

LENGTHS = {"1-3 words": (1, 3), "4-6 words": (4, 6), "7-9 words": (7, 9), "10 or more words": (10, 10**6)}
"""The authors' split by length; words are what blanks separate."""


@dataclass(frozen=True, slots=True, eq=False)
class D3:
    """The samples (none if read without images), the table, and the categories of each part by position."""

    samples: tuple[Sample, ...]
    table: BoxTable
    parts: Mapping[str, tuple[int, ...]]
    report_lines: tuple[str, ...]


def read_d3(folder: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> D3:
    """D3 in `folder`; DataError naming the file that is missing or wrong."""
    table = read_table(_file(folder, "d3_json", "d3_full_annotations.json"), on_bad=on_bad)
    sentences = _by_id(_file(folder, "d3_pkl", "sentences.pkl"))
    places = {identity: place for place, identity in enumerate(table.category_ids)}
    if unknown := [identity for identity in places if identity not in sentences]:
        raise DataError(f"{table.path}: categories: {len(unknown)} have no sentence, such as id {unknown[0]!r}")
    absent = [place for identity, place in places.items() if sentences[identity].get("is_negative")]
    lengths = [len(name.split(" ")) for name in table.categories]
    every = range(len(places))
    parts = {
        "FULL": tuple(every),
        "PRES": tuple(place for place in every if place not in set(absent)),
        "ABS": tuple(absent),
        **{
            name: tuple(place for place in every if low <= lengths[place] <= high)
            for name, (low, high) in LENGTHS.items()
        },
    }
    parts = {name: kept for name, kept in parts.items() if kept}
    if not with_images:
        return D3((), table, parts, tuple(table.report.lines()))
    log = RowLog(table.path, on_bad)
    asked = _asked(table, folder, places)
    images = next((place for name in ("d3_images", "images") if (place := folder / name).is_dir()), folder)
    dataset = dataset_from_table(table, log, images, asked)
    return D3(dataset.samples, dataset.table, parts, tuple(dataset.report.lines()))


def _asked(table: BoxTable, folder: Path, places: Mapping[Id, int]) -> list[list[str]]:
    """The sentences of each image's group, in the order of the group."""
    images = _by_id(_file(folder, "d3_pkl", "images.pkl"))
    groups = _by_id(_file(folder, "d3_pkl", "groups.pkl"))
    asked = []
    for identity in table.image_ids:
        group = groups.get(read_id(images.get(identity, {}).get("group_id")))  # type: ignore[arg-type]
        sentences = group.get("inner_sent_id") if group else None
        if not isinstance(sentences, list):
            raise DataError(
                f"{folder}: image {identity!r} of {table.path.name} has no group with sentences in the .pkl"
            )
        asked.append([table.categories[places[one]] for one in map(read_id, sentences) if one in places])  # type: ignore[index]
    return asked


def _file(folder: Path, below: str, name: str) -> Path:
    places = [folder / below / name, folder / name]
    if file := next((place for place in places if place.is_file()), None):
        return file
    raise DataError(f"{folder}: expected {below}/{name} or {name} of D3, found neither")


def _by_id(path: Path) -> dict[Id, Mapping[str, Any]]:
    content = read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise DataError(f"{path}: expected a dict of dicts by id, as D3's authors publish it")
    return {identity: row for key, row in content.items() if (identity := read_id(key)) is not None}
