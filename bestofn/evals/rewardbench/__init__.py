"""RewardBench 2: does a reward find the right one of four responses?

Source: arXiv 2506.01937; the table of arXiv 2602.13551 is over four of its subsets.
"""
