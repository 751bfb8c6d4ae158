"""What a person sees while work runs and when an evaluation has ended."""
