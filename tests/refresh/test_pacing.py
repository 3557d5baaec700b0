"""The pacing's arithmetic, and its targets in the simulation."""

import itertools
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.refresh.pacing import PROBE_AFTER, Pacer
from tests.support.pacing_simulation import (
    JITTERS,
    LEARNED,
    MODELS,
    SEEDS,
    exporters,
    simulate,
    with_script,
)


def pacer(interval: float = 1.0) -> Pacer:
    return Pacer(interval, random.Random(1))


def mean(values: list[float]) -> float:
    return statistics.mean(values)


@pytest.mark.parametrize("model", MODELS)
def test_a_lone_exporter_uses_the_budget(model: str) -> None:
    runs = [simulate(exporters(1), model, seed) for seed in SEEDS]
    assert min(run.used() for run in runs) >= 0.95
    assert max(run.refused() for run in runs) <= 0.02


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_margin_finds_the_size_of_the_jitter(model: str, jitter: float) -> None:
    """Within half a point of what spacing alone can do, and little less while it learns."""
    runs = [simulate(exporters(1), model, seed, jitter=jitter) for seed in SEEDS]
    best = 1 / (1 + jitter)
    assert mean([run.used(since=LEARNED) for run in runs]) >= best - 0.005
    assert mean([run.used() for run in runs]) >= best - 0.006


@pytest.mark.parametrize("model", MODELS)
def test_two_exporters_share_one_key(model: str) -> None:
    runs = [simulate(exporters(2), model, seed) for seed in SEEDS]
    assert mean([run.used() for run in runs]) >= 0.75
    assert mean([run.refused() for run in runs]) <= 0.12
    assert min(run.used() for run in runs) >= 0.60
    assert min(run.fairness() for run in runs) >= 0.40


@pytest.mark.parametrize("model", MODELS)
def test_none_of_three_exporters_on_one_key_starves(model: str) -> None:
    runs = [simulate(exporters(3), model, seed) for seed in SEEDS]
    assert min(run.used() for run in runs) >= 0.45
    assert min(run.fairness() for run in runs) >= 0.25


@pytest.mark.parametrize("model", MODELS)
def test_requests_become_rare_in_an_outage_and_recover_after_it(model: str) -> None:
    for seed in SEEDS:
        run = simulate(exporters(1), model, seed, refuse=(300, 420))
        during = [at for at, _ in run.times[0] if 330 < at < 420]
        assert len(during) <= 90 / 4
        assert max(b - a for a, b in itertools.pairwise(during)) <= 60
        assert run.used(since=420 + 120) >= 0.95


@pytest.mark.parametrize("model", MODELS)
def test_the_budget_is_used_again_after_a_script_that_ignores_refusals_stops(model: str) -> None:
    runs = [simulate(with_script(until=900), model, seed) for seed in SEEDS]
    assert min(run.used(since=900 + 180, client=0) for run in runs) >= 0.95


def test_the_first_request_may_start_at_once() -> None:
    assert pacer().earliest == float("-inf")


def test_requests_are_spaced_from_start_to_start() -> None:
    p = pacer(1.5)
    p.started(100.0)
    assert p.earliest == 101.5


def test_spacing_counts_from_when_the_request_was_sent() -> None:
    p = pacer()
    p.started(100.0)
    p.sent(100.25)
    assert p.earliest == 101.25


def test_a_lone_refusal_adds_a_margin_that_decays() -> None:
    p = pacer()
    p.refused(0.0)
    assert 1.0 < p.spacing < 1.1
    for _ in range(400):
        p.accepted()
    assert p.spacing == 1.0


def test_refusals_in_quick_succession_widen_the_spacing() -> None:
    p = pacer()
    for _ in range(30):
        p.refused(0.0)
        p.accepted()
    assert p.spacing > 1.5


def contended() -> Pacer:
    p = pacer()
    for _ in range(30):
        p.refused(0.0)
        p.accepted()
    return p


def test_the_spacing_falls_after_a_time_without_refusals() -> None:
    p, quiet = contended(), 0.0
    while p.spacing > 1.9:
        assert quiet < PROBE_AFTER + 20
        quiet += p.spacing
        p.accepted()
    for _ in range(60):
        p.accepted()
    assert p.spacing < 1.15


def test_a_refusal_of_a_probe_restores_the_spacing() -> None:
    p = contended()
    before = p.spacing
    while p.spacing > 1.5:
        p.accepted()
    p.refused(0.0)
    assert p.spacing == pytest.approx(before, abs=0.1)


def test_retry_after_is_honoured_up_to_a_minute() -> None:
    p = pacer()
    p.started(10.0)
    p.refused(10.1, retry_after=7)
    assert p.earliest == pytest.approx(17.1)
    p.refused(20.0, retry_after=3600)
    assert p.earliest == 80.0


def test_the_first_answer_after_an_outage_restores_the_spacing() -> None:
    p = pacer()
    for _ in range(200):
        p.refused(0.0)
    assert p.outage
    assert p.spacing >= 4.0
    p.accepted()
    assert p.spacing < 1.15
    assert p.earliest < 1.15


@given(
    interval=st.floats(0.01, 60),
    events=st.lists(st.tuples(st.sampled_from(["start", "accept", "refuse"]), st.floats(0, 30))),
)
def test_the_spacing_is_never_less_than_the_interval_nor_without_bound(
    interval: float, events: list[tuple[str, float]]
) -> None:
    p, now = pacer(interval), 0.0
    for event, passed in events:
        now += passed
        if event == "start":
            now = max(now, p.earliest)
            p.started(now)
            assert p.earliest >= now + interval
        elif event == "accept":
            p.accepted()
        else:
            p.refused(now)
        assert interval <= p.spacing <= 6 * interval
        assert p.earliest <= now + 7 * interval
