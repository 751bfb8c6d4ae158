"""The SFT and RL loops with their checkpoints, metrics and guards."""
