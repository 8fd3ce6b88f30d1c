import pytest

from modbench import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "n/a"),
        (0, "0 ns"),
        (1.234, "1.23 s"),
        (0.0456, "45.6 ms"),
        (0.9996, "1000 ms"),
        (7.89e-6, "7.89 µs"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds(seconds, text):
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "n/a"), (512, "512 B"), (1.5 * 2**20, "1.50 MiB"), (2**30 * 12, "12.0 GiB"), (2**40, "1.00 TiB")],
)
def test_bytes(count, text):
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "n/a"), (1.776, "1.78×"), (0.951, "0.95×"), (12.34, "12.3×"), (0.01234, "0.0123×"), (0, "0×")],
)
def test_factors(ratio, text):
    assert units.format_factor(ratio) == text


@pytest.mark.parametrize(
    ("share", "text"), [(None, "n/a"), (0.11, "11 %"), (0.0044, "0.4 %"), (0, "0 %"), (1.0, "100 %"), (0.0996, "10 %")]
)
def test_percents(share, text):
    assert units.format_percent(share) == text


@pytest.mark.parametrize(("rate", "text"), [(None, "n/a"), (1778.2, "1,778 tok/s"), (9.994, "9.99 tok/s")])
def test_rates(rate, text):
    assert units.format_rate(rate) == text


def test_durations():
    assert [units.format_duration(value) for value in (8, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [(1, 1), (1_000_000, 1_000_000), ("512 MiB", 2**29), ("8 GiB", 2**33), ("1.5GiB", 3 * 2**29), ("1 TiB", 2**40)],
)
def test_sizes_are_read_as_users_write_them(written, num_bytes):
    assert units.parse_bytes(written) == num_bytes


@pytest.mark.parametrize(
    "written",
    [0, -1, True, 1.5, None, "8", "8 GB", "8 gib", "9" * 400 + " GiB", "0 GiB", "-1 GiB", " 1 GiB", "1 GiB x"],
)
def test_other_sizes_are_refused_with_what_is_expected(written):
    with pytest.raises(ValueError, match="expected a size such as 8 GiB or 512 MiB, or an integer of bytes"):
        units.parse_bytes(written)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1h0m5s", 3605), ("120m", 7200)],
)
def test_times_that_users_write(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "0s", "0h0m", "1.5h", "-5m", "5m1h", "10 m", "10min", "m", "10m ", "١m", "9999999s"]
)
def test_other_times_are_refused_with_the_units(text):
    with pytest.raises(ValueError, match="h, m and s, such as 90s, 10m or 1h30m"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "n/a"),
        (1.042, "+4.2 %"),
        (0.958, "-4.2 %"),
        (1.0, "0 %"),
        (1.0009, "+0.090 %"),
        (1.00096, "+0.1 %"),
        (0.99999, "-0.0010 %"),
        (1 + 1e-9, "+0.0000 %"),
        (1 + 2e-16, "0 %"),
        (3.0, "+200.0 %"),
        (101.0, "+10000 %"),
        (0.0, "-100.0 %"),
    ],
)
def test_changes(ratio, text):
    assert units.format_change(ratio) == text


def test_intervals_of_changes():
    assert units.format_change_interval((0.995, 1.055)) == "[-0.5, +5.5]"


@pytest.mark.parametrize(
    ("text", "share"),
    [("3%", 0.03), ("3 %", 0.03), ("0.03", 0.03), ("2.5%", 0.025), (".5", 0.5), ("0", 0.0), ("99.9%", 0.999)],
)
def test_shares_as_users_write_them(text, share):
    assert units.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    ["", "%", "3", "100%", "-3%", "nan", "inf", "1e-2", "3 percent", "3%%", "3. %", "٣%", " 3%", "9" * 40, "0x1"],
)
def test_other_texts_are_no_shares(text):
    with pytest.raises(ValueError, match=r"expected a share such as 3% or 0\.03"):
        units.parse_share(text)
