"""Budgets as users write them, against a dense model of 4 G MACs and 40 M parameters."""

from __future__ import annotations

from typing import Any

import pytest

from autoprune.config.settings import BudgetSettings
from autoprune.errors import BudgetError, ConfigError
from autoprune.graph import Cost
from autoprune.run._resolving.budget_amounts import check_amounts, read_limit, resolve_budget

DENSE = Cost(4_000_000_001, 40_000_000, latency_ms=8.0, size_bytes=160_000_000, peak_memory_bytes=200_000_000)


@pytest.mark.parametrize(
    ("settings", "macs", "params"),
    [
        (BudgetSettings(flops="50%"), 2_000_000_000, None),
        (BudgetSettings(macs="50%"), 2_000_000_000, None),
        (BudgetSettings(macs="2.05G"), 2_050_000_000, None),
        (BudgetSettings(flops="2.05G"), 1_025_000_000, None),
        (BudgetSettings(macs=20_000_000), 20_000_000, None),
        (BudgetSettings(macs="20 m"), 20_000_000, None),
        (BudgetSettings(params="5M"), None, 5_000_000),
        (BudgetSettings(params="12.5%"), None, 5_000_000),
        (BudgetSettings(macs="1,500,000", params=2e6), 1_500_000, 2_000_000),
        (BudgetSettings(macs="30%", flops="20%"), 800_000_000, None),
    ],
)
def test_amounts_become_absolute_limits(
    settings: BudgetSettings, macs: int | None, params: int | None
) -> None:
    budget = resolve_budget(settings, DENSE)
    assert (budget.limits.get("macs"), budget.limits.get("params")) == (macs, params)


@pytest.mark.parametrize(
    ("latency", "milliseconds"),
    [("4 ms", 4.0), ("3.5ms", 3.5), ("60%", 4.8), ("1500 us", 1.5), ("1500µs", 1.5), ("0.002 s", 2.0)],
)
def test_a_latency_is_a_time_or_a_share(latency: str, milliseconds: float) -> None:
    budget = resolve_budget(BudgetSettings(latency=latency, params="50%"), DENSE)
    assert budget.limits["latency_ms"] == pytest.approx(milliseconds)
    assert budget.limits.keys() == {"params", "latency_ms"}


@pytest.mark.parametrize(
    ("size", "limit"),
    [("50%", 80_000_000), ("5 MB", 5_000_000), ("5M", 5_000_000), ("512 KiB", 2**19), ("0.1 GB", 10**8)],
)
def test_memory_is_counted_in_bytes(size: str, limit: int) -> None:
    assert resolve_budget(BudgetSettings(size=size), DENSE).limits == {"size_bytes": limit}
    assert resolve_budget(BudgetSettings(peak_memory=size), DENSE).limits["peak_memory_bytes"] == (
        100_000_000 if size == "50%" else limit
    )


def test_an_objective_without_a_limit_may_be_as_high_as_the_dense_model() -> None:
    budget = resolve_budget(BudgetSettings(params="50%"), DENSE, ("macs", "params"))
    assert budget.limits == {"macs": 4_000_000_001, "params": 20_000_000}
    assert resolve_budget(BudgetSettings(), DENSE, ("latency_ms",)).limits == {"latency_ms": 8.0}


@pytest.mark.parametrize(
    ("name", "text", "most"),
    [
        ("flops", "40%", 0.4 * 4_000_000_001),
        ("flops", "2G", 1e9),
        ("macs", "2G", 2e9),
        ("macs", "200%", 8_000_000_002),
        ("latency", "3ms", 3.0),
        ("latency", "25%", 2.0),
        ("size", "10MB", 1e7),
        ("peak_memory", "10%", 2e7),
    ],
)
def test_the_most_that_a_trial_may_cost(name: str, text: str, most: float) -> None:
    limit = read_limit(name, text, {key: float(value) for key, value in DENSE.known().items()})
    assert limit.most == pytest.approx(most)
    assert limit.is_share == text.endswith("%")
    assert limit.key.option == f"--{name}".replace("_", "-")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("flops", "many", r"--flops: got 'many', expected a share such as \"50%\""),
        ("peak_memory", "5 ms", r"--peak-memory: got '5 ms'"),
        ("latency", "40%", r"--latency: got '40%', but the dense model's cost is not known\. Write e\.g"),
        ("flop", "40%", r'limits: unknown cost "flop"\. Did you mean "flops"'),
    ],
)
def test_a_wrong_limit_gets_one_clear_line(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_limit(name, text, {"macs": 1.0, "peak_memory_bytes": 1.0})


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (BudgetSettings(), ConfigError, r"no limit is given"),
        (BudgetSettings(flops="half"), ConfigError, r"budget\.flops: got 'half', expected a share"),
        (BudgetSettings(flops="50 km"), ConfigError, r"budget\.flops: got '50 km'"),
        (BudgetSettings(macs=0.5), ConfigError, r'less than one\. Write a share as "50%"'),
        (BudgetSettings(macs=True), ConfigError, r"budget\.macs: got True"),
        (BudgetSettings(macs=-3), ConfigError, r"budget\.macs: got -3"),
        (BudgetSettings(latency=4), ConfigError, r'latency: got 4, expected a share .* such as "4 ms"'),
        (BudgetSettings(latency="4 M"), ConfigError, r"budget\.latency: got '4 M'"),
        (
            BudgetSettings(latency="0 ms"),
            BudgetError,
            r"budget\.latency: got '0 ms', expected more than 0 and less than the dense model's own",
        ),
        (
            BudgetSettings(latency="9 ms"),
            BudgetError,
            r"not below the dense model's 8 ms \(as measured\)\. Set a lower limit",
        ),
        (
            BudgetSettings(macs="100%"),
            BudgetError,
            r"budget\.macs: got '100%', expected more than 0 and less than",
        ),
        (BudgetSettings(params="0%"), BudgetError, r"budget\.params: got '0%', expected more than 0"),
        (BudgetSettings(macs="5G"), BudgetError, r"5,000,000,000 MACs, expected at least 1 and less than"),
        (BudgetSettings(flops=1), BudgetError, r"budget\.flops: 1 is 1 FLOPs, expected at least 2"),
    ],
)
def test_a_wrong_budget_gets_one_clear_line(
    settings: BudgetSettings, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        resolve_budget(settings, DENSE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["flops", "macs", "params", "latency", "size", "peak_memory"])
@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ("0%", r"got '0%', expected more than 0 and less than the dense model's own"),
        ("0.000%", r"got '0\.000%', expected more than 0"),
        ("101%", r"got '101%', expected more than 0 and less than the dense model's own"),
        (f"{'9' * 5000}%", r"got '9{30,100}\.\.\.9+%', expected a share"),
        (f"{'9' * 5000} M", r"got '9{30,100}\.\.\.9+ M', expected a share"),
        pytest.param(10**5000, r"got an integer of 16610 bits, expected a share", id="large"),
        ("inf", r"got 'inf', expected a share"),
        (float("nan"), r"got nan, expected a share"),
        ("-1", r"got '-1', expected a share"),
        ("\u0661%", r"got '\u0661%', expected a share"),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_what_no_model_can_keep_to_is_refused_without_one(key: str, amount: Any, message: str) -> None:
    with pytest.raises((BudgetError, ConfigError), match=rf"^budget\.{key}: {message}") as caught:
        check_amounts(BudgetSettings(**{key: amount}))
    assert len(str(caught.value)) < 400


def test_what_is_malformed_is_refused_without_a_model() -> None:
    with pytest.raises(BudgetError, match=r"budget\.latency: got '0 ms'"):
        check_amounts(BudgetSettings(latency="0 ms"))
    check_amounts(BudgetSettings(flops="50%"))
    with pytest.raises(ConfigError, match=r"budget\.flops: got 'abc', expected a share"):
        check_amounts(BudgetSettings(flops="abc"))
    with pytest.raises(ConfigError, match="no limit is given"):
        check_amounts(BudgetSettings())
    check_amounts(BudgetSettings(), required=False)
    with pytest.raises(ConfigError, match=r"budget\.latency: got '4 M'"):
        check_amounts(BudgetSettings(flops="25%", latency="4 M"))


def test_a_budget_out_of_reach_is_answered_in_the_users_key_and_unit() -> None:
    budget = resolve_budget(BudgetSettings(flops="1%", params="20M"), DENSE)
    assert budget.out_of_reach("macs", 66_000_000) == (
        "budget.flops: 1% asks for 80,000,000 FLOPs, but 132,000,000 FLOPs is the smallest reachable here: "
        "ask for at least 1.7%"
    )
    told = budget.out_of_reach("params", 30_010_000)
    assert "budget.params: 20M asks for 20,000,000 parameters" in told
    assert "ask for at least 30.1M (" in told


def test_bytes_out_of_reach_are_answered_in_bytes() -> None:
    told = resolve_budget(BudgetSettings(size="1 MB"), DENSE).out_of_reach("size_bytes", 1_234_000)
    assert told == (
        "budget.size: 1 MB asks for 1,000,000 bytes, but 1,234,000 bytes is the smallest reachable here: "
        "ask for at least 1.24 MB (0.8%)"
    )
    again = resolve_budget(BudgetSettings(size="1.24 MB"), DENSE)
    assert again.limits["size_bytes"] == 1_240_000


def test_a_latency_out_of_reach_is_answered_in_milliseconds() -> None:
    budget = resolve_budget(BudgetSettings(latency="2 ms"), DENSE)
    assert budget.out_of_reach("latency_ms", 2.5161) == (
        "budget.latency: 2 ms asks for 2 ms, but 2.516 ms is the smallest reachable here: "
        "ask for at least 2.52 ms (31.5%)"
    )
