"""`visionr1 predict`: find objects in one image."""

import argparse
from pathlib import Path

from visionr1.cli.arguments import (
    CommandParser,
    add_dialect_argument,
    add_engine_argument,
    add_model_arguments,
    list_names,
    names,
    positive,
)
from visionr1.errors import DataError, needs_extra
from visionr1.terminal import printable_json


def add_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    parser.add_argument(
        "--categories",
        required=True,
        metavar="A,B",
        help="what to look for, separated by commas",
    )
    parser.add_argument(
        "--model",
        default="tiny",
        metavar="MODEL",
        help='model or run folder (default: "tiny")',
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the drawn PNG (default: IMAGE.boxes.png, here)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        default=1024,
        metavar="N",
        help="of the reply (default: 1024)",
    )
    add_dialect_argument(parser, "how the model writes boxes", default=None, otherwise="as its folder says")
    add_model_arguments(parser)
    add_engine_argument(parser)


def names_overview() -> str:
    """List the names that --dialect and --engine take."""
    from visionr1.dialects import describe_dialects
    from visionr1.rollout.engines import answering_engines

    return list_names(dialects=describe_dialects(), engines=answering_engines())


def run(args: argparse.Namespace) -> None:
    """Find objects in one image, drawn and as JSON.

    visionr1 predict photo.jpg --categories cat,dog --model runs/mine
    """
    from visionr1.images import image_size
    from visionr1.samples import normalized_labels

    # All that a user may have got wrong comes before the model, which takes long to load.
    categories = names(args.categories)
    if not categories:
        raise DataError(f"--categories: expected names separated by commas, found {args.categories!r}")
    if len(normalized_labels(tuple(categories))) < len(categories):
        raise DataError(f"--categories: expected each name once, found {args.categories!r}")
    if args.image.is_dir():
        raise DataError(f"{args.image} is a folder; predict takes one image (eval a whole set)")
    image_size(args.image)  # raises if it is no image
    out = args.out or Path(f"{args.image.stem}.boxes.png")
    if out.suffix.lower() != ".png" or (out.exists() and out.samefile(args.image)):
        raise DataError(f"--out: expected a .png file other than the image itself, found {out}")

    with needs_extra("train"):
        from visionr1.evaluation.model.answerer import open_answerer
        from visionr1.evaluation.runner import predict_image
    from visionr1.report.draw import draw_boxes, save_png

    answerer = open_answerer(args.model, engine=args.engine, device=args.device, dtype=args.dtype, dialect=args.dialect)
    sample, boxes, record = predict_image(
        answerer.policy,
        args.image,
        categories,
        max_new_tokens=args.max_new_tokens,
        engine=answerer.engine,
    )
    drawing = draw_boxes(sample.load_image(), boxes, categories=categories)
    save_png(drawing, out)

    # Labels stay readable in any script.
    print(printable_json({**record, "drawn": str(out)}))
