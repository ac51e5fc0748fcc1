"""Questions about images (GQA, AI2D, ChartQA, SEED-Image) through VLMEvalKit, which asks and scores; we answer.

VLMEvalKit (github.com/open-compass/VLMEvalKit) is what the paper measures VQA with. It is not on PyPI; install it from
its repository into the same environment. Here it gets our checkpoint as a model of its own kind, and its result comes
back as a record like those of `visionr1 eval`, with its version and everything else that the number depends on.
Questions are asked in its words (those of the paper), answers are greedy, and multiple choice is scored by exact
matching, without a judge model. It evaluates what stands in a TSV file as Python: give it only files that you trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.errors import DataError, MissingDependency, RecipeError
from visionr1.evaluation.model.answerer import Answerer
from visionr1.files import write_json_atomic
from visionr1.images import read_image
from visionr1.rollout.engine import Sampling
from visionr1.samples import Query
from visionr1.terminal import printable_line

MAX_NEW_TOKENS = 128
JUDGE = "exact_matching"
INSTALL = "pip install git+https://github.com/open-compass/VLMEvalKit"


def answer(answerer: Answerer, image: Image.Image, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
    """Return a model's greedy answer to a question about one RGB image."""
    prompt = answerer.policy.encode(image, Query("question", (question,)), template="{}")
    greedy = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    ((completion,),) = answerer.engine(answerer.policy, [prompt], greedy)
    return completion.text


def evaluate_vqa(
    answerer: Answerer,
    benchmark: str,
    out: Path,
    *,
    model: str,
    tsv: Path | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, Any]:
    """Run one of VLMEvalKit's image benchmarks, leave its files in `out`/vlmevalkit and the record in `out`/vqa.

    `tsv` is a file in VLMEvalKit's format that is asked and scored as `benchmark` is, instead of its own data, which it
    downloads; the record says so. An interrupted run goes on. Raises MissingDependency without VLMEvalKit, RecipeError
    for a benchmark that it does not have, DataError for a bad `tsv` or a question with more than one image.
    """
    with _vlmevalkit():
        import vlmeval
        from vlmeval.dataset import build_dataset
        from vlmeval.inference import infer_data_job
        from vlmeval.smp import get_pred_file_path

        dataset = _dataset_from_tsv(benchmark, tsv) if tsv else build_dataset(benchmark)
        if dataset is None or dataset.MODALITY != "IMAGE":
            raise RecipeError(f"VLMEvalKit has no image benchmark {benchmark!r}; such as GQA_TestDev_Balanced")

        # VLMEvalKit goes on with the answers it finds in its folder.
        work = out / "vlmevalkit"
        work.mkdir(parents=True, exist_ok=True)
        name = Path(model).name
        infer_data_job(_vlmevalkit_model(answerer, max_new_tokens), str(work), name, dataset)
        file = get_pred_file_path(str(work), name, dataset.dataset_name, use_env_format=True)
        scored = dataset.evaluate(file, model=JUDGE, nproc=1)

    # The record names everything that the number depends on.
    data = "VLMEvalKit's"
    if tsv:
        data = str(tsv)
    version = getattr(vlmeval, "__version__", "of unknown version")
    record = {
        "model": model,
        "benchmark": benchmark,
        "data": data,
        "metrics": {"accuracy": _overall_accuracy(scored, in_percent=dataset.TYPE == "VQA")},
        "counts": {"questions": len(dataset)},
        "by_split": _accuracy_rows(scored),
        "protocol": {
            "name": f"VLMEvalKit {version}, {benchmark}",
            "prompt": "VLMEvalKit's",
            "decoding": "greedy",
            "dtype": answerer.dtype,
            "max_new_tokens": max_new_tokens,
            "judge": JUDGE,
        },
        "predictions": file,
    }
    if answerer.label:
        record["protocol"]["engine"] = answerer.label
    write_json_atomic(out / "vqa" / f"{name}.{benchmark}.json", record)
    return record


def describe(record: Mapping[str, Any]) -> str:
    """Return a record in three lines."""
    protocol = record["protocol"]
    accuracy = 100 * record["metrics"]["accuracy"]
    lines = [
        f"{record['benchmark']}: accuracy {accuracy:.1f} "
        f"({record['counts']['questions']} questions, data: {record['data']})",
        f"protocol {protocol['name']}: prompt {protocol['prompt']}, {protocol['decoding']}, "
        f"{protocol['max_new_tokens']} tokens, {protocol['judge']}",
        f"predictions: {record['predictions']}",
    ]
    return "\n".join(map(printable_line, lines))


@contextmanager
def _vlmevalkit() -> Iterator[None]:
    """Raise MissingDependency where VLMEvalKit, or a package that it needs, is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A module of this package that is not there is a defect, which no installation repairs.
        package = (error.name or "visionr1").partition(".")[0]
        if package == "visionr1":
            raise
        raise MissingDependency(
            f"{error.name} is not installed and VLMEvalKit needs it; install it with: {INSTALL}"
        ) from error


def _dataset_from_tsv(benchmark: str, tsv: Path) -> Any:
    """Return a data set of VLMEvalKit's class for `benchmark`, with the rows of `tsv`."""
    from vlmeval.dataset import DATASET_CLASSES
    from vlmeval.smp import load

    if not tsv.is_file():
        raise DataError(f"{tsv}: expected a TSV file with index, image, question and answer, found no such file")
    kind = next((cls for cls in DATASET_CLASSES if benchmark in cls.supported_datasets()), None)
    if kind is None:
        raise RecipeError(f"VLMEvalKit has no benchmark {benchmark!r}; such as GQA_TestDev_Balanced")

    class TSVDataset(kind):  # type: ignore[misc, valid-type]
        def load_data(self, dataset: str) -> Any:
            rows = load(str(tsv))
            missing = {"index", "question", "answer"} - set(rows.columns)
            if missing:
                raise DataError(f"{tsv}: columns: expected {', '.join(sorted(missing))} among them, found none")
            return rows

    return TSVDataset(dataset=benchmark)


def _vlmevalkit_model(answerer: Answerer, max_new_tokens: int) -> Any:
    """Return a model of ours as one of VLMEvalKit's."""
    from vlmeval.vlm.base import BaseModel

    class Answerer(BaseModel):  # type: ignore[misc]
        def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
            images = []
            texts = []
            for part in message:
                if part["type"] == "image":
                    images.append(part["value"])
                elif part["type"] == "text":
                    texts.append(part["value"])
            if len(images) != 1:
                raise DataError(f"a question of {dataset} has {len(images)} images; models here look at one")
            return answer(answerer, read_image(Path(images[0])), "\n".join(texts), max_new_tokens=max_new_tokens)

    return Answerer()


def _overall_accuracy(scored: Any, *, in_percent: bool) -> float:
    """Return the accuracy over all, from 0 to 1, in a table of VLMEvalKit's."""
    value = float(scored["Overall"].iloc[0])
    if in_percent:
        value /= 100
    return value


def _accuracy_rows(scored: Any) -> list[dict[str, Any]]:
    """Return the rows of a table of VLMEvalKit's (one for each split) as JSON objects."""
    rows = []
    for scored_row in scored.to_dict("records"):
        row: dict[str, Any] = {}
        for key, value in scored_row.items():
            # NumPy's scalars are no JSON; all that is no number is stored as text.
            row[str(key)] = str(value)
            if isinstance(value, int | float):
                row[str(key)] = float(value)
        rows.append(row)
    return rows
