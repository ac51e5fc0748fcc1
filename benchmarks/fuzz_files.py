"""Mutations of every file that visionr1 reads, and what reading them costs; run by `benchmarks/fuzz.py --files`.

Each target is a small folder that is read without an error. One of its files at a time is changed, half of the time in
its bytes, else in its structure (a value replaced by an odd one, a key or a row dropped, repeated or moved), and the
folder is read as a user would. It must be read, or refused by a VisionR1Error, within LIMIT_SECONDS; whatever else is
raised is a traceback that a user would see. An audit hook notes every file that is opened outside the folder, every
program and every connection.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.errors import VisionR1Error

LIMIT_SECONDS = 20
MAX_MEMORY = 4 << 30
"""The address space that the process may have: what wants more ends in a MemoryError, a traceback."""
SIZE = (100, 80)

DEEP = "@deep@"
"""Stands for lists nested without end where the file is text."""
DIGITS = "@digits@"
"""Stands for a number of 5,000 digits."""

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 0.5, -0.0, 1e-320, 1e30, 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        2**31,
        2**63,
        10**30,
        10**400,
        "",
        " ",
        "7",
        "007",
        "1e5",
        "cat",
        "CAT ",
        "Ä",
        "A\u0308",
        "猫",
        "\u202ex",
        "\x1b[31mx",
    ),
    *(
        "\ud800",
        "\udce9",
        "a\0b",
        "a\nb",
        "a" * 300,
        "[" * 2000,
        "{}",
        "../outside.png",
        "..\\outside.png",
        "@outside@",
    ),
    *(
        "/dev/zero",
        "file:///etc/passwd",
        "http://localhost/1.jpg",
        "C:\\x.jpg",
        "con",
        ".",
        "/",
        "1.jpg",
        "%s%n",
        "{0}",
    ),
    *([], [[]], [0], [1, 2, 3, 4], [4, 3, 2, 1], [1e308] * 4, [float("nan")] * 4, ["1", "2", "3", "4"], [None] * 4),
    *({}, {"$oid": "5"}, {"a": []}, [{}], DEEP, DIGITS),
)
"""What a value is replaced by."""
CHUNKS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\n",
        b"\r",
        b'"',
        b"'",
        b"\\",
        b"[",
        b"]",
        b"{",
        b"}",
        b"<",
        b">",
        b"&",
    ),
    *(b",", b":", b"-", b".", b"e999", b"NaN", b"Infinity", b"null", b"\\ud800", b"\xe9", b"\x80", b"=", b"[[", b'"""'),
    *(b"<!DOCTYPE a>", b"]]>", b"\x1f\x8b", b"[" * 3000, b"9" * 5000, b" " * 3000, b"r\xff\xff\xff\x00", b"2\x86" * 60),
)
"""What is put among the bytes of a file."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Files that are read together: how they are written, which are mutated, how they are read."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path, str], object]
    """Read the folder, of which the named file was changed."""


@dataclass(kw_only=True)
class Outcome:
    """The outcomes of all inputs of one target."""

    name: str
    inputs: int = 0
    refused: int = 0
    read: int = 0
    tracebacks: list[str] = field(default_factory=list)
    """One for each kind, with the input that raised it first."""
    num_tracebacks: int = 0
    outside: set[str] = field(default_factory=set)
    worst_seconds: float = 0.0
    """Of CPU time; LIMIT_SECONDS is on the clock."""
    worst_bytes: int = 0
    """The most memory that one input added to the process."""

    def row(self) -> str:
        """Return the line of the table."""
        cells = [self.name, self.inputs, self.refused, self.read, self.num_tracebacks, len(self.outside)]
        cells += [f"{self.worst_seconds:.2f}", f"{self.worst_bytes / 1e6:.0f}"]
        return f"| {' | '.join(map(str, cells))} |"


TABLE_HEAD = (
    "| reader | inputs | refused | read | tracebacks | opened outside | worst seconds of CPU | worst MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def fuzz(target: Target, num_inputs: int, seed: int) -> Outcome:
    """Read `num_inputs` mutations of a target's files; the same seed makes the same ones."""
    rng = random.Random(f"{seed} {target.name}")
    outcome = Outcome(name=target.name)
    kinds: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary:
        Image.new("RGB", SIZE).save(Path(temporary, "outside.png"))
        root = Path(temporary, "inside")
        folder = root / "data"
        folder.mkdir(parents=True)
        with _quiet():
            target.write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".jpg", ".py"))
        contents = {path: path.read_bytes() for path in files}

        # What is loaded once, such as modules, is no cost of an input.
        unchanged = Outcome(name=target.name)
        for path in files:
            _read(target, folder, path, unchanged, set(), contents[path])
        if unchanged.read != len(files):
            raise SystemExit(f"{target.name}: its own files cannot be read: {unchanged}")
        for _ in range(num_inputs):
            path = rng.choice(files)
            content = mutate(path, contents[path], rng, outside=f"{temporary}/outside.png")
            path.write_bytes(content)
            with _watching(root, outcome.outside):
                _read(target, folder, path, outcome, kinds, content)
            path.write_bytes(contents[path])
            outcome.inputs += 1
    return outcome


def _read(target: Target, folder: Path, path: Path, outcome: Outcome, kinds: set[str], content: bytes) -> None:
    """Read a folder one of whose files was changed, and add to the outcome what came of it."""
    before = _reset_peak()
    start = time.process_time()
    try:
        with _quiet(), _time_limit():
            target.read(folder, path.name)
        outcome.read += 1
    except VisionR1Error:
        outcome.refused += 1
    except (Exception, _TooSlow) as error:  # noqa: BLE001 (what is looked for)
        outcome.num_tracebacks += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        if kind not in kinds:
            kinds.add(kind)
            lines = "".join(traceback.format_exception(error)[-4:])
            outcome.tracebacks.append(f"{kind}, {path.name} of {content[:2000]!r}\n{lines}")
    outcome.worst_seconds = max(outcome.worst_seconds, time.process_time() - start)
    outcome.worst_bytes = max(outcome.worst_bytes, _read_peak() - before)


# ---- mutations ----------------------------------------------------------------------------------------------------


def mutate(path: Path, content: bytes, rng: random.Random, *, outside: str) -> bytes:
    """Return a changed file: in its structure where it has one that is known, else in its bytes."""
    if rng.random() < 0.5:
        if path.suffix == ".json":
            return _dump_json(_change(json.loads(content), rng), outside)
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in content.splitlines()]
            changed = _change(lines, rng)
            rows = changed if isinstance(changed, list) else [changed]
            return b"\n".join(_dump_json(row, outside) for row in rows)
        if path.suffix in (".p", ".pkl"):
            with contextlib.suppress(RecursionError, UnicodeEncodeError, OverflowError):
                return pickle.dumps(_change(pickle.loads(content), rng), protocol=rng.randrange(6))
        if path.suffix in (".xml", ".toml", ".txt"):
            return _change_words(content, rng, outside)
    return _change_bytes(content, rng)


def _change(value: Any, rng: random.Random) -> Any:
    """Return a copy of nested lists and dicts in which one to three places are changed."""
    box = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_iterate_places(box))
        container, key = rng.choice(places)
        action = rng.random()
        if action < 0.65:
            container[key] = copy.deepcopy(rng.choice(ODD))
        elif action < 0.75 and container is not box:
            del container[key]
        elif action < 0.85:
            other, other_key = rng.choice(places)
            container[key] = copy.deepcopy(other[other_key])
        elif isinstance(container, list) and container is not box:
            container.insert(key, copy.deepcopy(container[key]))
        elif isinstance(container, dict):
            container[rng.choice(("id", "name", "x", ""))] = container.pop(key)
        else:
            container[key] = [container[key]]
    return box[0]


def _iterate_places(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list or dict with each of its indexes or keys."""
    pairs = enumerate(container) if isinstance(container, list) else container.items()
    for key, value in pairs:
        yield container, key
        if isinstance(value, list | dict):
            yield from _iterate_places(value)


def _dump_json(value: Any, outside: str) -> bytes:
    """Return JSON, with what stands for nesting without end, for many digits, and for a file outside."""
    text = json.dumps(value)
    text = text.replace(f'"{DEEP}"', "[" * 950 + "]" * 950 if len(text) % 2 else "[" * 100_000)
    text = text.replace(f'"{DIGITS}"', "9" * 5000).replace("@outside@", outside)
    return text.encode()


def _change_words(content: bytes, rng: random.Random, outside: str) -> bytes:
    """Return a text in which some words are other ones of it, or odd values."""
    words = content.replace(b">", b"> ").replace(b"<", b" <").split(b" ")
    for _ in range(rng.randint(1, 3)):
        odd = str(rng.choice(ODD)).replace("@outside@", outside).encode(errors="surrogatepass")
        words[rng.randrange(len(words))] = rng.choice((rng.choice(words), odd))
    return b" ".join(words).replace(b"> ", b">").replace(b" <", b"<")


def _change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes that were flipped, cut off, dropped, repeated or put in."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        start = rng.randint(0, len(changed))
        end = min(len(changed), start + rng.choice((1, 1, 4, 50)))
        action = rng.randrange(6)
        if action == 0 and changed:
            changed[start % len(changed)] ^= 1 << rng.randrange(8)
        elif action == 1 and rng.random() < 0.2:
            del changed[start:]
        elif action == 2:
            del changed[start:end]
        elif action == 3:
            changed[start:start] = changed[start:end] * rng.choice((1, 2, 50))
        elif action == 4:
            changed[start:end] = rng.choice(CHUNKS)
        else:
            changed[start:start] = rng.randbytes(rng.choice((1, 4, 30)))
    return bytes(changed)


# ---- what an input costs, and what it opens -----------------------------------------------------------------------


class _TooSlow(BaseException):
    """The time of an input is over."""


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise _TooSlow in this block after LIMIT_SECONDS."""

    def stop(number: int, frame: object) -> None:
        raise _TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what is printed and warned of to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield


def _reset_peak() -> int:
    """Start a new peak of the process's memory; return what it has now, in bytes (0 where Linux does not say)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _read_peak()


def _read_peak() -> int:
    """Return the most memory that the process had since the last reset, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_watched: list[tuple[str, set[str]]] = []
"""The folder whose files may be opened now, and the set that takes the names of others."""
_ALLOWED = tuple({sys.prefix, sys.base_prefix, *filter(None, sys.path), "/proc/self/", "/dev/null"})


@contextlib.contextmanager
def _watching(root: Path, outside: set[str]) -> Iterator[None]:
    """Note in `outside` what is opened, run or connected to in this block outside `root` and Python itself."""
    if not _hooked:
        sys.addaudithook(_note)
        _hooked.append(True)
    _watched.append((str(root.resolve()), outside))
    try:
        yield
    finally:
        _watched.pop()


_hooked: list[bool] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    """Take an audit event of Python's."""
    if not _watched:
        return
    root, outside = _watched[-1]
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "socket.connect", "os.fork"):
        outside.add(f"{event} {args!r:.100}")
    if event == "open" and isinstance(args[0], str | bytes):
        name = args[0] if isinstance(args[0], str) else args[0].decode(errors="surrogateescape")
        name = name if name.startswith("/") else f"{Path.cwd()}/{name}"
        is_inside = name.startswith(root) and "/../" not in name
        if not is_inside and not name.startswith(_ALLOWED):
            outside.add(name)


# ---- the targets --------------------------------------------------------------------------------------------------


def _write(path: Path, content: Any) -> None:
    """Write a value as the file's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif path.suffix in (".p", ".pkl"):
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix == ".jpg":
        Image.new("RGB", SIZE, content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _coco(folder: str = "", **more: Any) -> dict[str, Any]:
    """Return a COCO file of two images."""
    images = [{"id": i, "file_name": f"{folder}{i}.jpg", "width": 100, "height": 80, **more} for i in (1, 2)]
    rows = [(1, 1, 1, [10, 10, 20, 20]), (2, 1, 2, [50, 10, 20.5, 20]), (3, 2, 1, [0, 0, 50, 40])]
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, image, category, box in rows
    ]
    names = [{"id": i, "name": name, "supercategory": "none"} for i, name in ((1, "cat"), (2, "Ä dog"))]
    return {"images": images, "annotations": annotations, "categories": names}


def _write_images(folder: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        _write(folder / name, "white")


def _check(path: Path) -> None:
    """Read and check a data set, strictly; if it is refused, what is left without its bad rows."""
    from visionr1.data import read_dataset, truth_table
    from visionr1.data.check import check_data
    from visionr1.dialects import get_dialect

    truth_table(path, on_bad="skip")
    try:
        dataset = read_dataset(path)
    except VisionR1Error:
        dataset = read_dataset(path, on_bad="skip")
    check_data(dataset, get_dialect("qwen25")).lines()


def _write_coco(folder: Path) -> None:
    _write(folder / "_annotations.coco.json", _coco())
    _write_images(folder)


def _write_voc(folder: Path) -> None:
    for i in (1, 2):
        _write(
            folder / f"Annotations/00{i}.xml",
            f'<?xml version="1.0" encoding="UTF-8"?>\n<annotation><folder>x</folder><filename>00{i}.jpg</filename>\n'
            "<size><width>100</width><height>80</height><depth>3</depth></size>\n<object><name>cat</name>"
            "<truncated>0</truncated><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax>"
            "<ymax>50</ymax></bndbox></object>\n</annotation>\n",
        )
        _write(folder / f"JPEGImages/00{i}.jpg", "white")
    _write(folder / "ImageSets/Main/train.txt", "001\n002 1\n")
    _write(folder / "labels.txt", "cat\ndog\n")


def _write_rows(folder: Path) -> None:
    answer = '```json\n[{"bbox_2d": [10, 10, 60, 50], "label": "cat"}]\n```'
    asks = "<image>\nPlease detect the following objects: ['cat', 'dog']"
    turns = [{"from": "human", "value": asks}, {"from": "gpt", "value": answer}]
    messages = [{"role": "user", "content": asks}, {"role": "assistant", "content": answer}]
    locate = [{"from": "human", "value": "Locate the cat in this image."}, {"from": "gpt", "value": "[1, 2, 30, 40]"}]
    rows = [{"id": 1, "image": "1.jpg", "conversations": turns + turns}, {"images": ["2.jpg"], "messages": messages}]
    _write(folder / "rows.jsonl", [*rows, {"image": "2.jpg", "conversations": locate}])
    _write(folder / "rows.json", rows)
    _write_images(folder)


def _write_grounding(folder: Path) -> None:
    row = {"width": 100, "height": 80}
    _write(folder / "vlm_r1.json", [{"image": "1.jpg", "normal_caption": "a cat", "solution": [1, 2, 30, 40], **row}])
    _write(folder / "shikra.jsonl", [{"img_path": "1.jpg", "expression": "a cat", "bbox": [1, 2, 30, 40], **row}])
    image = {"id": 1, "file_name": "1.jpg", "caption": "a cat", "original_id": 5, **row}
    annotations = [{"id": 1, "image_id": 1, "bbox": [1, 2, 30, 40], "empty": 0}]
    _write(folder / "mdetr.json", {"images": [image], "annotations": annotations, "categories": []})
    _write_images(folder)


def _read_grounding(folder: Path, name: str) -> None:
    from visionr1.data.readers.grounding_files import read_grounding_file

    for with_images in (True, False):
        read_grounding_file(folder / name, with_images=with_images, on_bad="skip")
    read_grounding_file(folder / name)


def _write_refer(folder: Path) -> None:
    sentences = [{"sent_id": 5, "sent": "left cat", "raw": "Left cat", "tokens": ["left", "cat"]}]
    ref = {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "file_name": "x.jpg", "category_id": 1}
    _write(folder / "refcoco/refs(unc).p", [{**ref, "sent_ids": [5], "sentences": sentences}])
    _write(folder / "refcoco/instances.json", _coco("train2014/"))
    _write(folder / "grefcoco/grefs(unc).json", [{**ref, "ann_id": [1, 2], "sentences": sentences}])
    _write(folder / "grefcoco/instances.json", _coco("train2014/"))
    for i in (1, 2):
        _write(folder / f"train2014/{i}.jpg", "white")


def _read_refer(folder: Path, name: str) -> None:
    from visionr1.data.readers.refer import read_refer

    for benchmark in ("refcoco", "grefcoco"):
        read_refer(folder, benchmark, on_bad="skip")
        read_refer(folder, benchmark, with_images=False)


def _write_d3(folder: Path) -> None:
    coco = _coco("1/")
    _write(folder / "d3_json/d3_full_annotations.json", coco)
    names = {row["id"]: row["name"] for row in coco["categories"]}
    sentences = {key: {"id": key, "raw_sent": name, "is_negative": key == 2} for key, name in names.items()}
    _write(folder / "d3_pkl/sentences.pkl", sentences)
    _write(folder / "d3_pkl/images.pkl", {i: {"id": i, "file_name": f"1/{i}.jpg", "group_id": 1} for i in (1, 2)})
    _write(folder / "d3_pkl/groups.pkl", {1: {"id": 1, "inner_sent_id": [1, 2]}})
    for i in (1, 2):
        _write(folder / f"d3_images/1/{i}.jpg", "white")


def _read_d3(folder: Path, name: str) -> None:
    from visionr1.data.readers.d3 import read_d3

    read_d3(folder, on_bad="skip")
    read_d3(folder, with_images=False)


def _write_ovdeval(folder: Path) -> None:
    _write(folder / "annotations/color.json", _coco(text=["cat"], neg_text=["Ä dog"]))
    for i in (1, 2):
        _write(folder / f"images/color/{i}.jpg", "white")


def _read_ovdeval(folder: Path, name: str) -> None:
    from visionr1.data.readers.ovdeval import read_ovdeval

    read_ovdeval(folder / "annotations/color.json", on_bad="skip")
    read_ovdeval(folder / "annotations/color.json", with_images=False)


def _write_v3det(folder: Path) -> None:
    coco = _coco("images/n1/")
    for row in coco["categories"]:
        row["novel"] = row["id"] == 2
    _write(folder / "annotations/v3det_2023_v1_val.json", coco)
    tree = {"categoryid2treeid": {"1": "10", "2": "20"}, "ancestor2descendant": {"10": ["20", "30"]}}
    _write(folder / "annotations/v3det_2023_v1_category_tree.json", tree)
    for i in (1, 2):
        _write(folder / f"images/n1/{i}.jpg", "white")


def _read_v3det(folder: Path, name: str) -> None:
    from visionr1.data.readers.v3det import read_v3det

    read_v3det(folder, on_bad="skip")
    read_v3det(folder, with_images=False)


def _main(*argv: str) -> None:
    """Run a command as the console script does, but let its errors through."""
    from visionr1.cli import build_parser

    try:
        args = build_parser().parse_args(argv)
    except SystemExit as error:
        raise VisionR1Error(f"exit {error.code}") from error
    try:
        args.run(args)
    except OSError as error:
        raise VisionR1Error(str(error)) from error  # as `main` prints it


REPLY = '```json\n[{"bbox_2d": [10, 10, 30, 30], "label": "cat"}]\n```'


def _write_predictions(folder: Path) -> None:
    _write_coco(folder / "set")
    row = {"image_id": 1, "sample_id": "1", "text": REPLY, "input_size_wh": [100, 80], "truncated": False}
    more = {"categories": ["cat"], "token_ids": [1, 2], "token_logprobs": [-0.5, -0.1], "token_ends": [5, 9]}
    _write(
        folder / "replies.jsonl",
        [{"replies_of": {"model": "m", "dialect": "qwen25"}}, row, {**row, "image_id": 2, **more}],
    )
    results = [{"image_id": i, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9} for i in (1, 2)]
    _write(folder / "results.json", results)


def _read_predictions(folder: Path, name: str) -> None:
    file = "results.json" if name == "results.json" else "replies.jsonl"
    dialect = () if file == "results.json" else ("--dialect", "qwen25")
    data = str(folder / "set")
    _main("eval", "--predictions", str(folder / file), "--data", data, *dialect, "--resamples", "0", "--json")


def _write_completions(folder: Path) -> None:
    truth = {"boxes": [[10, 10, 30, 30]], "labels": ["cat"], "categories": ["cat", "dog"], "width": 100, "height": 80}
    row = {
        "text": REPLY,
        **truth,
        "input_width": 100,
        "input_height": 80,
        "sample_id": "1",
        "index": 0,
        "num_instances": 1,
    }
    _write(folder / "rows.jsonl", [row, row])


def _read_completions(folder: Path, name: str) -> None:
    for preset in ("paper", "release", "vlm_r1"):
        _main("score", str(folder / "rows.jsonl"), "--preset", preset, "--explain")


def _write_recipe(folder: Path) -> None:
    from visionr1.assets import recipe_path

    _write(folder / "demo.toml", recipe_path("demo").read_text())


def _read_recipe(folder: Path, name: str) -> None:
    from visionr1.training.recipe import load_recipe, to_toml

    to_toml(load_recipe(folder / "demo.toml"))


def _write_run(folder: Path) -> None:
    _write_recipe(folder)
    (folder / "demo.toml").rename(folder / "recipe.toml")
    steps = [
        {"step": step, "phase": "few", "loss": 0.1, "reward": 0.5, "seconds": 1.0, "learning_rate": 1e-5}
        for step in (1, 2, 3)
    ]
    _write(folder / "metrics.jsonl", steps)
    truth = {"boxes": [[10, 10, 30, 30]], "labels": ["cat"], "categories": ["cat"], "width": 100, "height": 80}
    rollout = {"step": 1, "sample_id": "1", "image_id": 1, "index": 0, "text": REPLY, "total": 1.5, "advantage": 0.1}
    _write(folder / "rollouts.jsonl", [{**rollout, **truth, "input_width": 100, "input_height": 80, "num_tokens": 9}])
    _write(folder / "versions.json", {"python": "3.11", "cpus": 2, "command": ["train", "demo"]})
    _write_evaluation(folder)


def _write_evaluation(folder: Path) -> None:
    """Store an evaluation as `visionr1 eval --out` does."""
    _write_predictions(folder.parent / "source")
    source = folder.parent / "source"
    _main(
        *("eval", "--predictions", str(source / "replies.jsonl"), "--data", str(source / "set")),
        *("--dialect", "qwen25", "--resamples", "20", "--out", str(folder)),
    )


def _read_run(folder: Path, name: str) -> None:
    from visionr1.report.page import write_report

    write_report(folder, folder.parent / "report.html")


def _write_results(folder: Path) -> None:
    _write_evaluation(folder / "a")
    shutil.copytree(folder / "a", folder / "b")


def _read_results(folder: Path, name: str) -> None:
    files = [path for side in "ab" for path in sorted(folder.glob(f"{side}/evaluation/*.json"))]
    _main("compare", *map(str, files), "--resamples", "20")


def _write_pictures(folder: Path) -> None:
    noise = Image.effect_noise((40, 30), 60)
    color = Image.merge("RGB", (noise, noise.rotate(90, expand=False), noise))
    for kind, ending in (
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("BMP", "bmp"),
        ("GIF", "gif"),
        ("PPM", "ppm"),
    ):
        color.save(folder / f"color.{ending}", kind)
    for kind, ending in (("JPEG2000", "jp2"), ("AVIF", "avif")):
        with contextlib.suppress(OSError, KeyError):  # a Pillow without it
            color.save(folder / f"color.{ending}", kind)
    color.save(folder / "lzw.tiff", compression="tiff_lzw")
    color.save(folder / "plain.tiff")
    noise.convert("I;16").save(folder / "grey16.png")
    color.convert("RGBA").save(folder / "alpha.png")
    color.quantize(8).save(folder / "palette.png", transparency=1)
    exif = Image.Exif()
    exif[274] = 6
    color.save(folder / "turned.jpeg", exif=exif)


def _read_picture(folder: Path, name: str) -> None:
    from visionr1.images import image_size, read_image

    image_size(folder / name)
    read_image(folder / name)


TARGETS: Sequence[Target] = (
    Target(name="coco", write=_write_coco, read=lambda folder, name: _check(folder)),
    Target(name="voc", write=_write_voc, read=lambda folder, name: _check(folder)),
    Target(
        name="vlm_r1",
        write=_write_rows,
        read=lambda folder, name: _check(folder / name),
    ),
    Target(name="grounding", write=_write_grounding, read=_read_grounding),
    Target(name="refer", write=_write_refer, read=_read_refer),
    Target(name="d3", write=_write_d3, read=_read_d3),
    Target(name="ovdeval", write=_write_ovdeval, read=_read_ovdeval),
    Target(name="v3det", write=_write_v3det, read=_read_v3det),
    Target(name="predictions", write=_write_predictions, read=_read_predictions),
    Target(name="completions", write=_write_completions, read=_read_completions),
    Target(name="recipe", write=_write_recipe, read=_read_recipe),
    Target(name="run", write=_write_run, read=_read_run),
    Target(name="results", write=_write_results, read=_read_results),
    Target(name="images", write=_write_pictures, read=_read_picture),
)


def limit_memory() -> None:
    """Let this process have no more than MAX_MEMORY."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
