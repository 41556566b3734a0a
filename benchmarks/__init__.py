"""Programs that measure cost against precision: ``python -m benchmarks``."""
