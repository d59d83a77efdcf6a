"""What adaptive N and early rejection would choose and spend, told from stored pools."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from bestofn.analysis.costs import Prices, drawing_price, drawing_seconds, price
from bestofn.analysis.proxies import DRAWING, Array, parts, scores_of
from bestofn.dataset.pools import cut_name
from bestofn.errors import ConfigError
from bestofn.rejection import EarlyRejection
from bestofn.stopping import ExpectedGain
from bestofn.types import Candidate, Pool, Score, Usage

ORDERS = 64  # random ones of each prompt's candidates, by default
ROUND = 4  # candidates that are drawn at once with adaptive N, as in `SelectConfig`


@dataclass(frozen=True, slots=True)
class Drawing:
    """How candidates are drawn: in rounds until another is not worth it, the worst ended early."""

    score: str
    cost: float | None = None  # what a candidate has to gain, see `ExpectedGain`; None draws all N
    round_size: int = ROUND
    reject: EarlyRejection | None = None


def drawing_of(proxy: str) -> Drawing | None:
    """What "adaptive=COST:SCORE", "adaptive=COST/ROUND:SCORE" or "reject=32/64/0.5:SCORE" says.

    With the last, candidates are looked at after 32 and 64 tokens and half are kept each time. A
    proxy can name both. Returns None if it names neither.

    Raises:
        ConfigError: a rule's values make no sense, or no score follows.
    """
    rules, score = parts(proxy)
    values = {name: value for name, _, value in (rule.partition("=") for rule in rules)}
    if not values.keys() & set(DRAWING):
        return None
    if score is None or values.keys() - set(DRAWING) or len(values) < len(rules):
        raise ConfigError(f"{proxy!r}: name each rule of drawing once, before a score")
    found = Drawing(score)
    try:
        if "adaptive" in values:
            cost, _, size = values["adaptive"].partition("/")
            found = replace(found, cost=float(cost), round_size=int(size or ROUND))
            ExpectedGain(float(cost))
        if "reject" in values:
            *at, keep = values["reject"].split("/")
            rejection = EarlyRejection(tuple(map(int, at)), float(keep))
            found = replace(found, reject=rejection)
    except ConfigError as error:
        raise ConfigError(f"{proxy!r}: {error}") from None
    except ValueError:
        forms = "adaptive=COST, adaptive=COST/ROUND and reject=TOKENS/TOKENS/KEEP"
        raise ConfigError(f"{proxy!r}: rules of drawing are {forms}, in numbers") from None
    if found.round_size < 1:
        raise ConfigError(f"{proxy!r}: a round has at least 1 candidate")
    return found


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is chosen and spent, `[prompts, ns]`; the error of `values` is `[ns]`."""

    values: Array  # of the chosen candidate, its expectation
    failures: Array  # share of the orders in which no score is known
    ties: Array
    generated: Array  # tokens
    scored: Array  # tokens that the scoring model computes
    money: Array  # NaN where the usage is not known
    seconds: Array  # to the last whole score, without those of beginnings; NaN as money
    error: Array  # Monte Carlo standard error


def draw_early(
    pools: Sequence[Pool],
    drawing: Drawing,
    truth: Sequence[Sequence[float]],
    ns: Sequence[int] | None = None,
    *,
    prices: Prices | None = None,
    orders: int = ORDERS,
    seed: int = 0,
) -> Drawn:
    """Simulates a rule of drawing on pools, in random orders of each prompt's candidates.

    What `EarlyRejection` decides follows from the scores of beginnings, "SCORE@TOKENS", and
    `ExpectedGain` has the scores of the other prompts as its prior. A candidate that is rejected
    counts as many tokens as it had then; in a run it has a few more, which are written while its
    score is being computed. A score is computed as in a cache that holds what it held for the whole
    response; a later one of the same response computes what its prompt has more than the one
    before, and what it scores or generates.

    Args:
        pools: One for each prompt.
        drawing: The rule.
        truth: `[prompts][M]`, how good a candidate is.
        ns: The most candidates of a prompt, each from 1 to its M; None is all, a single column.
        prices: Of tokens.
        orders: How many for each prompt, the same for every rule with the same seed.
        seed: Of the orders.

    Raises:
        ConfigError: a pool lacks the scores, or the number of tokens of its candidates.
    """
    rng = np.random.default_rng(seed)
    scores = [scores_of(pool, drawing.score) for pool in pools]
    columns = 1 if ns is None else len(ns)
    found, variance = np.zeros((7, len(pools), columns)), np.zeros(columns)
    for place, pool in enumerate(pools):
        stop, size = None, len(pool.candidates)
        if drawing.cost is not None:
            others = [score for row in scores[:place] + scores[place + 1 :] for score in row]
            stop = ExpectedGain(drawing.cost, prior=others or scores[place])
        prompt, values = _Prompt(pool, drawing, stop, prices or {}), np.asarray(truth[place])
        shuffled = rng.random((orders, size)).argsort(axis=1)
        for column, n in enumerate([size] if ns is None else ns):
            exact = n == 1 or (n == size and stop is None)
            wanted = shuffled[:, :n]
            if exact:  # each once, or all of them at once, which are the same in any order
                wanted = np.arange(size).reshape(-1, n)
            runs = np.array([prompt.run(order.tolist(), values) for order in wanted])
            found[:, place, column] = runs.mean(axis=0)
            if not exact:
                variance[column] += runs[:, 0].var(ddof=1) / len(runs)
    values, failures, ties, generated, scored, money, seconds = found
    error = np.sqrt(variance) / len(pools)
    return Drawn(values, failures, ties, generated, scored, money, seconds, error)


class _Prompt:
    """One prompt's candidates, and what they take up to each checkpoint."""

    def __init__(
        self, pool: Pool, drawing: Drawing, stop: ExpectedGain | None, prices: Prices
    ) -> None:
        self.stop, self.reject, self.prices = stop, drawing.reject, prices
        self.round_size = drawing.round_size if stop else len(pool.candidates)
        self.candidates, self.score = pool.candidates, drawing.score
        self.values = scores_of(pool, self.score)
        at = self.reject.at if self.reject else ()
        self.beginnings = {n: scores_of(pool, cut_name(self.score, n)) for n in at}
        self.tokens = [_tokens(pool, candidate) for candidate in pool.candidates]
        # Of equal responses the first one bears the cost, whichever of them is drawn.
        self.texts = [(c.error, c.text) for c in pool.candidates]
        self.paid_by = {text: i for i, text in reversed([*enumerate(self.texts)])}

    def run(self, order: list[int], truth: Array) -> tuple[float, ...]:
        """One order's row of `Drawn`."""
        drawn: list[int] = []
        whole: list[bool] = []
        spent, known = np.zeros(4), set[object]()
        while len(drawn) < len(order):
            part = order[len(drawn) : len(drawn) + self.round_size]
            ends, cost = self._race(part, known)
            drawn += part
            whole += [end is None for end in ends]
            spent += cost
            values = [self.values[i] if w else nan for i, w in zip(drawn, whole, strict=True)]
            if self.stop is not None and self.stop.stops(values)[-1]:
                break
        best = max((value for value in values if not isnan(value)), default=nan)
        chosen = [i for i, value in zip(drawn, values, strict=True) if value == best]
        among = chosen or [i for i, w in zip(drawn, whole, strict=True) if w] or drawn
        return float(truth[among].mean()), not chosen, len(chosen) > 1, *spent

    def _race(self, part: list[int], known: set[object]) -> tuple[list[int | None], Array]:
        """Where each ends early, None where it does not, and what the round takes.

        That is generated tokens, scored tokens, money and seconds. `known` are the texts that have
        a score.
        """
        ends: dict[int, int | None] = dict.fromkeys(part)
        before = dict.fromkeys(part, 0)
        spent = np.zeros(4)
        for at, values in self.beginnings.items():
            running = [i for i in part if ends[i] is None and self.tokens[i] > at]
            if self.reject is None or not self.reject.ends_any(len(running)):
                continue
            kept = self.reject.kept([values[i] for i in running])
            for index, goes_on in zip(running, kept, strict=True):
                spent[1:3] += self._scoring(index, before[index], at)
                before[index], ends[index] = at, None if goes_on else at
        for index, end in ends.items():
            written = self.tokens[index] if end is None else end
            candidate = self.candidates[index]
            seconds = drawing_seconds(candidate) * written / max(self.tokens[index], 1)
            if end is None:
                seconds += candidate.scores[self.score].usage.seconds
                if self.texts[index] not in known:
                    known.add(self.texts[index])
                    spent[1:3] += self._scoring(index, before[index], None)
            spent[0] += written
            spent[2] += drawing_price(candidate, self.prices, written)
            spent[3] = np.maximum(spent[3], seconds)  # NaN stays
        return [*ends.values()], spent

    def _whole(self, index: int) -> Score:
        return self.candidates[self.paid_by[self.texts[index]]].scores[self.score]

    def _scoring(self, index: int, before: int, at: int | None) -> tuple[float, float]:
        """Tokens and money of the score of the first `at` tokens, after one of the first `before`.

        None is the whole response, 0 no score.
        """
        scores, whole = self.candidates[index].scores, self._whole(index).usage
        usage = whole if at is None else scores[cut_name(self.score, at)].usage
        own = usage.scored_tokens + usage.generated_tokens
        # What the whole response's request has more is saved.
        computed = max(whole.computed_tokens - (_asked(whole) - _asked(usage)), own)
        if before:
            known = scores[cut_name(self.score, before)].usage.prompt_tokens
            computed = min(computed, max(usage.prompt_tokens - known, 0) + own)
        cached = min(max(_asked(usage) - computed, 0), usage.prompt_tokens)
        cost = price(replace(usage, cached_tokens=cached, repeated_tokens=0), self.prices)
        return computed, cost


def _asked(usage: Usage) -> int:
    """Tokens of its requests, cached or not."""
    return usage.prompt_tokens + usage.scored_tokens + usage.generated_tokens


def _tokens(pool: Pool, candidate: Candidate) -> int:
    if candidate.error is not None:
        return 0
    if candidate.token_count is None:
        raise ConfigError(
            f"candidate {candidate.index} of prompt {pool.prompt.id!r} has no token count, without "
            "which nothing is known of ending it early"
        )
    return candidate.token_count
