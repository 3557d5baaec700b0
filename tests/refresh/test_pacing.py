"""The pacing's arithmetic; its targets are in test_pacing_targets.py."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.refresh.pacing import PROBE_AFTER, RELEARN_AFTER, Pacer


def pacer(interval: float = 1.0) -> Pacer:
    return Pacer(interval, random.Random(1))


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


def test_an_answer_takes_little_of_the_margin_back_and_less_once_it_was_found_too_small() -> None:
    p = pacer()
    p.refused(0.0)
    p.accepted()
    assert p.spacing == pytest.approx(1 + 0.06 * 0.985)
    for _ in range(6):
        p.accepted()
    margin = p.spacing - 1
    p.refused(0.0)
    assert p.spacing == pytest.approx(1 + 1.2 * margin)
    for _ in range(100):
        p.accepted()
    assert p.spacing == pytest.approx(1 + 1.2 * margin, abs=0.001)


def test_a_margin_that_is_small_grows_by_two_thousandths_of_the_interval() -> None:
    p = pacer(2.0)
    p.refused(0.0)
    while p.spacing > 2.004:
        p.accepted()
    before = p.spacing
    p.refused(0.0)
    assert p.spacing == pytest.approx(before + 0.004)


def test_a_margin_that_was_found_decays_quickly_again_after_half_an_hour_without_refusals() -> None:
    """A burst of late packets may have made it large."""
    p = pacer()
    for _ in range(2):  # too small once
        p.refused(0.0)
        for _ in range(6):
            p.accepted()
    quiet = 6 * p.spacing
    while quiet < RELEARN_AFTER - 100:
        p.accepted()
        quiet += p.spacing
    margin = p.spacing - 1
    assert margin > 0.05
    while quiet < RELEARN_AFTER + 200:
        p.accepted()
        quiet += p.spacing
    assert p.spacing - 1 < 0.2 * margin


def test_a_request_after_a_refusal_is_shifted_by_half_an_interval_once() -> None:
    p = pacer(0.5)
    p.started(100.0)
    p.refused(100.1)
    assert 100 + p.spacing + 0.2 <= p.earliest <= 100 + p.spacing + 0.25
    p.started(105.0)
    assert p.earliest == 105 + p.spacing


def test_refusals_in_a_row_widen_the_spacing_the_first_five_times() -> None:
    p, spacings = pacer(), []
    for _ in range(10):
        p.refused(0.0)
        spacings.append(p.spacing)
    assert spacings[:3] == pytest.approx([1.06, 1.072 * 1.04, 1.0864 * 1.08])
    assert spacings[4:] == pytest.approx([1.10368 * 1.16] * 6)


def test_an_answer_takes_a_little_of_the_contention_back_and_none_of_the_margin() -> None:
    p = pacer()
    p.refused(0.0)
    p.refused(0.0)
    for _ in range(10):
        p.accepted()
    assert p.spacing == pytest.approx(1.072 * (1.04 - 10 * 0.0012))


@pytest.mark.parametrize("interval", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("answers", "lone"), [(5, False), (6, True)])
def test_a_refusal_is_lone_six_intervals_after_the_one_before(
    interval: float, answers: int, lone: bool
) -> None:
    p = pacer(interval)
    p.refused(0.0)
    for _ in range(answers):
        p.accepted()
    margin = 0.06 * 0.985**answers * 1.2
    p.refused(0.0)
    assert p.spacing == pytest.approx(interval * (1 + margin) * (1.0 if lone else 1.04))


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
    for _ in range(400):
        p.accepted()
    assert p.spacing == 1.0, "and the margin, too"


def test_a_refusal_of_a_probe_restores_the_spacing() -> None:
    p = contended()
    before = p.spacing
    while p.spacing > 1.5:
        p.accepted()
    p.refused(0.0)
    assert p.spacing == pytest.approx(before, abs=0.1)


def test_a_refusal_at_the_end_of_a_probe_may_come_from_jitter() -> None:
    def spacing_refused_below(spacing: float) -> float:
        p = contended()
        while p.spacing >= spacing:
            p.accepted()
        p.refused(0.0)
        return p.spacing

    assert spacing_refused_below(1.15) > 1.01 * spacing_refused_below(1.6)


def test_retry_after_is_honoured_up_to_a_minute() -> None:
    p = pacer()
    p.started(10.0)
    p.refused(10.1, retry_after=7)
    assert p.earliest == pytest.approx(17.1)
    p.refused(20.0, retry_after=3600)
    assert p.earliest == 80.0


def test_sixteen_refusals_in_a_row_are_an_outage_and_requests_rare_while_it_lasts() -> None:
    p = pacer(2.0)
    for _ in range(2):
        outages = []
        for _ in range(16):
            p.refused(0.0)
            outages.append(p.outage)
        assert outages == [False] * 15 + [True]
        p.started(100.0)
        assert 2 * 4.05 <= p.spacing <= 2 * 4.3
        assert p.earliest == 100 + p.spacing
        p.accepted()
        assert p.outage is False


def test_the_first_answer_after_an_outage_restores_the_spacing() -> None:
    p = pacer()
    p.started(0.0)
    for _ in range(200):
        p.refused(0.0)
    p.accepted()
    assert p.earliest == p.spacing == pytest.approx(1 + 0.10368 * 0.985)


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
