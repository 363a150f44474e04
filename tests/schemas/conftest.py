"""Settings of property tests."""

from hypothesis import settings

# Kernels are compiled in the first example that calls them, and CI's machines are shared: time proves nothing here.
settings.register_profile("spanmill", deadline=None)
settings.load_profile("spanmill")
