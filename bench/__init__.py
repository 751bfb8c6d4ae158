"""The suite around the trainer: benchmarks, matrices of ablations, statistics and reports."""
