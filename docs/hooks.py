"""Hooks of the documentation site: README is its first page, each room of the package has a page of its API.

Links that leave docs/ would be dead on the site. Those to modules lead to the module's API; the rest become code.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/visionr1"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand in no file of docs/."""
    files.append(File.generated(config, "index.md", content=readme()))
    rooms = sorted(path.parent for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "assets")
    for room in rooms:
        modules = sorted(path for path in room.rglob("*.py") if not path.stem.startswith("_"))
        content = api_page(room.name, [room / "__init__.py", *modules])
        files.append(File.generated(config, f"api/{room.name}.md", content=content))
    vocabulary = sorted(path for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
    files.append(File.generated(config, "api/index.md", content=api_page("visionr1", vocabulary)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files outside docs/ into links to the API, or into code."""
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./src/([\w/]+)\.py\)", link_to_api, markdown)
    return re.sub(r"\[([^\]]+)\]\(\.\./([\w./]+)\)", r"`\2`", markdown)


def readme() -> str:
    """README.md with its links as seen from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", text)
    return text.replace("](docs/", "](")


def api_page(title: str, modules: list[Path]) -> str:
    """A page that documents `modules`, one under another."""
    entries = [f"# {title}"]
    for path in modules:
        entry = f"::: {module_name(path)}"
        if path.name == "__init__.py":
            # A name that the room gives out is documented once, where it is defined.
            names = defined_names(path)
            entry += f"\n    options:\n      members: {names or 'false'}"
        entries.append(entry)
    return "\n\n".join(entries)


def defined_names(path: Path) -> list[str]:
    """The public names that a file defines itself, in its order."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def link_to_api(match: re.Match[str]) -> str:
    text, path = match.groups()
    return f"[{text}][{path.replace('/', '.')}]"
