"""Checking that a vLLM server fits the policy, before anything is trained."""

from pathlib import Path
from typing import Annotated, Any

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, Field

from visionr1.errors import RecipeError
from visionr1.models.policy import Policy
from visionr1.models.settings import ModelSection
from visionr1.rollout.settings import RolloutSection
from visionr1.rollout.vllm.opening import (
    check_biases,
    has_states,
    precision,
    resizes_by_pil,
    states_normalization,
)
from visionr1.rollout.vllm.server import FAQ, Server

VERSIONS = ">=0.32,<0.34"
"""Versions of vLLM whose server has what is asked of it: generation from token ids, and versions of weights."""
PROBE = 'Find every "cat" 123 [{"bbox_2d": [0, 45, 678, 999], "label": "caf\u00e9 \u732b"}]\n<box>'
"""Text that a tokenizer of another model splits otherwise."""


class Version(BaseModel):
    """The answer of /version."""

    version: str


class ServedModel(BaseModel):
    """One model of /v1/models."""

    id: str
    max_model_len: int


class ServedModels(BaseModel):
    """The answer of /v1/models."""

    data: Annotated[list[ServedModel], Field(min_length=1)]


class Tokens(BaseModel):
    """The answer of /tokenize."""

    tokens: list[int]


class Info(BaseModel):
    """The answer of /server_info: vLLM's configuration as it resolved it."""

    vllm_config: dict[str, Any]

    def setting(self, *keys: str) -> Any:
        """Return a setting by its keys from the outermost, or None where there is none."""
        value: Any = self.vllm_config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def check_server(server: Server, policy: Policy, model: ModelSection, rollout: RolloutSection) -> int:
    """Return the most tokens that the server reads at once, if it serves the policy's model as training needs it.

    Raises RecipeError for a setting that it was started with, and TrainingError if it cannot be talked to.
    """
    version = server.read(server.get("/version"), Version, "/version").version
    if not SpecifierSet(VERSIONS).contains(version, prereleases=True):
        raise _misfit(server, f"is vLLM {version}, expected {VERSIONS}")

    # The model, by what an answer depends on.
    models = server.read(server.get("/v1/models"), ServedModels, "/v1/models").data
    served = models[0]
    body = {"model": served.id, "prompt": PROBE, "add_special_tokens": False}
    tokens = server.read(server.post("/tokenize", body), Tokens, "/tokenize").tokens
    if tokens != policy.tokenizer.encode(PROBE, add_special_tokens=False):
        raise _misfit(server, f"has another tokenizer than {policy.model.name_or_path}: it serves {served.id}")

    path = "/server_info?config_format=json"
    _check_settings(server, server.read(server.get(path), Info, path), policy, model, rollout)
    return served.max_model_len


def _check_settings(server: Server, info: Info, policy: Policy, model: ModelSection, rollout: RolloutSection) -> None:
    """Raise RecipeError for a setting that changes what is sampled, or ends the server later."""
    needed: dict[tuple[str, ...], tuple[object, str]] = {
        ("model_config", "dtype"): (f"torch.{precision(model)}", f"--dtype {precision(model)}"),
        ("model_config", "logprobs_mode"): ("processed_logprobs", "--logprobs-mode processed_logprobs"),
    }
    if resizes_by_pil(policy):
        needed["model_config", "multimodal_config", "mm_processor_kwargs", "use_fast"] = (
            False,
            """--mm-processor-kwargs '{"use_fast": false}'""",
        )
    if not states_normalization(Path(policy.model.name_or_path)):
        needed["model_config", "multimodal_config", "mm_device_do_normalize"] = (
            False,
            "--no-mm-device-do-normalize",
        )
    if not rollout.server_weights:
        needed["weight_transfer_config", "backend"] = ("nccl", """--weight-transfer-config '{"backend": "nccl"}'""")
    on_cpu = info.setting("device_config", "device") == "cpu"
    if on_cpu:
        # A prompt that is split over two steps cannot have a seed there.
        needed["scheduler_config", "enable_chunked_prefill"] = (False, "--no-enable-chunked-prefill")
        if has_states(policy):
            needed["cache_config", "enable_prefix_caching"] = (False, "--no-enable-prefix-caching")

    for keys, (expected, flag) in needed.items():
        value = info.setting(*keys)
        if value != expected:
            raise _misfit(server, f"has {'.'.join(keys)} = {value!r}, expected {expected!r}: start it with {flag}")
    images = info.setting("model_config", "multimodal_config", "limit_per_prompt", "image", "count")
    if images == 0 or info.setting("model_config", "multimodal_config") is None:
        raise _misfit(server, """takes no images: start it with --limit-mm-per-prompt '{"image": 1, "video": 0}'""")
    if on_cpu and policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight:
        raise _misfit(
            server,
            "runs on a CPU, where vLLM keeps the old output layer of a model that shares it with the embedding, as "
            'this one does; use engine = "vllm" or "builtin"',
        )
    check_biases(policy, on_cpu=on_cpu)


def _misfit(server: Server, problem: str) -> RecipeError:
    return RecipeError(f"rollout.server: the vLLM server at {server.url} {problem} ({FAQ})")
