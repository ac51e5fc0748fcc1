"""Attacks by pictures, rows and pickles: nothing of a file runs, and time and memory stay bounded."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from visionr1.data import read_dataset
from visionr1.errors import DataError
from visionr1.evaluation.detection import token_scores
from visionr1.files import read_json, read_json_lines
from visionr1.images import image_size, read_image

# ---- A4 and B1: pictures ------------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 32\n%%EndComments\nshowpage\n%%EOF\n"


def test_an_image_that_is_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("photo.jpg", "photo.eps"):
        (tmp_path / name).write_bytes(EPS)
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=rf"{name}: cannot read this image \(its content is none of JPEG"):
                read(tmp_path / name)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["DDS", "SPIDER", "IM", "PCX", "SGI", "TGA", "ICO", "MSP", "XBM", "PDF"])
def test_formats_that_are_not_stated_are_refused(kind: str) -> None:
    buffer = BytesIO()
    mode = {"SPIDER": "F", "MSP": "1", "XBM": "1"}.get(kind, "RGB")
    Image.new(mode, (32, 24)).save(buffer, kind)
    with pytest.raises(DataError, match="photo: cannot read this image"):
        read_image(buffer.getvalue(), name="photo")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "WEBP", "TIFF", "GIF", "PNG", "JPEG", "BMP", "PPM"])
def test_broken_images_of_the_stated_formats_are_named(kind: str) -> None:
    """AVIF's decoder raises RuntimeError, others TypeError or struct.error: each is our error."""
    if kind not in Image.SAVE and Image.init() and kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    buffer = BytesIO()
    Image.effect_noise((40, 30), 60).save(buffer, kind)
    content = buffer.getvalue()
    messages = []
    for place in range(0, len(content), max(1, len(content) // 150)):
        for broken in (content[:place], content[:place] + b"\xff\x00\x81" + content[place + 3 :]):
            try:
                read_image(broken, name="photo")
            except DataError as error:
                messages.append(str(error))
    assert messages and all(message.startswith("photo: ") for message in messages)


BOMB = """
import sys
from pathlib import Path
from PIL import Image
from visionr1.evaluation.detection import token_scores
from visionr1.images import read_image
Image.MAX_IMAGE_PIXELS = None
Image.new(sys.argv[1], (9000, 9000)).save(sys.argv[2], "PNG")
read_image(Path(sys.argv[2]))
# Not getrusage: its peak is that of the process that started this one, if that was larger.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says there what a process has used")
@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_a_small_file_of_many_pixels_takes_bounded_memory(tmp_path: Path, mode: str) -> None:
    """C7: at most 12 bytes a pixel, and 160 MB for Python and Pillow; 16-bit grey took 27 bytes a pixel."""
    argv = [sys.executable, "-c", BOMB, mode, str(tmp_path / "bomb.png")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 160 + 12 * 81


# ---- A5: time linear in a row -------------------------------------------------------------------------------------

SLOW = """
import sys
from pathlib import Path
from visionr1.data import read_dataset
read_dataset(Path(sys.argv[1]), on_bad="skip")
"""
MILLION = 1_000_000
QUESTION = "Please detect the following objects: ['cat']"
ROWS = {  # a question and an answer
    "fence": (QUESTION, "```" + " " * MILLION + "x"),
    "fences": (QUESTION, "``` " * (MILLION // 4)),
    "json fences": (QUESTION, "```json" * (MILLION // 7)),
    "expression": ("this sentence describes: x" + " " * MILLION + "x", "[1, 2, 3, 4]"),
    "expressions": ("this sentence describes: " * (MILLION // 25), "[1, 2, 3, 4]"),
    "dots": ("this sentence describes: x" + ". " * (MILLION // 2), "[1, 2, 3, 4]"),
    "locate": ("locate " * (MILLION // 7), "[1, 2, 3, 4]"),
    "in the": ("locate " + "in the " * (MILLION // 7), "[1, 2, 3, 4]"),
    "names": ("following objects: [" + "'x', " * (MILLION // 5), "None"),
    "brackets": ("following objects: [" + "'x]', " * (MILLION // 6), "None"),
    "quotes": ("following objects: ['" + "\\\\" * (MILLION // 2), "None"),
    "open lists": ("following objects: " + "[" * MILLION, "None"),
    "blanks": ("following objects:" + " " * MILLION, "None"),
    "lists": ("following objects: [" * (MILLION // 20), "None"),
    "deep": (QUESTION, "[" * MILLION),
    "digits": (QUESTION, "[" + "1" * MILLION + "]"),
}


def test_rows_of_a_megabyte_are_read_in_linear_time(tmp_path: Path) -> None:
    """A quadratic step takes hours for one of them, linear ones less than a second."""
    lines = []
    for question, answer in [(QUESTION, "None"), *ROWS.values()]:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"image": "1.png", "conversations": turns}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    argv = [sys.executable, "-c", SLOW, str(tmp_path / "rows.jsonl")]
    subprocess.run(argv, capture_output=True, check=True, timeout=240)


def test_numbers_of_a_reply_are_found_in_linear_time() -> None:
    text = "1" * MILLION + "a [1, -2, 3.5, 4]"
    assert [match[0] for match in token_scores._NUMBER.finditer(text)] == ["1", "-2", "3.5", "4"]


# ---- B6: pickle bombs ---------------------------------------------------------------------------------------------

DOUBLED_TUPLE = b"K\x01\x85" + b"2\x86" * 200
DOUBLED_LIST = b"](K\x01e" + b"q\x00](h\x00h\x00e" * 200
PICKLES = {
    "memo": b"\x80\x02Nr" + (10**8).to_bytes(4, "little") + b".",
    "key": b"\x80\x02}" + DOUBLED_TUPLE + b"K\x01s.",
    "ref_id": b"\x80\x02]}(X\x06\x00\x00\x00ref_id" + DOUBLED_LIST + b"X\x05\x00\x00\x00splitX\x03\x00\x00\x00valua.",
    "image_id": b"\x80\x02]}(X\x08\x00\x00\x00image_id"
    + DOUBLED_LIST
    + b"X\x05\x00\x00\x00splitX\x03\x00\x00\x00valua.",
}
BOMB_OF_REFS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pathlib import Path
from visionr1.data.readers.refer import read_refer
from visionr1.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sys.argv[1:]:
    try:
        read_refer(Path(folder), "refcoco", "val")
    except DataError as error:
        print(len(str(error)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_pickle_bombs_take_no_time_and_no_memory(tmp_path: Path) -> None:
    """9 bytes took 1.6 GB, a file of 1.6 kB never ended."""
    instances = {"images": [], "annotations": []}
    for name, content in PICKLES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "refs(unc).p").write_bytes(content)
        (tmp_path / name / "instances.json").write_text(json.dumps(instances))
    folders = [str(tmp_path / name) for name in PICKLES]
    argv = [sys.executable, "-c", BOMB_OF_REFS, *folders]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    *lengths, num_megabytes = map(int, done.stdout.split())
    assert len(lengths) == len(PICKLES) and max(lengths) < 1000 and num_megabytes < 50


# ---- B5's siblings: rows and predictions that are no files --------------------------------------------------------


def test_rows_are_not_waited_for_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    for path in (tmp_path / "rows.jsonl", tmp_path / "gone.jsonl"):
        with pytest.raises(DataError, match="no such file"):
            read_dataset(path)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    """/dev/zero took all memory."""
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for read in (read_json, read_json_lines):
        with pytest.raises(DataError, match="expected a file, found a device"):
            read(tmp_path / "zero.json")
