"""The prefix cache returns the right keys and values, and never more than it may hold."""

import random

import torch

from bestofn.engines.hf.kv import BLOCK, BatchKV, Layers, PrefixCache, block_keys


def layers_of(ids: tuple[int, ...]) -> Layers:
    """Keys and values that spell the tokens, so that a mix-up shows."""
    keys = torch.tensor(ids, dtype=torch.float32)[None, :, None].repeat(2, 1, 3)
    return [(keys, -keys), (keys + 0.5, keys * 2)]


def put(cache: PrefixCache, ids: tuple[int, ...]) -> None:
    keys = block_keys(ids)
    cache.insert(ids, keys, cache.match(ids, keys, len(ids)), layers_of(ids))


def assert_spells(layers: Layers, ids: tuple[int, ...]) -> None:
    for (keys, values), (wanted_keys, wanted_values) in zip(layers, layers_of(ids), strict=True):
        torch.testing.assert_close(keys, wanted_keys)
        torch.testing.assert_close(values, wanted_values)


def test_whole_blocks_are_found_again() -> None:
    cache = PrefixCache(1000)
    ids = tuple(range(40))
    put(cache, ids)
    found = cache.match(ids, block_keys(ids), len(ids))
    assert found.tokens == 32
    assert_spells(found.layers(), ids[:32])
    longer = ids[:20] + (99,) * 20
    assert cache.match(longer, block_keys(longer), 40).tokens == 16
    other = (7, *ids[1:])
    assert cache.match(other, block_keys(other), 40).tokens == 0


def test_match_respects_its_limit() -> None:
    cache = PrefixCache(1000)
    ids = tuple(range(48))
    put(cache, ids)
    assert cache.match(ids, block_keys(ids), 47).tokens == 32
    assert cache.match(ids, block_keys(ids), 15).tokens == 0


def test_a_longer_sequence_keeps_only_its_new_blocks() -> None:
    cache = PrefixCache(1000)
    ids = tuple(range(64))
    for length in (16, 32, 64):
        put(cache, ids[:length])
    assert cache.tokens == 64
    found = cache.match(ids, block_keys(ids), 64)
    assert [n for _, n in found.spans] == [16, 16, 32]
    assert_spells(found.layers(), ids)


def test_random_use_stays_right_and_within_capacity() -> None:
    rng, cache = random.Random(0), PrefixCache(10 * BLOCK)
    sequences = []
    for _ in range(300):
        stem = (
            rng.choice(sequences)[: rng.randrange(80)] if sequences and rng.random() < 0.7 else ()
        )
        ids = (*stem, *(rng.randrange(50) for _ in range(rng.randrange(1, 60))))
        sequences.append(ids)
        put(cache, ids)
        assert cache.tokens <= cache.capacity
        probe = rng.choice(sequences)
        found = cache.match(probe, block_keys(probe), len(probe))
        if found.tokens:
            assert_spells(found.layers(), probe[: found.tokens])


def test_rows_survive_shifts_moves_and_growth() -> None:
    """A batch of rows that join, move and shift holds each row's own keys throughout."""
    kv = BatchKV(2, spare=1)
    first, second, third = (1, 2, 3), (4, 5), (6, 7, 8, 9, 10)
    kv.set_rows(0, [layers_of(first), layers_of(second)])
    kv.set_rows(2, [layers_of(third)])
    assert kv.columns == 5
    for row, ids in enumerate([first, second, third]):
        assert_spells(kv.row(row, 5 - len(ids), 5), ids)
    kv.move(torch.tensor([0]), torch.tensor([2]))
    assert_spells(kv.row(0, 0, 5), third)
    for index, layer in enumerate(kv.layers):
        keys, values = layers_of((11,))[index]
        layer.update(keys[None].repeat(2, 1, 1, 1), values[None].repeat(2, 1, 1, 1))
    assert_spells(kv.row(0, 0, 6), (*third, 11))
    assert_spells(kv.row(1, 3, 6), (*second, 11))
    kv.shift(-3, live=2)
    assert_spells(kv.row(1, 0, 3), (*second, 11))
    kv.shift(4, live=2)
    assert_spells(kv.row(1, 4, 7), (*second, 11))
