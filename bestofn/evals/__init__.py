"""Evaluations of rewards: RewardBench 2 and the audit of attacks."""
