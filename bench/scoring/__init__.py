"""From responses to verdicts: strict and official scoring, prediction files, the judge."""
