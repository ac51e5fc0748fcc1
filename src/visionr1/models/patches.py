"""Patch embeddings as matrix products: what a vision tower's convolution does to single patches.

Towers that take images of any size are fed patches that the processor has cut already, and embed them by a convolution
whose kernel covers a whole patch. That is a matrix product, which is many times faster than the convolution on a CPU.
Axis letters: N patches, C channels, L the numbers of one patch, D width.
"""

from types import MethodType

from torch import Tensor, nn


def multiply_patches(model: nn.Module) -> None:
    """Let each three-dimensional convolution in `model` whose kernels lie side by side embed patches by a product."""
    for module in model.modules():
        if not isinstance(module, nn.Conv3d) or module.groups != 1:
            continue
        side_by_side = module.stride == module.kernel_size and module.padding == (0, 0, 0)
        if side_by_side and module.dilation == (1, 1, 1):
            module.forward = MethodType(embed_patches, module)  # type: ignore[method-assign]


def embed_patches(convolution: nn.Conv3d, patches: Tensor) -> Tensor:
    """Return the convolution (N, D, 1, 1, 1) of `patches` (N, C, *kernel); larger inputs go through it as ever.

    Takes the place of the convolution's `forward`.
    """
    if patches.shape[2:] != convolution.kernel_size:
        return nn.Conv3d.forward(convolution, patches)
    embedded = nn.functional.linear(patches.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return embedded[..., None, None, None]
