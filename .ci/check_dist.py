"""Check what the wheel and the sdist in a folder carry, and run the fast tests from the unpacked sdist.

    python .ci/check_dist.py dist

Every file that git tracks in src/visionr1 and recipes/ must be in the wheel, and every tracked file in the sdist.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/visionr1/"
LICENCES = {"LICENSE", "src/visionr1/assets/bccd/LICENSE.txt", "src/visionr1/assets/fonts/LICENSE.txt"}
NEEDLESS = {".gitignore"}
"""Tracked, but of no use outside of git. Hatchling adds .gitignore all the same."""


def main() -> None:
    folder = Path(sys.argv[1])
    (wheel,) = folder.glob("visionr1-*.whl")
    (sdist,) = folder.glob("visionr1-*.tar.gz")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = set(tracked.stdout.splitlines())
    check_wheel(wheel, files)
    check_sdist(sdist, files)
    run_fast_tests(sdist)


def check_wheel(wheel: Path, files: set[str]) -> None:
    """Raise SystemExit unless the wheel holds the package, its recipes and its licences, and nothing else."""
    package = {name.removeprefix("src/") for name in files if name.startswith(PACKAGE)}
    recipes = {f"visionr1/{name}" for name in files if name.startswith("recipes/")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    licences = {name.partition("/licenses/")[2] for name in metadata if "/licenses/" in name}
    report(wheel, missing=(package | recipes) - names, surplus=names - metadata - package - recipes)
    report(wheel, missing=LICENCES - licences, surplus=licences - LICENCES)


def check_sdist(sdist: Path, files: set[str]) -> None:
    """Raise SystemExit unless the sdist holds every tracked file, and nothing else but its metadata."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    report(sdist, missing=files - names - NEEDLESS, surplus=names - files - {"PKG-INFO"})


def report(archive: Path, *, missing: set[str], surplus: set[str]) -> None:
    if missing or surplus:
        sys.exit(f"{archive.name}: missing: {sorted(missing)}; should not be there: {sorted(surplus)}")
    print(f"{archive.name}: everything is there")


def run_fast_tests(sdist: Path) -> None:
    """Run the fast tests in the unpacked sdist, against the package in it."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (root,) = Path(folder).iterdir()
        environment = {**os.environ, "PYTHONPATH": str(root / "src")}
        subprocess.run([sys.executable, "-m", "pytest", "--fast", "-q"], cwd=root, env=environment, check=True)


if __name__ == "__main__":
    main()
