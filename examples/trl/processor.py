"""A Qwen-VL processor for images alone: transformers' own needs torchvision, for videos that nobody asks about here."""

from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available


class ImageProcessor(Qwen2_5_VLProcessor):
    """`Qwen2_5_VLProcessor` without its video processor."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls):
        """The parts of which this processor is made."""
        return ["image_processor", "tokenizer"]


def load_processor(model: str):
    """The model's processor; without torchvision, one for images of Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(model, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(model, trust_remote_code=False)
    return ImageProcessor(image_processor, tokenizer, tokenizer.chat_template)
