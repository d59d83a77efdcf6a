"""Options of several rewards at once."""

import pytest

from bestofn.errors import ConfigError
from bestofn.rewards.base import share

REWARDS = {"flip": "flip", "mine-0.5": "flip", "pointwise": "pointwise", "first": "first"}


def test_an_option_is_for_each_reward_that_takes_it() -> None:
    shares = share({"samples": 4, "similarity": "rouge_l"}, REWARDS)
    assert shares["flip"] == shares["mine-0.5"] == {"samples": 4, "similarity": "rouge_l"}
    assert shares["pointwise"] == {"samples": 4}
    assert shares["first"] == {}


def test_an_option_of_one_reward_wins() -> None:
    shares = share({"mine-0.5.samples": 2, "samples": 4}, REWARDS)
    assert [shares[label].get("samples") for label in REWARDS] == [4, 2, 4, None]


def test_options_that_a_reward_passes_on_are_for_it_alone() -> None:
    shares = share({"dtype": "float32", "max_tokens": 9}, {"flip": "flip", "scalar": "scalar"})
    assert shares == {"flip": {"max_tokens": 9}, "scalar": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("sample", "no reward (flip, mine-0.5, pointwise, first) has an option 'sample'; did you"),
        ("first.samples", "no reward (first) has an option 'samples'; known are none"),
        ("listwise.samples", "no reward is called 'listwise', as in listwise.samples; there are"),
    ],
)
def test_an_option_that_no_reward_takes_is_refused(option: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        share({option: 1}, REWARDS)
    assert sentence in str(caught.value)


def test_an_option_without_any_reward_is_refused() -> None:
    with pytest.raises(ConfigError, match="name the reward as well"):
        share({"samples": 1}, {})
