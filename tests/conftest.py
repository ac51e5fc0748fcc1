from hypothesis import settings

settings.register_profile("visionr1", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("visionr1")
