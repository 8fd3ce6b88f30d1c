"""Three counts of one cache: what differs is named, and what has no name is a doubt."""

from modbench.analysis.kv_cache import differences, unexplained

MIB = 2**20


def values(expected=None, occupied=None, allocated=None, allocator=None):
    return {
        "kv_cache_expected_bytes": expected,
        "kv_cache_bytes": occupied,
        "kv_cache_allocated_bytes": allocated,
        "kv_cache_allocator_bytes": allocator,
    }


def test_agreement_is_said_and_no_doubt():
    found = values(100 * MIB, 100 * MIB, 105 * MIB, 105 * MIB + 340)
    assert differences(found) == [
        "occupied as the formula",
        "5.0 % growth slack and token indices",
        "the allocator agrees",
    ]
    assert unexplained(found) == []


def test_a_cache_without_slack_says_so():
    assert "no slack" in differences(values(occupied=MIB, allocated=MIB))


def test_bytes_that_the_kept_tokens_do_not_need_are_a_doubt():
    found = values(100 * MIB, 180 * MIB, 180 * MIB)
    assert differences(found)[0] == "occupied 80.0 MiB more than the formula"
    assert unexplained(found) == ["KV cache: occupied 80.0 MiB more than the kept tokens need"]


def test_memory_that_no_buffer_accounts_for_is_a_doubt():
    found = values(100 * MIB, 100 * MIB, 100 * MIB, 150 * MIB)
    assert unexplained(found) == ["KV cache: the allocator holds 50.0 MiB more than its live buffers"]
    found = values(100 * MIB, 100 * MIB, 100 * MIB, 60 * MIB)
    assert unexplained(found) == ["KV cache: the allocator holds 40.0 MiB less than its live buffers"]


def test_what_was_not_measured_is_not_compared():
    assert differences(values()) == []
    assert differences(values(expected=MIB, allocator=MIB)) == []
    assert unexplained(values(expected=MIB, allocator=MIB)) == []
