"""The benchmarks: reading, importing, verifying and auditing their records."""
