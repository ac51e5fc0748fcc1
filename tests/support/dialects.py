"""Every dialect that ships, forms of JSON that a user may name, and some with a thought before the answer."""

from visionr1.dialects import DIALECTS, get_dialect

FORMS = ("json:key=bbox,order=yxyx,grid=image", "json:key=Position,grid=1,label=name")
THINKING = ("qwen25", "qwen3", "internvl", "griffon", "rex", "gemini")

ALL_DIALECTS = {name: get_dialect(name) for name in (*DIALECTS, *FORMS)}
ALL_DIALECTS |= {
    f"{thought}{name}": get_dialect(f"{thought}{name}") for thought in ("think+", "open-think+") for name in THINKING
}
