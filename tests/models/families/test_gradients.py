"""A family says rightly whether each of its weights has a gradient: DDP stops at the second step if it is wrong."""

from pathlib import Path

from support.griffon_release import build_griffon
from support.random_models import make_prompts, random_completions
from visionr1.models.loading import load_policy
from visionr1.models.rows import make_groups


def weights_without_gradient(folder: Path) -> tuple[bool, set[str]]:
    """Return if the family says that there are none, and those that there are after a backward pass."""
    policy = load_policy(folder)
    prompts = make_prompts(policy, [(120, 80)])
    rows = policy.path.pack(make_groups(prompts, random_completions(policy, [[5, 9]])))
    policy.token_logprobs(rows).sum().backward()
    missing = {name for name, weight in policy.model.named_parameters() if weight.grad is None}
    return policy.path.uses_all_weights, missing


def test_families_that_ship(model_folder: Path) -> None:
    says_all, missing = weights_without_gradient(model_folder)
    assert says_all == (not missing)


def test_griffon_reads_no_last_layer_of_its_tower(tmp_path: Path) -> None:
    says_all, missing = weights_without_gradient(build_griffon(tmp_path / "qwen2", "qwen2"))
    assert not says_all
    assert {name.split(".")[2] for name in missing} == {"encoder", "post_layernorm"}
    assert all(".layers.2." in name for name in missing if "encoder" in name)
