"""The training loops for SFT and RL, the writing of traces, and their states, metrics and guards."""
