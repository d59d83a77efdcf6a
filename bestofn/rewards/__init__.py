"""Rewards: what says how good a candidate is."""

from bestofn.rewards.base import load_reward, needs_engine
from bestofn.scoring import RewardModel

__all__ = ["RewardModel", "load_reward", "needs_engine"]
