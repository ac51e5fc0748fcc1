"""Case 01, a model's own results: images named by digits are evaluated, resumed, sharded, scored again and compared."""

import json
from pathlib import Path

import pytest

from visionr1 import cli

DATA = Path(__file__).parent / "data/case_01"


@pytest.mark.parametrize("name", ["t_vocdigits", "s_strids"])
def test_results_of_a_model_can_be_read_again(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asking = ["eval", "--model", "tiny", "--data", str(DATA / name), "--resamples", "0", "--max-new-tokens", "4"]
    whole = [*asking, "--out", str(tmp_path / "whole")]
    assert cli.main(whole) == 0
    replies = tmp_path / "whole/evaluation/tiny.predictions.jsonl"
    rows = [json.loads(line) for line in replies.read_text().splitlines()[1:]]
    ids = {"t_vocdigits": ["000005", "000007"], "s_strids": ["0001", "0002"]}[name]
    assert [row["image_id"] for row in rows] == ids

    # The same again, from the replies that are there; then the file of replies by itself.
    assert cli.main(whole) == 0
    assert cli.main(["eval", "--predictions", str(replies), "--data", str(DATA / name)]) == 0

    # In two shards and a call that merges them: the same result.
    sharded = [*asking, "--out", str(tmp_path / "sharded")]
    for shard in ("1/2", "2/2"):
        assert cli.main([*sharded, "--shard", shard]) == 0
    assert cli.main(sharded) == 0
    assert (tmp_path / "sharded/evaluation/tiny.predictions.jsonl").read_bytes() == replies.read_bytes()
    assert (
        cli.main(
            ["compare", str(tmp_path / "whole/evaluation/tiny.json"), str(tmp_path / "sharded/evaluation/tiny.json")]
        )
        == 0
    )
    assert "Traceback" not in capsys.readouterr().err
