"""VLM-R1's rows: what is asked is in the question, what is true in the answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_trees import SIZE, write_images, write_lines
from visionr1.data import read_dataset
from visionr1.errors import DataError
from visionr1.samples import Boxes, Query

ASK = (
    "Please carefully check the image and detect the following objects: ['railings', \"rider's helmet [left]\"]. "
    'Output the bbox coordinates in JSON format: \n```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "name"}]\n```\n.'
)
DESCRIBE = "<image>Please provide the bounding box coordinate of the region this sentence describes: {}."


def row(question: str, answer: str, image: Any = "a/1.jpg", **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": 1, "image": image, "conversations": turns, **more}


def items(*boxes: tuple[list[float], str]) -> str:
    return "```json\n" + json.dumps([{"bbox_2d": box, "label": label} for box, label in boxes]) + "\n```"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    write_images(tmp_path / "images", ("a/1.jpg", "2.jpg"))

    def of(*rows: Any, **how: Any) -> Any:
        return read_dataset(write_lines(tmp_path / "train.jsonl", rows), **how)

    return of


def test_detection_is_asked_for_the_list_in_the_question(read: Any) -> None:
    data = read(row(ASK, items(([3, 10, 90, 50], "railings"))), row(ASK, "None", "2.jpg"))
    first, second = data.samples
    assert first.query == Query("detection", ("railings", "rider's helmet [left]"))
    assert first.truth == Boxes.of([[3, 10, 90, 50]], ["railings"]) and first.size_wh == SIZE
    assert first.load_image().size == SIZE and len(second.truth) == 0
    assert data.table.categories == ("railings", "rider's helmet [left]") and len(data.table) == 2


def test_an_answer_of_four_numbers_is_of_an_expression(read: Any) -> None:
    (sample,) = read(row(DESCRIBE.format("the lady with the blue shirt"), "[10.5, 20, 30, 40.25]", ["a/1.jpg"])).samples
    assert sample.query == Query("referring", ("the lady with the blue shirt",))
    assert sample.truth == Boxes.of([[10.5, 20, 30, 40.25]], ["the lady with the blue shirt"])


def test_without_a_list_the_labels_of_the_answer_are_asked_for(read: Any) -> None:
    (sample,) = read(row("Find everything.", items(([1, 2, 3, 4], "dog"), ([5, 6, 7, 8], "dog")))).samples
    assert sample.query.categories == ("dog",) and len(sample.truth) == 2


def test_boxes_are_clipped_and_counted(read: Any) -> None:
    data = read(row(ASK, items(([90, 70, 120, 90], "railings"), ([200, 1, 210, 5], "railings"))))
    assert data.samples[0].truth.xyxy.tolist() == [[90, 70, 100, 80]]
    assert data.report.adjusted == {"boxes_clipped": 1, "empty_boxes_left_out": 1}


BAD: list[tuple[Any, str]] = [
    (7, "conversations: expected a list of turns"),
    ({"image": "2.jpg", "conversations": [{"from": "human", "value": "x"}]}, "one from gpt"),
    (row(ASK, items(), ["2.jpg", "a/1.jpg"]), "image: expected one image, found"),
    (row(ASK, "there are two dogs", "2.jpg"), "gpt: expected a list of bbox_2d and label, four numbers or None"),
    (row(ASK, '[{"bbox_2d": [1, 2, 3], "label": "x"}]', "2.jpg"), "gpt: expected a list"),
    (row(ASK, items(([5, 5, 1, 9], "railings")), "2.jpg"), "box: expected x1 <= x2"),
    (row("Where is it?", "[1, 2, 3, 4]", "2.jpg"), "this sentence describes: EXPRESSION"),
    (row("What is there?", "None", "2.jpg"), "human: expected the categories asked for"),
    (row(ASK, "None", "../2.jpg"), "expected a path below its folder"),
    (row(ASK, "None", "gone.jpg"), "found no such file"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_bad_row_is_an_error_or_skipped_with_a_count(read: Any, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"row 1: .*{message}"):
        read(row(ASK, "None"), bad)
    skipped = read(row(ASK, "None"), bad, on_bad="skip")
    assert len(skipped.samples) == 1 and sum(skipped.report.skipped.values()) == 1


@pytest.mark.parametrize("text", ["[" * 30_000, "['a', __import__('os').system('x')]", "[" + "'x]," * 5000, "['a', 1]"])
def test_a_question_is_never_run(read: Any, text: str) -> None:
    (sample,) = read(row(f"the following objects: {text}", items(([1, 2, 3, 4], "dog")))).samples
    assert sample.query.categories == ("dog",)


def turns(*texts: str, speakers: tuple[str, str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": speakers[number % 2], "value": text} for number, text in enumerate(texts)]


def asking(*names: str) -> str:
    return f"Please detect the following objects: {list(names)}"


def test_each_pair_of_turns_is_a_sample(read: Any) -> None:
    one, two = items(([1, 2, 3, 4], "cat")), items(([5, 6, 7, 8], "dog"))
    data = read({"image": "2.jpg", "conversations": turns(asking("cat"), one, asking("dog"), two)}, row(ASK, "None"))
    assert [sample.id for sample in data.samples] == ["0/0", "0/1", "1"]
    assert [sample.query.categories for sample in data.samples[:2]] == [("cat",), ("dog",)]
    assert [sample.truth.labels for sample in data.samples[:2]] == [("cat",), ("dog",)]
    assert data.table.image_ids == ("2.jpg", "a/1.jpg") and len(data.table.xywh) == 2


def test_a_bad_pair_is_left_out_alone(read: Any) -> None:
    talk = turns(asking("cat"), items(([1, 2, 3, 4], "cat")), "Is it asleep?", "Yes.")
    with pytest.raises(DataError, match=r"row 0/1: gpt: expected a list of bbox_2d"):
        read({"image": "2.jpg", "conversations": talk})
    data = read({"image": "2.jpg", "conversations": talk}, on_bad="skip")
    assert [sample.id for sample in data.samples] == ["0/0"] and data.report.skipped == {"bad_row": 1}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_messages_are_read_as_conversations(read: Any) -> None:
    answer = items(([1, 2, 3, 4], "cat"))
    picture = {"type": "image", "image": "2.jpg"}
    plain = [message("system", "You help."), message("user", asking("cat")), message("assistant", answer)]
    parts = [message("user", [picture, {"type": "text", "text": asking("cat")}]), message("assistant", answer)]
    for given in ({"images": ["2.jpg"], "messages": plain}, {"messages": parts}, {"image": "2.jpg", "messages": parts}):
        (sample,) = read(given).samples
        assert sample.query.categories == ("cat",) and sample.image_id == "2.jpg" and len(sample.truth) == 1


@pytest.mark.parametrize(
    "conversation",
    [
        turns(ASK, "None", ASK),  # a question without an answer
        turns(ASK, "None", speakers=("gpt", "human")),
        [*turns(ASK, "None"), {"from": "gpt", "value": "None"}, {"from": "human", "value": ASK}],
        [{"from": ["human"], "value": ASK}, {"from": "gpt", "value": "None"}],
        [{"from": "human", "value": [7]}, {"from": "gpt", "value": "None"}],
        [{"from": "system", "value": "You help."}],
        [],
    ],
)
def test_turns_that_do_not_alternate_are_a_bad_row(read: Any, conversation: Any) -> None:
    with pytest.raises(DataError, match=r"row 0: conversations: expected a turn from human and one from gpt"):
        read({"image": "2.jpg", "conversations": conversation})


def test_a_list_in_a_json_file_is_read_as_lines(tmp_path: Path, read: Any) -> None:
    rows = [row(ASK, items(([3, 10, 90, 50], "railings"))), row(ASK, "None", "2.jpg")]
    lines = read(*rows)
    for start in ("", "\ufeff \n"):
        (tmp_path / "rows.json").write_text(start + json.dumps(rows))
        data = read_dataset(tmp_path / "rows.json")
        assert [sample.truth for sample in data.samples] == [sample.truth for sample in lines.samples]
    (tmp_path / "rows.json").write_text("[7]")
    with pytest.raises(DataError, match=r"rows\.json: row 0: conversations: expected a list of turns"):
        read_dataset(tmp_path / "rows.json")


def test_qwens_own_answer_is_of_what_it_locates(read: Any) -> None:
    question = "<image>\nLocate the red house in this image and output the bbox coordinates in JSON format."
    for answer in (
        '{\n"bbox_2d": [13, 11, 50, 60]\n}',
        '```json\n[{"bbox_2d": [13, 11, 50, 60]}]\n```',
        "[13, 11, 50, 60]",
    ):
        (sample,) = read(row(question, answer)).samples
        assert sample.query == Query("referring", ("the red house",))
        assert sample.truth == Boxes.of([[13, 11, 50, 60]], ["the red house"])
    (sample,) = read(row(asking("cat"), '[{"bbox_2d": [13, 11, 50, 60]}]')).samples
    assert sample.query == Query("detection", ("cat",)) and sample.truth.labels == ("cat",)


def test_a_label_that_was_not_asked_for_is_a_bad_row(read: Any) -> None:
    with pytest.raises(DataError, match=r"row 0: gpt: expected labels among those asked for, \['cat'\], found 'dog'"):
        read(row(asking("cat"), items(([1, 2, 3, 4], "dog"))))
    (sample,) = read(row(asking("Cat", "A\u0308pfel"), items(([1, 2, 3, 4], "cat "), ([1, 2, 3, 9], "Äpfel")))).samples
    assert sample.truth.labels == sample.query.categories == ("Cat", "Äpfel")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("['a]', \"it's\", 'x\\ty', u'b']", ("a]", "it's", "x\ty", "b")),
        ('["cat", "caf\\u00e9",\n "dog"]', ("cat", "café", "dog")),
        ("[ 'a' , 'b', ]", ("a", "b")),
        ("['a' 'b']", None),
        ("['a', 1]", None),
        ("['\\x']", None),
        ("cat, dog ['a']", None),
    ],
)
def test_a_list_is_read_as_python_or_json_quotes_it(read: Any, written: str, names: tuple[str, ...] | None) -> None:
    given = (names or ("dog",))[0]
    (sample,) = read(row(f"the following objects: {written}.", items(([1, 2, 3, 4], given)))).samples
    assert sample.query.categories == (names or ("dog",))


@pytest.mark.parametrize(
    "more",
    [
        {"images": [{"path": "2.jpg"}]},
        {"images": [{"bytes": None, "path": "2.jpg"}]},
        {"image": {"url": "2.jpg"}},
        {"parts": {"type": "image", "image": "2.jpg"}},
        {"parts": {"type": "image_url", "image_url": {"url": "2.jpg"}}},
        {"parts": {"type": "image_url", "image_url": "2.jpg"}},
    ],
)
@pytest.mark.parametrize(
    ("key", "speaker", "text", "speakers"),
    [
        ("messages", "role", "content", ("user", "assistant")),
        ("conversations", "role", "content", ("user", "assistant")),
        ("conversations", "from", "value", ("User", "Assistant")),
        ("messages", "from", "value", ("human ", "GPT")),
    ],
)
def test_turns_and_images_under_the_keys_of_other_tools(
    read: Any, more: dict[str, Any], key: str, speaker: str, text: str, speakers: tuple[str, str]
) -> None:
    """ms-swift, LLaVA and the API of OpenAI name them otherwise, or mix the names."""
    rest = dict(more)
    question: Any = [{"type": "text", "text": asking("cat")}]
    if "parts" in rest:
        question.insert(0, rest.pop("parts"))
    answer = items(([1, 2, 3, 4], "cat"))
    talk = [{speaker: speakers[0], text: question}, {speaker: speakers[1], text: answer}]
    (sample,) = read({key: talk, **rest}).samples
    assert len(sample.truth) == 1 and sample.query.categories == ("cat",)


def test_the_folder_of_images_can_be_named(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", ("deep/1.jpg",))
    rows = write_lines(tmp_path / "train.jsonl", [row(ASK, "None", "deep/1.jpg")])
    with pytest.raises(DataError, match=r"expected deep/1\.jpg in"):
        read_dataset(rows)
    (sample,) = read_dataset(rows, image_dir=tmp_path / "elsewhere").samples
    assert sample.image == tmp_path / "elsewhere/deep/1.jpg"
    with pytest.raises(DataError, match=rf"expected deep/1\.jpg in {tmp_path}/gone;"):
        read_dataset(rows, image_dir=tmp_path / "gone")


def test_images_may_lie_in_several_of_the_usual_folders(tmp_path: Path) -> None:
    """The folder of the first image was taken for that of all."""
    write_images(tmp_path, ("1.jpg",))
    write_images(tmp_path / "images", ("1.jpg", "2.jpg"))
    write_images(tmp_path / "coco/train2014", ("3.jpg",))
    rows = write_lines(tmp_path / "train.jsonl", [row(ASK, "None", f"{number}.jpg") for number in (1, 2, 3)])
    images = [sample.image for sample in read_dataset(rows).samples]
    assert images == [tmp_path / "1.jpg", tmp_path / "images/2.jpg", tmp_path / "coco/train2014/3.jpg"]
