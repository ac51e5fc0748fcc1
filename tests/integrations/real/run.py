"""Test the adapters inside their frameworks, each in a virtual environment of its own (`make test-integrations`).

    python tests/integrations/real/run.py [--hosts trl verl ...] [--cache FOLDER] [--easyr1 GIT_URL_OR_FOLDER]

The environments stay in the cache folder (about 1.5 GB each with the CPU build of torch) and are used again. EasyR1 is
on no package index: it is cloned at the commit below. Nothing of a host is copied into this repository. No GPU is
needed.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
HERE, EXAMPLES = Path(__file__).resolve().parent, REPOSITORY / "examples"
TORCH = "torch==2.13.0"  # alone and first, so that the index in use decides its build
EASYR1_URL, EASYR1_COMMIT = "https://github.com/hiyouga/EasyR1", "b44b311b669bf1fd1aa2fc36f2251482ba33cb16"


@dataclass(frozen=True, slots=True)
class Host:
    """What to install, call by call, and what to pass to inside_NAME.py after the model and the work folder."""

    installs: tuple[tuple[str, ...], ...]
    arguments: tuple[str, ...]


HOSTS = {
    "trl": Host((("trl==1.16.0", "transformers==5.23.0", "pillow"),), (str(EXAMPLES),)),
    "verl": Host((("verl==0.9.1",),), (str(EXAMPLES / "verl/train.sh"),)),
    "ms_swift": Host((("ms-swift==4.6.0", "msgspec"),), (str(EXAMPLES / "ms_swift/plugin.py"),)),
    # Its reward manager needs no more than this; the whole of EasyR1 needs vLLM and flash-attn.
    "easyr1": Host(
        (("transformers>=4.54,<5", "tensordict<=0.10", "ray", "codetiming", "omegaconf", "pyyaml", "pandas"),),
        (str(EXAMPLES / "easyr1/train.sh"),),
    ),
    # Its agent executor needs no more than this; the whole of OpenRLHF needs vLLM, DeepSpeed and flash-attn.
    "openrlhf": Host(
        (
            ("--no-deps", "openrlhf==0.11.2"),
            ("transformers==5.15.0", "datasets", "aiohttp", "pylatexenc", "sympy", "pillow"),
        ),
        (str(EXAMPLES / "openrlhf/plugin.py"),),
    ),
}


def environment(name: str, host: Host, cache: Path) -> Path:
    """The Python of the host's virtual environment, made if it is not there or its packages are others."""
    folder = cache / name
    calls = [(TORCH,), *host.installs, ("--editable", str(REPOSITORY))]
    wanted, marker = "\n".join(" ".join(call) for call in calls), folder / "visionr1-installed"
    python = folder / "bin/python"
    if not marker.is_file() or marker.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for call in calls:
            print(f"{name}: pip install {' '.join(call)}", flush=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *call], check=True)
        marker.write_text(wanted)
    return python


def easyr1_source(source: str, cache: Path) -> str:
    """The folder of EasyR1 at the commit that was tried, from a git URL or repository."""
    folder = cache / "EasyR1"
    if not folder.is_dir():
        subprocess.run(["git", "clone", "--quiet", source, folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", EASYR1_COMMIT], check=True)
    return str(folder)


def run_host(name: str, cache: Path, model: str, easyr1: str) -> bool:
    """Run inside_NAME.py in the host's environment; its whole output goes to a log."""
    host, began = HOSTS[name], time.monotonic()
    python = environment(name, host, cache)
    work = cache / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    arguments = [easyr1_source(easyr1, cache)] if name == "easyr1" else [str(work)] if name != "verl" else []
    log = cache / f"{name}.log"
    variables = {**os.environ, "VISIONR1_HOST_CASES": str(cache / "cases.json"), "HF_HUB_OFFLINE": "1"}
    variables.pop("PYTHONPATH", None)
    with log.open("w") as output:
        command = [python, HERE / f"inside_{name}.py", model, *arguments, *host.arguments]
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=variables).returncode
    lines = log.read_text(errors="replace").splitlines()
    print("\n".join(line for line in lines if line.startswith(("TRL ", "verl ", "ms-swift ", "EasyR1 ", "OpenRLHF "))))
    if status:
        print("\n".join(lines[-20:]))
    print(f"{name}: {'FAILED' if status else 'passed'} in {time.monotonic() - began:.0f} s, log in {log}", flush=True)
    return not status


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", nargs="+", choices=list(HOSTS), default=list(HOSTS))
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/visionr1-hosts", help="environments and logs"
    )
    parser.add_argument("--easyr1", default=EASYR1_URL, help="where to clone EasyR1 from: a URL or a local repository")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "src/visionr1/assets/tiny")
    arguments = parser.parse_args(argv)
    cache, model = arguments.cache.resolve(), str(arguments.model.resolve())
    cache.mkdir(parents=True, exist_ok=True)
    os.environ["VISIONR1_HOST_CASES"] = str(cache / "cases.json")
    from cases import write_cases

    write_cases()
    passed = [name for name in arguments.hosts if run_host(name, cache, model, arguments.easyr1)]
    print(f"{len(passed)} of {len(arguments.hosts)} hosts passed: {', '.join(passed)}")
    return len(passed) != len(arguments.hosts)


if __name__ == "__main__":
    sys.exit(main())
