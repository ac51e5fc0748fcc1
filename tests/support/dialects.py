"""Every dialect that ships, plain and with a thought before the answer."""

from visionr1.dialects import dialect_names, get_dialect

ALL_DIALECTS = {name: get_dialect(name) for name in dialect_names()}
