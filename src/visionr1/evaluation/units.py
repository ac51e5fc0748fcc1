"""Units: what is asked together, what was answered, and what a benchmark found in a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from visionr1.data.grounding import GroundingDataset
from visionr1.data.ids import Id
from visionr1.data.row_log import ReadReport
from visionr1.data.table import BoxTable, table_of
from visionr1.dialects import Dialect
from visionr1.evaluation.predictions import JsonRows, Prediction
from visionr1.samples import Sample


class AnnotatedSamples(Protocol):
    """A data set as its reader returns it."""

    @property
    def samples(self) -> Sequence[Sample]: ...
    @property
    def table(self) -> BoxTable: ...
    @property
    def report(self) -> ReadReport: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Unit:
    """Samples that are asked together: a data set, or a split, a subtask or a set of a benchmark.

    `samples` are empty if only the annotations of the set were read, to score files. `annotations` is the annotation
    file as a table, with its crowd regions and areas, where there is one. `parts` are the results that are scored of
    one asking, each with the positions of its categories (None for all); empty for one result of all. `report` are
    lines about what was read, `notes` what must be known of the results. `left_out` are the ids of the images that bad
    rows cost: predictions of them are not scored.
    """

    name: str
    samples: Sequence[Sample] = ()
    annotations: BoxTable | None = None
    parts: Mapping[str, Sequence[int] | None] = field(default_factory=dict)
    report: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: Collection[Id] = frozenset()
    samples_left_out: Collection[str] = frozenset()
    """Likewise the ids of samples, where a row is a sample of its own."""

    @classmethod
    def of_dataset(cls, name: str, dataset: AnnotatedSamples, **more: Any) -> Unit:
        """Return the unit of a data set that was read with its images; `more` are other fields."""
        return cls(
            name=name,
            annotations=dataset.table,
            samples=dataset.samples,
            report=[*dataset.report.lines(), *_note_crowds(dataset.table)],
            left_out=frozenset(dataset.report.images_left_out),
            samples_left_out=dataset.report.samples_left_out,
            **more,
        )

    @classmethod
    def of_rows(cls, name: str, dataset: GroundingDataset, **more: Any) -> Unit:
        """Return the unit of rows with an expression each; `more` are other fields."""
        report = dataset.report
        return cls(
            name=name,
            samples=dataset.samples,
            report=report.lines(),
            left_out=frozenset(report.images_left_out),
            samples_left_out=report.samples_left_out,
            **more,
        )

    @classmethod
    def of_table(cls, name: str, table: BoxTable, **more: Any) -> Unit:
        """Return the unit of annotations whose images are not needed: its report matters if rows were skipped.

        Notes are always kept.
        """
        report = table.report.lines() if table.report.skipped else list(table.report.notes)
        report += _note_crowds(table)
        left_out = frozenset(table.report.images_left_out)
        return cls(name=name, annotations=table, report=report, left_out=left_out, **more)

    @cached_property
    def table(self) -> BoxTable:
        """The annotations, or the table that the samples' own boxes make."""
        return self.annotations if self.annotations is not None else table_of(self.samples)


def _note_crowds(table: BoxTable) -> list[str]:
    """Return a line if there are crowd regions alone, which explains figures that would look like the model's."""
    if len(table.iscrowd) == 0 or not table.iscrowd.all():
        return []
    return [f"{table.path}: no box can be found: iscrowd is 1 on all {len(table.iscrowd)} annotations"]


@dataclass(frozen=True, slots=True, eq=False)
class FoundUnits:
    """The units of a benchmark that a folder holds, read one after the other, and the names of those it lacks."""

    names: Sequence[str]
    units: Iterable[Unit]
    missing: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Replies:
    """Raw replies of a model, and the dialect they write boxes in."""

    predictions: Sequence[Prediction]
    dialect: Dialect


@dataclass(frozen=True, slots=True, eq=False)
class BoxFiles:
    """Boxes of any tool: the rows of each file, the files being shards of one evaluation."""

    files: Mapping[Path, JsonRows]


Answers = Replies | BoxFiles
