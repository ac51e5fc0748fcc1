"""The compiled decode step against the eager one: traced as one graph and run as it is, and once compiled."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from support.eager_policy import SAMPLED, SEEDS, SIZES, EagerToEnd
from support.more_shapes import build_by_name
from support.random_models import make_prompts, sharpen
from visionr1.errors import RecipeError, TrainingError
from visionr1.models.adapters import attach
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rollout.compiled import CompiledDecoder
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Completion, Sampling
from visionr1.rollout.settings import RolloutSection
from visionr1.training.distributed import Trained
from visionr1.training.learners import make_learner
from visionr1.training.recipe import Recipe

NARROW = replace(SAMPLED, temperature=0.8, top_p=0.9, top_k=20)
GREEDY = replace(SAMPLED, temperature=0.0)


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def load(folder: Path) -> Policy:
    return EagerToEnd(sharpen(load_policy(folder)))


def traced(policy: Policy) -> tuple[CompiledDecoder, CompileCounterWithBackend]:
    """A decoder whose graphs are counted, and run operation by operation."""
    counter = CompileCounterWithBackend("eager")
    return CompiledDecoder(policy, counter), counter


def check_same(policy: Policy, decoder: CompiledDecoder, sampling: Sampling = NARROW) -> list[list[int]]:
    """Tokens and log-probabilities are the eager decoder's; the tokens."""
    prompts = make_prompts(policy, SIZES)
    eager, compiled = (flat(engine(policy, prompts, sampling, SEEDS)) for engine in (generate, decoder))
    assert [one.token_ids.tolist() for one in compiled] == [one.token_ids.tolist() for one in eager]
    assert [one.truncated for one in compiled] == [one.truncated for one in eager]
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=0)
    return [one.token_ids.tolist() for one in compiled]


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [one for group in groups for one in group]


def test_replies_are_those_of_the_eager_decoder_in_every_family(model_folder: Path) -> None:
    policy = load(model_folder)
    decoder, counter = traced(policy)
    lengths = {len(ids) for ids in check_same(policy, decoder)}
    assert len(lengths) > 3  # rows ended at different times
    assert counter.frame_count == 1


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["whole distribution", "greedy"])
def test_replies_are_those_of_the_eager_decoder(qwen25_folder: Path, sampling: Sampling) -> None:
    policy = load(qwen25_folder)
    check_same(policy, traced(policy)[0], sampling)


def test_an_update_of_the_weights_compiles_nothing(qwen25_folder: Path) -> None:
    policy = load(qwen25_folder)
    attach(policy.model, LoRASection(rank=2), seed=0, base="base")
    decoder, counter = traced(policy)
    before = check_same(policy, decoder)
    optimizer = torch.optim.SGD([p for p in policy.model.parameters() if p.requires_grad], lr=1.0)
    for parameter in policy.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.02) if parameter.requires_grad else None
    optimizer.step()
    assert check_same(policy, decoder) != before
    assert counter.frame_count == 1


def test_what_torch_s_own_modules_are_is_not_asked_at_every_token(qwen25_folder: Path) -> None:
    policy = load(qwen25_folder)
    decoder, counter = traced(policy)
    check_same(policy, decoder)
    for module in policy.model.modules():
        if isinstance(module, nn.Linear):
            module.requires_grad_(False)  # who asks, compiles anew
    check_same(policy, decoder)
    assert counter.frame_count == 1


def test_rows_and_columns_take_few_sizes_at_addresses_that_stay(
    qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(qwen25_folder)
    decoder, counter = traced(policy)
    monkeypatch.setattr(CompiledDecoder, "block", 8)
    shapes, memory = [], decoder.memory

    def seen(place: int, shape: tuple[int, ...], room: int, like: Tensor) -> Tensor:
        part = memory(place, shape, room, like)
        shapes.append((place, shape[0], shape[2], part.data_ptr()))
        return part

    monkeypatch.setattr(decoder, "memory", seen)
    for _ in range(2):
        check_same(policy, decoder)

    # Parts of branches come first, then those of the three prompts.
    num_parts = 2 * len(policy.decoder.layers)
    rows, columns = ({shape[axis] for shape in shapes if shape[0] < num_parts} for axis in (1, 2))
    assert rows >= {18, 16, 8}
    assert rows <= {18, 16, 8, 4, 2}
    assert len(columns) > 1
    assert {shape[1] for shape in shapes if shape[0] >= num_parts} == {3}
    assert not any(shape[2] % 8 for shape in shapes)
    assert len({(place, address) for place, *_, address in shapes}) == len({place for place, *_ in shapes})
    assert counter.frame_count == 1


def test_it_holds_under_autocast(qwen3_folder: Path) -> None:
    policy = load(qwen3_folder)
    policy.model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_same(policy, traced(policy)[0])


def test_it_holds_inside_ddp(qwen25_folder: Path) -> None:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        policy = load(qwen25_folder)
        decoder, counter = traced(policy)
        trained = DistributedDataParallel(Trained(policy.model))
        with torch.no_grad():
            first = trained(check_same, policy, decoder)
            for parameter in trained.parameters():
                parameter.mul_(1.1)
            assert trained(check_same, policy, decoder) != first
        assert counter.frame_count == 1
    finally:
        destroy_process_group()


class Breaking(Policy):
    """A policy that cannot be one graph."""

    def logits(self, hidden: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        torch._dynamo.graph_break()
        return super().logits(hidden, temperature=temperature, suppress=suppress)


def test_a_graph_break_is_an_error(qwen25_folder: Path) -> None:
    loaded = load_policy(qwen25_folder)
    policy = Breaking(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.dialect, loaded.path)
    with pytest.raises(TrainingError, match=r"cannot be compiled: .*graph_break.*rollout\.compile = false"):
        traced(policy)[0](policy, make_prompts(policy, SIZES), GREEDY)


def test_without_a_compiler_it_is_said_what_to_install(qwen25_folder: Path) -> None:
    policy = load_policy(qwen25_folder)
    missing = {"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}
    message = pytest.raises(TrainingError, match=r"cannot be compiled: .*apt install g\+\+")
    with torch._inductor.config.patch(missing), message:
        CompiledDecoder(policy)(policy, make_prompts(policy, SIZES), GREEDY)


def test_the_recipe_asks_for_it(qwen3_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(rollout=RolloutSection(compile=True))
    learner = make_learner(load_policy(qwen3_folder), recipe, lambda: load_policy(qwen3_folder))
    assert isinstance(learner.engine, CompiledDecoder)  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match=r"^compile: expected false"):
        RolloutSection(compile=True, engine="vllm")
    halves = ModelSection(dtype="bfloat16", autocast="bfloat16")
    assert recipe.with_changes(model=halves).model is halves
    with pytest.raises(RecipeError, match=r'model\.dtype: expected "bfloat16" where rollout\.compile .*found float32'):
        recipe.with_changes(model=ModelSection(autocast="bfloat16"))
    plain = load_policy(build_by_name(tmp_path / "llava", qwen3_folder, "llava"))
    with pytest.raises(RecipeError, match=r"rollout\.compile: expected false for models of type 'llava'"):
        make_learner(plain, recipe, lambda: plain)


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler is installed")
def test_compiled_for_real(qwen3_folder: Path) -> None:
    policy = load(qwen3_folder)
    check_same(policy, CompiledDecoder(policy))
