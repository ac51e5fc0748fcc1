"""OpenRLHF's own agent executor, in an environment with what it imports: it loads the plug-in file and calls it.

The image goes through OpenRLHF's processor path, so the query it hands over holds the expanded image tokens. The engine
that would sample is replaced by one that returns the cases' completions (vLLM needs a GPU).
"""

import asyncio
import importlib.metadata
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf.utils.agent import SingleTurnAgentExecutor
from PIL import Image

from cases import PARTS, check, load_cases

MODEL, WORK, PLUGIN = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
sys.path.insert(0, str(Path(PLUGIN).parents[1] / "trl"))

from processor import load_processor  # noqa: E402  (examples/trl/processor.py)

VERSION = importlib.metadata.version("openrlhf")


class Engine:
    """Answers with the tokens of one text."""

    def __init__(self, token_ids):
        self.token_ids = token_ids

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        assert multi_modal_data["image"][0].size == (64, 48)
        output = SimpleNamespace(token_ids=self.token_ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def execute(executor, processor, completion, label, image):
    """One rollout, as OpenRLHF's rollout worker asks for it."""
    content = [{"type": "image"}, {"type": "text", "text": "Locate"}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    tokens = processor.tokenizer.encode(completion + "<|im_end|>", add_special_tokens=False)
    sampling = SimpleNamespace(max_tokens=1024, logprobs=None)
    return asyncio.run(executor.execute(prompt, label, sampling, 4096, processor, Engine(tokens), images=[image]))


def main():
    processor = load_processor(MODEL)
    image = str(WORK / "image.png")
    Image.new("RGB", (64, 48)).save(image)
    advanced = WORK / "advanced.py"
    advanced.write_text(
        Path(PLUGIN).read_text().replace("make_reward_func()", "make_reward_func(step=0.5, progress=1.0)")
    )
    for stage, plugin in (("beginner", PLUGIN), ("advanced", str(advanced))):
        executor = SingleTurnAgentExecutor(remote_rm_url=[plugin])
        cases = load_cases(stage)
        outputs = [execute(executor, processor, case["completion"], case["ground_truth"], image) for case in cases]
        totals = [output["reward"] for output in outputs]
        check(cases, totals, {part: [output["extra_logs"][part] for output in outputs] for part in PARTS})
        scores = [round(output["scores"], 3) for output in outputs]
        print(f"OpenRLHF {VERSION}: SingleTurnAgentExecutor, {stage} stage: rewards {totals}, scores {scores}")
    logging.getLogger("visionr1").setLevel(logging.CRITICAL)
    swallowed = execute(executor, processor, "[]", "no ground truth", image)
    assert swallowed["reward"] is None
    print(f"OpenRLHF {VERSION}: a bad ground truth raised in the reward is swallowed: reward {swallowed['reward']}")


if __name__ == "__main__":
    main()
