"""What a selector is worth at every N, from a pool of M candidates a prompt; with intervals."""

from bestofn.estimators.balanced import Pairs, balanced, pair_shares
from bestofn.estimators.choices import Choices, Flags, Rule, evenly, expected_choices, highest
from bestofn.estimators.expected import (
    best_of_n,
    expected_cost,
    failure_rate,
    kl_upper_bound,
    tie_rate,
)
from bestofn.estimators.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_pools,
    gain_percent,
    interval,
    known_interval,
    resampled_stratum_means,
    stratum_means,
    unpaired_difference,
)
from bestofn.estimators.votes import expected_votes, vote

__all__ = [
    "Choices",
    "Flags",
    "Interval",
    "Pairs",
    "Rule",
    "balanced",
    "best_of_n",
    "bootstrap_mean",
    "bootstrap_pools",
    "evenly",
    "expected_choices",
    "expected_cost",
    "expected_votes",
    "failure_rate",
    "gain_percent",
    "highest",
    "interval",
    "kl_upper_bound",
    "known_interval",
    "pair_shares",
    "resampled_stratum_means",
    "stratum_means",
    "tie_rate",
    "unpaired_difference",
    "vote",
]
