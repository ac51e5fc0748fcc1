"""`visionr1 score`: the reward of completions, row by row."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from visionr1.cli.arguments import share
from visionr1.dialects import describe_dialects
from visionr1.errors import DataError, RecipeError, VisionR1Error
from visionr1.terminal import printable

if TYPE_CHECKING:
    from visionr1.rewards import Score
    from visionr1.samples import GroundTruth

SCORE_ROW = (
    r'{"text": "[{\"bbox_2d\": [34, 157, 143, 240], \"label\": \"WBC\"}]", '
    '"boxes": [[68, 315, 286, 480], [53, 179, 146, 299]], "labels": ["WBC", "RBC"], '
    '"categories": ["Platelets", "RBC", "WBC"], '
    '"width": 640, "height": 480, "input_width": 320, "input_height": 240}'
)
"""A row as `--help` and docs/rewards.md show it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}\n\na row of rows.jsonl:\n  {SCORE_ROW}"
    parser.add_argument(
        "rows",
        metavar="FILE",
        help="JSON Lines, a row a completion with its truth: text, boxes (xyxy pixels of the image), labels, "
        'categories, width, height, input_width, input_height (as the model sees it); "-" reads a pipe',
    )
    parser.add_argument(
        "--preset", choices=("paper", "release", "vlm_r1"), default="paper", help="which reward (default: paper)"
    )
    parser.add_argument(
        "--dialect",
        default="qwen25",
        metavar="NAME",
        help=f"how the model writes: {describe_dialects()} (default: qwen25)",
    )
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
        help="preset release: none as its script runs, 0 and 1500 with --adaptive before and after its switch",
    )
    parser.add_argument("--explain", action="store_true", help="say on standard error why each row got its score")
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="with --explain and preset paper, the rows' image: each row is drawn to FILE's name + .score-N.png, here",
    )


def run(args: argparse.Namespace) -> None:
    """Score completions against their true boxes.

    visionr1 score rows.jsonl --explain > scores.jsonl
    """
    from visionr1.rewards.published.vision_r1_release import STEPS
    from visionr1.rewards.score_rows import make_scorer, score_rows, to_json

    if args.image and (not args.explain or args.preset != "paper"):
        raise RecipeError("--image needs --explain and preset paper")
    if args.image and not args.image.is_file():
        raise DataError(f"--image: expected an image file, found no {args.image}")
    scorer = make_scorer(
        args.preset,
        dialect=args.dialect,
        progress=args.progress,
        step=args.step,
        release_step=STEPS[args.release_step],
    )
    errors = undrawn = rows = 0
    with _open_rows(args.rows) as lines:
        for scored in score_rows(lines, "standard input" if args.rows == "-" else args.rows, scorer):
            print(to_json(scored.result), flush=True)
            rows, errors = rows + 1, errors + (scored.row is None)
            if args.explain:
                print(printable("\n  ".join(scored.reasons)), file=sys.stderr)
            if args.image and scored.row and scored.score:
                try:
                    print(f"  drawn: {_draw_score(args.image, rows, scored.row.truth, scored.score)}", file=sys.stderr)
                except VisionR1Error as error:  # the rows to come still get their score
                    print(f"  not drawn: {printable(error)}", file=sys.stderr)
                    undrawn += 1
    if not rows:
        print(f"{args.rows}: no rows", file=sys.stderr)
    if errors:
        raise DataError(f'{errors} of {rows} rows are wrong and have no score; the "error" of each says why')
    if undrawn:
        raise DataError(f"{undrawn} of {rows} rows could not be drawn; see above")


def _draw_score(image: Path, number: int, truth: GroundTruth, score: Score) -> Path:
    from visionr1.report.draw import draw_score, save_png
    from visionr1.samples import Query, Sample

    sample = Sample(image.stem, image, Query("detection", truth.categories or ("object",)), truth.boxes, truth.size_wh)
    path = Path(f"{image.stem}.score-{number}.png")
    save_png(draw_score(sample.load_image(), score, truth), path)
    return path


def _open_rows(name: str) -> AbstractContextManager[IO[bytes]]:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}") from error
