"""What the documents show is what the code does."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "examples").rglob("*.md"))]
CURRENT = [path for path in PAGES if path.name not in ("log.md", "CHANGELOG.md")]
"""Pages about the code as it is, not as it was."""
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


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the documentation site make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s+", "-", heading) for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", path.read_text(encoding="utf-8")):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


def test_messages_name_entries_that_exist() -> None:
    for path in sorted((ROOT / "src/visionr1").rglob("*.py")):
        for page, anchor in re.findall(r"docs/(\w+\.md)#([\w-]+)", path.read_text(encoding="utf-8")):
            assert anchor in anchors(ROOT / "docs" / page), f"{path.name}: {page}#{anchor}"


def test_every_page_is_on_the_site() -> None:
    navigation = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.name for path in DOCS} == {page for page in navigation if "/" not in page} - {"index.md"}
    rooms = {path.parent.name for path in (ROOT / "src/visionr1").glob("*/__init__.py")} - {"assets"}
    assert {f"api/{room}.md" for room in rooms} == {page for page in navigation if "/" in page} - {"api/index.md"}


@pytest.mark.parametrize("path", CURRENT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_modules_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for named in re.findall(r"\b(?:src|tests|benchmarks|examples|recipes|docs)/[\w./]*\w\.\w+", text):
        assert (ROOT / named).exists(), named
    for named in re.findall(r"(?<![\w./:])(?<!points[.].)visionr1(?!\.json)(?:\.\w+)+", text):
        assert is_named_in_the_package(named), named


def is_named_in_the_package(dotted: str) -> bool:
    """Return whether `dotted` is a module, or a name in the file of a module. Nothing is imported."""
    folder, *names = dotted.split(".")
    place = ROOT / "src" / folder
    while names and (place / names[0]).is_dir():
        place = place / names.pop(0)
    if names and (place / f"{names[0]}.py").is_file():
        place = place / f"{names.pop(0)}.py"
    file = place if place.is_file() else place / "__init__.py"
    return file.is_file() and (not names or names[0] in file.read_text(encoding="utf-8"))
