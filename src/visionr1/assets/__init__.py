"""Data that ships inside the package: the BCCD images, the tiny model, a font, the recipes."""

from pathlib import Path

from visionr1.errors import DataError, RecipeError

_HERE = Path(__file__).parent
_NAMES = ("bccd", "tiny")


def embedded_path(name: str) -> Path:
    """Return the folder of an embedded part: "bccd" (images and boxes) or "tiny" (a transformers folder).

    Raises DataError if there is none of that name.
    """
    folder = _HERE / name
    if name not in _NAMES or not folder.is_dir():
        raise DataError(f"nothing embedded is named {name!r}; expected one of: {', '.join(_NAMES)}")
    return folder


def families_path() -> Path:
    """Return the file of what `benchmarks/families.py` measured of model families, for `visionr1 models`."""
    return _HERE / "families.json"


def font_path() -> Path:
    """Return the file of the font for captions: DejaVu Sans with Latin, Greek and Cyrillic."""
    return _HERE / "fonts" / "DejaVuSans.ttf"


def recipe_path(name: str) -> Path:
    """Return the file of a recipe: `name` as a path, or else the name of one that ships ("demo").

    Raises RecipeError naming the recipes that ship.
    """
    shipped = _recipe_folder()
    for path in (Path(name), shipped / name, shipped / f"{name}.toml"):
        if path.is_file():
            return path

    known = ", ".join(sorted(path.stem for path in shipped.glob("*.toml")))
    raise RecipeError(f"no recipe file {name}, and none of that name ships; these do: {known}")


def _recipe_folder() -> Path:
    """Return the folder of the recipes: in a wheel it lies in the package, in the repository at its root."""
    installed = _HERE.parent / "recipes"
    if installed.is_dir():
        return installed
    return _HERE.parents[2] / "recipes"
