"""What two papers claim, tried again on data that comes in packages: ``python -m benchmarks.papers``."""
