"""The sections of a recipe that say which model trains, and which of its weights."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from visionr1.dialects import resolve_dialect
from visionr1.settings import Expected, ListOrOne, Section, refuse


class ModelSection(Section):
    """The model that training starts from, and its precision."""

    path: str = "tiny"
    """A transformers folder, "tiny" (the model that ships) or "tiny-random" (it, untrained)."""
    dialect: str = ""
    """How the model writes boxes: the name of a dialect, or of your own, "my_dialect.py:DIALECT" (see
    docs/extending.md); empty is as its folder or its type says."""
    template: str = ""
    """What the model is asked, with {} where the categories stand; empty is the dialect's own instruction. It is stored
    with the trained model, and holds for evaluations during training unless eval.protocol has a template."""
    max_pixels: Annotated[int, Field(ge=0), Expected("0 (as the folder says) or more")] = 0
    """The most pixels of an image that the model is fed, whatever its family (docs/models.md); 0 is as its folder says.
    It is stored with the trained model. Engines that read the folder themselves (vLLM) need it in the folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights in memory; the optimizer keeps what trains in float32 all the same."""
    quantization: Literal["none", "nf4"] = "none"
    """"nf4" rounds the language model to 4 bits a weight when it is loaded, for adapters to train on (QLoRA; needs
    lora.rank, and bitsandbytes)."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Precision of the matrix products over float32 weights."""
    device: str = "cpu"
    """"cpu", "cuda", "cuda:1"."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights in final/; checkpoints always keep the precision in memory."""
    freeze_vision: bool = False
    """Train the language model alone; each image then goes through the vision tower once a step."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone for the gradient and compute the rest again: less memory, slower."""
    offload_activations: bool = False
    """Keep these inputs of layers in the CPU's memory until the backward pass; needs gradient_checkpointing."""
    offload_reference: bool = False
    """Keep the reference model, where grpo.beta needs one of its own, in the CPU's memory but for its pass of a
    step."""

    @field_validator("dialect")
    @classmethod
    def _check_dialect(cls, dialect: str) -> str:
        if dialect:
            resolve_dialect(dialect)  # raises RecipeError
        return dialect

    @model_validator(mode="after")
    def _check_checkpointing(self) -> Self:
        if self.offload_activations and not self.gradient_checkpointing:
            expected = "true where offload_activations is: it keeps the inputs of layers alone"
            raise refuse("gradient_checkpointing", expected, "false")
        return self

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        if self.template and "{}" not in self.template:
            raise refuse("template", "{} where the categories stand", repr(self.template))
        return self


class LoRASection(Section):
    """Adapters that train in place of the model's own weights."""

    rank: Annotated[int, Field(ge=0), Expected("0 (no adapters) or more")] = 0
    """Rank of the adapters; 0 has none and trains the model's own weights."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Their output counts alpha / rank times."""
    targets: ListOrOne[str] = ()
    """Names of the linear layers that get one, such as "q_proj"; none is every one in a layer."""
    vision: bool = False
    """Give the vision tower adapters too; without, it is frozen (see model.freeze_vision)."""
