"""Experiments: what a selector is worth, measured on prompts with known verdicts."""
