"""Lines that are written by a thread: all of them, in order, and never at the cost of who writes them."""

from __future__ import annotations

import io
import threading

import pytest

from exporter.output import MAX_PENDING, LineWriter

SOON = 10.0


class Pipe(io.StringIO):
    """A stream that takes nothing while nobody reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.read_by_somebody = threading.Event()
        self.full = threading.Event()

    def write(self, text: str) -> int:
        self.full.set()
        assert self.read_by_somebody.wait(SOON)
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    pipe.read_by_somebody.set()
    writer = LineWriter(lambda: pipe)
    for number in range(1000):
        writer.write(str(number))
    assert writer.flush(SOON)
    assert pipe.lines == [str(number) for number in range(1000)]


def test_lines_of_several_threads_are_all_written_whole(pipe: Pipe) -> None:
    pipe.read_by_somebody.set()
    writer = LineWriter(lambda: pipe)

    def write(name: str) -> None:
        for number in range(500):
            writer.write(f"{name} {number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(SOON)
    assert sorted(pipe.lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(500))


def test_what_finds_no_room_is_lost_and_counted_where_it_would_have_been(pipe: Pipe) -> None:
    writer = LineWriter(lambda: pipe)
    writer.describe_loss = "lost {}".format
    writer.write("first")
    assert pipe.full.wait(SOON)
    for _ in range(3 * MAX_PENDING // 1000):
        writer.write("x" * 1000)
    writer.write("short")  # there may be room for it, but it would stand before what was lost
    assert not writer.flush(0.01)
    pipe.read_by_somebody.set()
    assert writer.flush(SOON)
    writer.write("last")
    assert writer.flush(SOON)
    kept = MAX_PENDING // 1000
    lost = 3 * MAX_PENDING // 1000 - kept + 1
    assert pipe.lines == ["first", *["x" * 1000] * kept, f"lost {lost}", "last"]


def test_what_waits_is_bounded_whatever_the_length_of_lines(pipe: Pipe) -> None:
    writer = LineWriter(lambda: pipe)
    writer.write("first")
    assert pipe.full.wait(SOON)
    writer.write("x" * (MAX_PENDING + 1))
    pipe.read_by_somebody.set()
    assert writer.flush(SOON)
    assert pipe.lines == ["first", "1 lines lost"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("closed"), BrokenPipeError()]
)
def test_a_stream_that_fails_costs_the_line_alone(error: Exception, pipe: Pipe) -> None:
    pipe.read_by_somebody.set()
    broken = True

    def stream() -> Pipe:
        if broken:
            raise error
        return pipe

    writer = LineWriter(stream)
    writer.write("no")
    assert writer.flush(SOON)
    broken = False
    writer.write("yes")
    assert writer.flush(SOON)
    assert pipe.lines == ["yes"]


def test_nothing_pending_is_flushed_at_once() -> None:
    assert LineWriter(io.StringIO).flush(0)
