"""Draw docs/images/tiny_loss.png from a run of recipes/tiny.toml: python docs/images/tiny_loss.py RUN/metrics.jsonl"""

import json
import sys
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
figure, axes = plt.subplots(figsize=(7, 3), dpi=110)
start = 0
for name, phase in groupby(rows, key=lambda row: row["phase"]):
    loss = np.array([row["loss"] for row in phase])
    if len(loss) < 40:
        start += len(loss)
        continue
    smooth = np.convolve(loss, np.ones(40) / 40, mode="valid")
    axes.plot(start + 20 + np.arange(len(smooth)), smooth, label=name)
    start += len(loss)
axes.set(xlabel="step", ylabel="loss per token (mean of 40 steps)", ylim=(0.7, 2.0))
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
figure.savefig(Path(__file__).with_name("tiny_loss.png"))
