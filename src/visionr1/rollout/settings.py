"""The section of a recipe that says how completions are sampled."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from visionr1.rollout.engines import ENGINES
from visionr1.settings import Expected, Section, refuse

BY_VLLM = ("vllm", "vllm_server")


class RolloutSection(Section):
    """Sampling a group of completions of each sample."""

    group_size: Annotated[int, Field(ge=2), Expected("2 or more (one completion has no group to be compared with)")] = 4
    """G, completions of one sample."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """A completion that reaches it without an end counts as truncated."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the policy, in sampling and in every log-probability alike."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most probable tokens that hold this mass; 1 is all."""
    top_k: Annotated[int, Field(ge=0), Expected("0 (all) or more")] = 0
    """Sample from so many most probable tokens; 0 is all."""
    engine: str = "builtin"
    """"vllm" samples with vLLM in this process, "vllm_server" by a vLLM server (docs/vllm.md); "my_file.py:NAME" with
    an engine of your own (docs/extending.md). Evaluation during training is by "vllm" too, and else by the built-in
    one."""
    compile: bool = False
    """Compile the built-in engine's decode step (see visionr1.rollout.compiled): needs a C++ compiler, keeps the memory
    of keys and values between steps, and is not for float32 weights under model.autocast, which it would cast at every
    token: set model.dtype = "bfloat16". Evaluation during training decodes without."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the GPU's memory that vLLM takes for its copy of the weights and its cache."""
    vllm_sleep: bool = False
    """Let vLLM give its memory back after each rollout, for the update; its weights and cache are built anew for the
    next one. On a GPU alone."""
    server: Annotated[str, Field(pattern=r"^(https?://[^\s@]+)?$"), Expected('"http://host:port"')] = ""
    """Where the server of engine = "vllm_server" is. Its key comes from the environment (VLLM_API_KEY)."""
    server_weights: str = ""
    """Folder through which weights go to the server, under one path for both; empty: by NCCL, from GPU to GPU."""
    server_timeout: Annotated[float, Field(gt=0), Expected("more than 0")] = 1800.0
    """Seconds that a request to the server may take."""
    batch_size: Annotated[int, Field(ge=0), Expected("0 (all) or more")] = 0
    """Samples at once, of a process; 0 is all of its share. Fewer take less memory and draw the same replies."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if ":" not in self.engine and self.engine not in ENGINES:
            raise refuse("engine", f"one of {', '.join(ENGINES)}, or module:object", self.engine)
        if self.engine == "vllm" and self.compile:
            raise refuse("compile", "false (vLLM compiles by itself)", self.compile)
        if self.engine != "builtin" and self.compile:
            raise refuse("compile", "false (it compiles the built-in engine's decode step)", self.compile)
        if self.engine in BY_VLLM:
            self._check_vllm()
        if self.engine != "vllm" and self.vllm_sleep:
            raise refuse("vllm_sleep", 'false (it is for engine = "vllm")', self.vllm_sleep)
        self._check_server()

        # A file that is not there is found out now, and not once the model is loaded.
        if ":" in self.engine:
            ENGINES.resolve(self.engine)  # raises RecipeError
        return self

    def _check_vllm(self) -> None:
        if not 0.01 <= self.temperature <= 2:
            raise refuse("temperature", "a number from 0.01 to 2, as vLLM takes it", self.temperature)
        if self.batch_size:
            raise refuse("batch_size", "0 (vLLM sees to it by itself)", self.batch_size)

    def _check_server(self) -> None:
        if self.engine == "vllm_server" and not self.server:
            raise refuse("server", '"http://host:port", where the server of engine = "vllm_server" is', "none")
        if self.engine != "vllm_server":
            for key in ("server", "server_weights"):
                if getattr(self, key):
                    raise refuse(key, 'nothing (it is for engine = "vllm_server")', getattr(self, key))
        if self.server_weights and not Path(self.server_weights).is_absolute():
            raise refuse("server_weights", "a path from the root, the same for the server", self.server_weights)
