"""Matrix files: checked, planned, run stage by stage, and read back as tables."""
