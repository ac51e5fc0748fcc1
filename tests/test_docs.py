"""What the documents show is what the code does."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
EXAMPLES = [
    pytest.param(code, shown, id=path.stem)
    for path in DOCS
    for code, shown in re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", path.read_text(), re.DOTALL)
]


@pytest.mark.parametrize(("code", "shown"), EXAMPLES)
def test_an_example_prints_what_stands_below_it(code: str, shown: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == shown


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
