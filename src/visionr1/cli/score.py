"""`visionr1 score`: the reward of completions, row by row."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from visionr1.cli.arguments import CommandParser, add_dialect_argument, list_names, share
from visionr1.errors import DataError, RecipeError, VisionR1Error, naming
from visionr1.terminal import printable_line

if TYPE_CHECKING:
    from visionr1.rewards.presets import Preset
    from visionr1.rewards.score import Scorer
    from visionr1.rewards.score_rows import ScoredRow
    from visionr1.samples import GroundTruth

SCORE_ROW = (
    r'{"text": "[{\"bbox_2d\": [34, 157, 143, 240], \"label\": \"WBC\"}]", '
    '"boxes": [[68, 315, 286, 480], [53, 179, 146, 299]], "labels": ["WBC", "RBC"], '
    '"categories": ["Platelets", "RBC", "WBC"], '
    '"width": 640, "height": 480, "input_width": 320, "input_height": 240}'
)
"""A row as `--help` and docs/rewards.md show it."""


def add_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    parser.epilog = f"{parser.epilog}\n\na row of rows.jsonl:\n  {SCORE_ROW}"
    parser.add_argument(
        "rows",
        metavar="FILE",
        help="JSON Lines, a row a completion with its truth: text, boxes (xyxy pixels of the image), "
        "labels, categories, width, height, input_width, input_height (as the model sees it); "
        '"-" reads a pipe',
    )
    _add_reward_arguments(parser)
    parser.add_argument("--explain", action="store_true", help="say on standard error why each row got its score")
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="with --explain and preset paper, the rows' image: each row is drawn to FILE's name + .score-N.png, here",
    )


def _add_reward_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        default="paper",
        metavar="NAME",
        help="which reward: a preset below, or one of your own: module:object or file.py:object (default: paper)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        dest="options",
        metavar="KEY=VALUE",
        help="set an option of the preset, such as matching=detr; may be repeated",
    )
    add_dialect_argument(parser, "how the model writes", default="qwen25", otherwise="qwen25")
    parser.add_argument(
        "--progress",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of training done, which decides the stage of preset paper (default: 0)",
    )
    parser.add_argument(
        "--step",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="the paper's STEP: from this progress on thresholds are tight; 1 is never (default: 0.5)",
    )
    parser.add_argument(
        "--release-step",
        choices=("none", "0", "1500"),
        default="none",
        help="preset release, as --option step=: none as its script runs, 0 and 1500 with --adaptive "
        "before and after its switch",
    )


def names_overview() -> str:
    """List the names that --preset and --dialect take."""
    from visionr1.dialects import describe_dialects
    from visionr1.rewards import PRESETS

    return list_names(presets=PRESETS, dialects=describe_dialects())


def run(args: argparse.Namespace) -> None:
    """Score completions against their true boxes.

    visionr1 score rows.jsonl --explain > scores.jsonl
    """
    from visionr1.dialects import resolve_dialect
    from visionr1.rewards import PRESETS, FixedStages
    from visionr1.rewards.hints import MOST_REPLIES, RepliesWithTruth, explain_no_overlap
    from visionr1.rewards.score_rows import score_rows, to_json

    if args.image and (not args.explain or args.preset != "paper"):
        raise RecipeError("--image needs --explain and preset paper")
    if args.image and not args.image.is_file():
        raise DataError(f"--image: expected an image file, found no {args.image}")
    preset = PRESETS.resolve(args.preset)
    reward = _make_reward(args, preset)
    stage = FixedStages(args.step).at(args.progress)

    counts: Counter[str] = Counter()
    completions: list[tuple[str, GroundTruth]] = []
    with _open_rows(args.rows) as lines:
        scored_rows = score_rows(
            lines,
            "standard input" if args.rows == "-" else args.rows,
            reward,
            stage=stage,
            takes_inverted_boxes=preset.takes_inverted_boxes,
        )
        for scored in scored_rows:
            # A pipe gets each row as soon as it has its score.
            print(to_json(scored.result), flush=True)
            counts["rows"] += 1
            if args.explain:
                print("\n  ".join(map(printable_line, scored.reasons)), file=sys.stderr)
            if args.image and not _draw_row(args.image, counts["rows"], scored):
                counts["undrawn"] += 1
            if scored.row is None:
                counts["wrong"] += 1
            elif len(completions) < MOST_REPLIES:
                completions.append((scored.row.text, scored.row.truth))

    hint = explain_no_overlap(RepliesWithTruth(resolve_dialect(args.dialect), completions))
    if hint:
        print(printable_line(f"{args.rows}: {hint}"), file=sys.stderr)
    _check_counts(args.rows, counts)


def _check_counts(rows: str, counts: Mapping[str, int]) -> None:
    """Raise DataError if a row was wrong or could not be drawn: it did not stop the others, the exit status says so."""
    if counts["rows"] == 0:
        print(f"{printable_line(rows)}: no rows", file=sys.stderr)
    if counts["wrong"] > 0:
        wrong = f"{counts['wrong']} of {counts['rows']} rows are wrong"
        raise DataError(f'{wrong} and have no score; the "error" of each says why')
    if counts["undrawn"] > 0:
        raise DataError(f"{counts['undrawn']} of {counts['rows']} rows could not be drawn; see above")


def _make_reward(args: argparse.Namespace, preset: Preset) -> Scorer:
    """Return the reward with the options of the command line."""
    from visionr1.dialects import resolve_dialect

    options = {}
    if args.preset == "release":
        options["step"] = args.release_step
    for text in args.options:
        name, value = _read_option(text)
        options[name] = value

    dialect = resolve_dialect(args.dialect)
    preset.check_dialect(dialect.name)
    with naming(f"preset {args.preset}"):
        return preset.make(options, dialect)


def _read_option(text: str) -> tuple[str, Any]:
    """Return name and value of "KEY=VALUE"; the value is TOML or else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"--option {text}: expected KEY=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return name.strip(), value


def _draw_row(image: Path, number: int, scored: ScoredRow) -> bool:
    """Draw row `number` and say where to; False, with the reason said, if it cannot be drawn.

    A bad row has no score and nothing to draw.
    """
    from visionr1.report.draw import draw_score, save_png
    from visionr1.samples import Query, Sample

    if scored.row is None or scored.score is None:
        return True
    truth = scored.row.truth
    sample = Sample(image.stem, image, Query("detection", truth.categories or ("object",)), truth.boxes, truth.size_wh)
    path = Path(f"{image.stem}.score-{number}.png")

    # The rows to come still get their score if this one cannot be drawn.
    try:
        save_png(draw_score(sample.load_image(), scored.score, truth), path)
    except VisionR1Error as error:
        print(f"  not drawn: {printable_line(error)}", file=sys.stderr)
        return False
    print(f"  drawn: {printable_line(path)}", file=sys.stderr)
    return True


def _open_rows(name: str) -> AbstractContextManager[IO[bytes]]:
    """Open the file `name`, or standard input for "-", which stays open afterwards."""
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}") from error
