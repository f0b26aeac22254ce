"""Reports: benchmarks and their recorded runs."""
