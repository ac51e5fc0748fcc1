"""A family of an installed package: the file that docs/extending.md shows, against transformers' own forward pass."""

from pathlib import Path

import pytest
import torch

from support.extending import guide_file
from support.more_shapes import build_by_name
from support.random_models import make_prompts, plain_logprobs, random_completions, sharpen
from visionr1.models.families import FAMILIES
from visionr1.models.loading import load_policy
from visionr1.models.rows import make_groups
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines.builtin import generate


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the guide's file as a package with an entry point."""
    module = guide_file("A model family", tmp_path).stem
    info = tmp_path / "my_families-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-families\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[visionr1.model_family]\nllava = {module}:FAMILY\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(FAMILIES, "_loaders", None)  # look again


@pytest.mark.usefixtures("installed")
def test_its_models_share_prefixes_exactly(tmp_path: Path, qwen3_folder: Path) -> None:
    policy = sharpen(load_policy(build_by_name(tmp_path / "llava", qwen3_folder, "llava")))
    assert policy.path.packs_rows
    prompts = make_prompts(policy, [(120, 80), (80, 160)])
    completions = random_completions(policy, [[5, 9], [3, 12]])
    alone = [
        plain_logprobs(policy, prompt, completion)
        for prompt, row in zip(prompts, completions, strict=True)
        for completion in row
    ]
    shared = policy.token_logprobs(policy.path.pack(make_groups(prompts, completions)))
    torch.testing.assert_close(shared, torch.cat(alone), atol=1e-5, rtol=0)

    groups = generate(policy, prompts, Sampling(num_completions=2, max_new_tokens=6), [(1,), (2,)])
    rows = policy.path.pack(make_groups(prompts, [[reply.token_ids for reply in group] for group in groups]))
    sampled = torch.cat([reply.logprobs for group in groups for reply in group])
    torch.testing.assert_close(policy.token_logprobs(rows), sampled, atol=1e-4, rtol=0)
