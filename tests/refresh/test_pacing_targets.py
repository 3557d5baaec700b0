"""The pacing's targets in the simulation."""

import itertools
import statistics

import pytest

from tests.support.pacing_simulation import (
    JITTERS,
    LEARNED,
    MODELS,
    SEEDS,
    exporters,
    late_exporter,
    simulate,
    with_script,
)

pytestmark = pytest.mark.untraced


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


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_margin_finds_it_in_minutes_also_where_requests_start_late(model: str, jitter: float) -> None:
    """Being late is a margin, too: the other is small then, and a share of it too little to grow by."""
    runs = [simulate(late_exporter, model, seed, LEARNED + 300, jitter=jitter) for seed in SEEDS]
    assert mean([run.used(since=LEARNED) for run in runs]) >= 1 / (1 + jitter) - 0.005


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
