"""Synthetic scenes: endless samples with exact boxes, a function of seed and index alone.

`SceneStream(seed, SceneConfig(...))[i]` is always the same sample. A scene holds objects of several shapes, colours,
sizes and textures on a textured background, with clutter and with objects that are not asked for, in one of two
families: `shapes` (few kinds of anything anywhere) and `cells` (many alike, touching, cut off by the border). Every box
is measured on the drawn pixels: it is the tightest around all that the object would show if nothing lay over it.

`HELD_OUT_SHAPE`, `HELD_OUT_TEXTURE` and `HELD_OUT_PAIRS` are drawn only where a config asks for them: training never
does.

A scene can be asked for all or some of its categories, for one, for what an expression with attributes, extremes and
relations means (`grammar`), and in words (`questions`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visionr1.data.scenes.asking import ask_scene
from visionr1.data.scenes.config import SceneConfig
from visionr1.data.scenes.layout import Scene, draw_cells, draw_shapes
from visionr1.samples import Sample

__all__ = ["SceneConfig", "SceneStream"]


@dataclass(frozen=True, slots=True)
class SceneStream:
    """Endless samples; indexing is the only access."""

    seed: int | tuple[int, ...]
    config: SceneConfig = SceneConfig()  # noqa: RUF009, it is frozen

    def __getitem__(self, index: int) -> Sample:
        """Return scene `index`: an RGB image in memory, a query, and the boxes of what it asks for, or the answer."""
        rng = np.random.default_rng((*np.atleast_1d(self.seed).tolist(), index))
        scene = Scene(rng, self.config)
        if rng.random() < self.config.cells:
            draw_cells(scene)
        else:
            draw_shapes(scene)
        return ask_scene(f"scene-{index}", scene)
