"""A thought before the answer, around any dialect; and Qwen3-VL's coordinates."""

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import Boxes, FaultKind, Reply

THINK = get_dialect("think+qwen25")
ONE = '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}]'
FAR = '[{"bbox_2d": [50, 60, 70, 80], "label": "cat"}]'


def parse(text: str) -> Reply:
    return THINK.parse(text, size_wh=(100, 100), input_size_wh=(100, 100), categories=("cat",))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>A cat.</think><answer>{ONE}</answer>",
        f"\n<think>\nA cat.\n</think>\r\n \n<answer>\n```json\n{ONE}\n```\n</answer>\n",  # white space, a fence
        f"<think></think><answer>{ONE}</answer>",  # an empty thought
        f"<think>It is {FAR}, no.</think><answer>{ONE}</answer>",  # boxes in the thought are no answer
        f"<think><think>a</think><answer>{ONE}</answer>",  # the thought names its own tag
    ],
)
def test_well_formed(text: str) -> None:
    reply = parse(text)
    assert reply.well_formed, reply.faults
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize(
    ("text", "fault", "boxes"),
    [
        ("", FaultKind.SURROUNDING_TEXT, 0),  # nothing
        (ONE, FaultKind.SURROUNDING_TEXT, 1),  # the answer alone, no tags
        (f"<answer>{ONE}</answer>", FaultKind.SURROUNDING_TEXT, 1),  # no thought
        (f"<think>t</think>{ONE}", FaultKind.SURROUNDING_TEXT, 1),  # no tags around the answer
        (f"Well. <think>t</think><answer>{ONE}</answer>", FaultKind.SURROUNDING_TEXT, 1),  # prose before
        (f"<think>t</think>So: <answer>{ONE}</answer>", FaultKind.SURROUNDING_TEXT, 1),  # between
        (f"<think>t</think><answer>{ONE}</answer>.", FaultKind.SURROUNDING_TEXT, 1),  # after
        (f"<think>t</think><answer>{FAR}</answer><answer>{ONE}</answer>", FaultKind.SURROUNDING_TEXT, 1),  # two answers
        (f"<think>It is {FAR}", FaultKind.TRUNCATED, 0),  # inside the thought: nothing was answered
        (f"<think>t</think><answer>{ONE}", FaultKind.TRUNCATED, 1),  # inside the answer
        ("<think>t</think><answer>no cat</answer>", FaultKind.UNREADABLE, 0),  # an answer in no dialect
    ],
)
def test_faults(text: str, fault: FaultKind, boxes: int) -> None:
    reply = parse(text)
    assert fault in [found.kind for found in reply.faults]
    assert not reply.well_formed
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]] * boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        # A thought that names the tag, cut off: nothing was answered.
        ("<think>I must give it in the <answer> tag. Maybe " + FAR + " or", 0),
        # A thought that names both tags, and an answer without them: the answer is read.
        (f"<think>use <answer></answer> tags</think>\n{ONE}", 1),
        (f"<think>use <answer>{FAR}</answer></think>\n<answer>{ONE}", 1),  # cut off in the answer
    ],
)
def test_an_answer_is_looked_for_behind_the_thought_alone(text: str, boxes: int) -> None:
    reply = parse(text)
    assert not reply.well_formed
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]] * boxes


OPENED = get_dialect("open-think+qwen25")


@pytest.mark.parametrize(
    ("text", "boxes", "well_formed"),
    [
        (f"A cat.</think>\n<answer>{ONE}</answer>", 1, True),
        (f"It is {FAR}, no.</think><answer>{ONE}</answer>", 1, True),  # boxes in the thought are no answer
        (f"</think><answer>{ONE}</answer>", 1, True),  # an empty thought
        (f"<think>A cat.</think><answer>{ONE}</answer>", 1, False),  # the tag twice: prompt and reply wrote it
        (f"A cat.</think>\n\n{ONE}", 1, False),  # no tags around the answer
        (f"It is {FAR}", 0, False),  # cut off inside the thought
        (f"I write <answer>. It is {FAR}", 0, False),  # which names the tag
    ],
)
def test_where_the_prompt_opens_the_thought(text: str, boxes: int, well_formed: bool) -> None:
    reply = OPENED.parse(text, size_wh=(100, 100), input_size_wh=(100, 100), categories=("cat",))
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]] * boxes
    assert reply.well_formed is well_formed


def test_the_truth_goes_on_where_the_prompt_ends() -> None:
    boxes = Boxes.of([[10, 20, 30, 40]], ["cat"])
    whole = THINK.render(boxes, size_wh=(100, 100), input_size_wh=(100, 100))
    assert "<think>" + OPENED.render(boxes, size_wh=(100, 100), input_size_wh=(100, 100)) == whole
    assert (THINK.name, OPENED.name) == ("think+qwen25", "open-think+qwen25")


@pytest.mark.parametrize("name", ["qwen25", "qwen3", "internvl", "griffon"])
@pytest.mark.parametrize("opening", ["<think>", ""])
def test_boxes_in_a_thought_are_no_answer_of_a_plain_dialect_either(name: str, opening: str) -> None:
    dialect = get_dialect(name)
    size = {"size_wh": (1000, 1000), "input_size_wh": (1000, 1000)}
    right = dialect.render(Boxes.of([[10, 20, 30, 40]], ["cat"]), **size)  # type: ignore[arg-type]
    wrong = dialect.render(Boxes.of([[50, 60, 70, 80]], ["cat"]), **size)  # type: ignore[arg-type]
    reply = dialect.parse(f"{opening}Maybe {wrong}.</think>\n{right}", **size)  # type: ignore[arg-type]
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]] and reply.num_malformed == 0
    assert not reply.well_formed
    cut = dialect.parse(f"<think>Maybe {wrong}, or", **size)  # type: ignore[arg-type]
    assert cut.num_predicted == 0 and not cut.well_formed


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<thinking>", "</thinking>"),
        ("<reasoning>", "</reasoning>"),
        ("<THINK>", "</THINK>"),
        ("< think >", "</ think >"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|channel|>final<|message|>"),
    ],
)
@pytest.mark.parametrize("name", ["qwen3", "think+qwen3", "internvl", "griffon"])
def test_thoughts_of_other_families_are_thoughts(name: str, opening: str, closing: str) -> None:
    dialect = get_dialect(name)
    size = {"size_wh": (1000, 1000), "input_size_wh": (1000, 1000)}
    right = get_dialect(name.removeprefix("think+")).render(Boxes.of([[10, 20, 30, 40]], ["cat"]), **size)  # type: ignore[arg-type]
    reply = dialect.parse(f"{opening}也许 [500, 500, 600, 600].{closing}\n{right}", **size)  # type: ignore[arg-type]
    assert reply.boxes.xyxy.tolist() == [[10, 20, 30, 40]] and reply.num_malformed == 0
    assert not reply.well_formed
    assert get_dialect("qwen3").parse(f"{opening}Maybe {right}, or", **size).num_predicted == 0  # type: ignore[arg-type]


def test_a_label_with_the_answers_tag_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="which this dialect cannot write"):
        THINK.render(Boxes.of([[0, 0, 1, 1]], ["</answer>"]), size_wh=(9, 9), input_size_wh=(9, 9))


def test_the_wrapped_dialect_is_asked_as_the_plain_one_and_to_think() -> None:
    assert get_dialect("think+griffon").templates == get_dialect("griffon").templates
    assert get_dialect("think+qwen3").grid_wh(size_wh=(9, 9), input_size_wh=(28, 28)) == (1000, 1000)


def test_qwen3_writes_thousandths_of_the_image() -> None:
    qwen3 = get_dialect("qwen3")
    text = '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "cat"}\n]\n```'
    reply = qwen3.parse(text, size_wh=(640, 480), input_size_wh=(28, 28))
    assert reply.boxes.xyxy.tolist() == [[64, 96, 192, 192]]
    assert qwen3.render(reply.boxes, size_wh=(640, 480), input_size_wh=(28, 28)) == text
    beyond = qwen3.parse(text.replace("400", "1001"), size_wh=(640, 480), input_size_wh=(28, 28))
    assert [fault.kind for fault in beyond.faults] == [FaultKind.OUT_OF_BOUNDS]
