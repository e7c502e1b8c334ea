"""The examples that hypothesis tries: the same everywhere, however slow the machine is; ``make fuzz`` tries others."""

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
