"""Ids: what RFC 9562 says they look like, made by hand as there are some for each request."""

import random
import uuid

from core.clock import new_id, new_ordered_id


def test_a_random_id_is_what_the_standard_library_would_make_of_the_same_bits():
    ours, theirs = random.Random(5), random.Random(5)
    for _ in range(1000):
        assert new_id(ours) == str(uuid.UUID(int=theirs.getrandbits(128), version=4))


def test_an_ordered_id_is_a_sound_uuid_and_sorts_by_its_time():
    rng = random.Random(5)
    made = [new_ordered_id(rng, 1_790_000_000_000 + ms) for ms in range(1000)]
    assert made == sorted(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    assert uuid.UUID(made[7]).int >> 80 == 1_790_000_000_007


def test_ordered_ids_of_one_moment_differ():
    rng = random.Random(5)
    assert len({new_ordered_id(rng, 0) for _ in range(10_000)}) == 10_000
