"""Documents: what was written is what is meant, and whatever is in a file, it is data or a clear error."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import yaml_document
from exporter.config.schema import Schema, ValidationErrors, describe, text
from exporter.config.yaml_document import MAX_DEPTH, MAX_SHOWN, Document
from exporter.errors import ConfigError

TAG = "a tag (`!...`) has no meaning here"
NAMES = st.sampled_from(["x.yaml", "x.json"])


def data(content: str | bytes, name: str = "x.yaml") -> Any:
    written = Document(name, content.encode() if isinstance(content, str) else content)
    written.check()
    return written.data


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser in C and the one in Python: which one there is depends on how PyYAML was built."""
    monkeypatch.setattr(yaml_document, "LOADER", yaml_document.loader(getattr(yaml, request.param)))


def problems(content: str | bytes, name: str = "x.yaml") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        data(content, name)
    return list(raised.value.problems)


class TestScalars:
    @pytest.mark.parametrize(
        "written",
        [
            *("0123", "1_000", "12:30", "0x1F", "0b1", "1e3", "1.50", "+5", "-0", ".inf", ".nan"),
            *("yes", "no", "on", "off", "true", "False", "2026-01-01", "=", "<<", "NaN", "nULL"),
        ],
    )
    def test_each_is_the_text_that_was_written(self, written: str) -> None:
        assert data(f"a: {written}\n") == {"a": written}
        assert data(f"- {written}\n") == [written]
        assert data(f"{written}: a\n") == {written: "a"}

    @pytest.mark.parametrize("written", ["", "~", "null", "Null", "NULL"])
    def test_nothing_is_none_unless_it_is_quoted(self, written: str) -> None:
        assert data(f"a: {written}\n") == {"a": None}
        assert data(f"a: '{written}'\n") == {"a": written}
        assert data(f'a: "{written}"\n') == {"a": written}

    def test_a_version_directive_changes_nothing(self) -> None:
        assert data("%YAML 1.1\n---\na: 0123\n") == {"a": "0123"}

    def test_blocks_and_escapes_are_texts(self) -> None:
        assert data('a: |\n  x\n  y\nb: >-\n  x\n  y\nc: "\\u00e9\\x41"\n') == {
            "a": "x\ny\n",
            "b": "x y",
            "c": "éA",
        }


class TestForms:
    @pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n", "---\n", "---\n...\n", "\ufeff"])
    def test_a_file_without_content_is_none(self, content: str) -> None:
        assert data(content) is None

    def test_a_byte_order_mark_is_no_content(self) -> None:
        assert data(b"\xef\xbb\xbfa: 1\n") == {"a": "1"}
        assert data(b"\xef\xbb\xbf[1]", "x.json") == ["1"]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_lines_end_as_on_any_system(self, end: str) -> None:
        assert data(f"a: 1{end}b:{end}  - 2{end}") == {"a": "1", "b": ["2"]}
        assert problems(f"a: 1{end}b: 2{end}b: 3{end}") == ["x.yaml:3: b: duplicate key"]
        assert problems(f"a: 1{end}b: [{end}") == ["x.yaml:2: did not find expected node content"]

    def test_a_line_number_is_never_beyond_the_end(self) -> None:
        for content in ("a: [", "a: [\n", "a: 1\nb: '", "a: 1\nb: '\n", "["):
            (problem,) = problems(content)
            assert problem.startswith(f"x.yaml:{len(content.splitlines())}: ")

    def test_anything_but_utf_8_is_refused_with_its_place(self) -> None:
        assert problems(b"a: \xff\n") == ["x.yaml: not UTF-8 at byte 3"]
        assert problems("a: é\n".encode("latin-1")) == ["x.yaml: not UTF-8 at byte 3"]
        assert problems("a: 1\n".encode("utf-16")) == ["x.yaml: not UTF-8 at byte 0"]
        assert problems(b"a: \xed\xa0\x80\n") == ["x.yaml: not UTF-8 at byte 3"]  # half a character

    @pytest.mark.parametrize("content", ["\0", "a: \0", "a: 1\n\0", "a: \x01", "a: \x0b"])
    def test_control_characters_are_refused(self, content: str) -> None:
        assert problems(content) == ["x.yaml: not YAML"]

    def test_half_a_character_as_an_escape_is_refused(self) -> None:
        for content in ('a: "\\ud800"', '"\\udfff": a'):
            (problem,) = problems(content)
            assert problem.startswith("x.yaml:1: ")

    def test_a_second_document_is_refused(self) -> None:
        assert problems("a: 1\n---\nb: 1\n") == ["x.yaml:2: found another document"]


@pytest.mark.usefixtures("parser")
class TestEitherParser:
    def test_scalars_are_the_texts_that_were_written(self) -> None:
        assert data("a: 0123\nb: [1_000, 12:30, no, ~, '~', 2026-01-01]\nc:\n") == {
            "a": "0123",
            "b": ["1_000", "12:30", "no", None, "~", "2026-01-01"],
            "c": None,
        }

    @pytest.mark.parametrize("half", ["\\ud800", "x\\udfff"])
    def test_half_a_character_is_refused(self, half: str) -> None:
        (problem,) = problems(f'a: "{half}"')
        assert problem.startswith("x.yaml:1: ")

    def test_white_space_in_json_may_be_tabs(self) -> None:
        assert data('\t{\n\t"a":\t[\t1,\t2\t]\t,\n\t"b"\t:\tnull\n\t}\t', "x.json") == {
            "a": ["1", "2"],
            "b": None,
        }

    def test_surrogate_pairs_in_json_are_one_character(self) -> None:
        assert data(r'["\ud83d\ude00"]', "x.json") == ["😀"]

    @pytest.mark.parametrize("odd", ["\u2028", "\x7f", "\x85", "\ufffe"])
    def test_odd_characters_in_json_stay_as_they_are(self, odd: str) -> None:
        assert data(f'["a{odd}b"]', "x.json") == [f"a{odd}b"]

    def test_a_byte_order_mark_is_no_content(self) -> None:
        assert data(b"\xef\xbb\xbfa: 1\n") == {"a": "1"}

    def test_a_hundred_thousand_levels_are_refused(self) -> None:
        assert problems("[" * 100_000) == ["x.yaml:1: nested too deeply"]

    def test_an_alias_that_holds_itself_is_refused(self) -> None:
        assert problems("&a [*a]") == ["x.yaml:1: [0]: an alias that contains itself"]

    def test_a_key_in_the_wrong_place_is_not_quoted(self) -> None:
        key = "k" * 40
        for content in (f"a: *{key}", f"!{key}!x y", f"a: '{key}", f"a: [\n{key}: b: c"):
            assert key not in "".join(problems(content))


class TestHostileContent:
    def test_a_billion_laughs_are_shared_and_not_written_out(self) -> None:
        lines = ["- &a0 [ha]"]
        lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 60)]
        began = time.perf_counter()
        found = data("\n".join(lines))
        assert time.perf_counter() - began < 5
        assert found[59][0] is found[59][9] is found[58]

    def test_an_alias_is_what_it_stands_for(self) -> None:
        assert data("a: &x {b: [1]}\nc: *x\nd: &y 1\ne: *y\n") == {
            "a": {"b": ["1"]},
            "c": {"b": ["1"]},
            "d": "1",
            "e": "1",
        }

    @pytest.mark.parametrize(
        ("content", "path"),
        [("&a [*a]", "[0]"), ("&a {b: *a}", "b"), ("&a [{b: [*a]}]", "[0].b[0]")],
    )
    def test_an_alias_that_holds_itself_is_refused(self, content: str, path: str) -> None:
        assert problems(content) == [f"x.yaml:1: {path}: an alias that contains itself"]

    def test_an_alias_of_nothing_is_refused_without_its_name(self) -> None:
        assert problems("a: 1\nb: *zzzz\n")[0].startswith("x.yaml:2: found undefined alias")

    @pytest.mark.parametrize("opening", ["[", "- ", "? ", "{a: ", "[{a: ", "- - "])
    @pytest.mark.parametrize("name", ["x.yaml", "x.json"])
    def test_a_hundred_thousand_levels_are_refused_at_once(self, opening: str, name: str) -> None:
        began = time.perf_counter()
        (problem,) = problems(opening * 100_000, name)
        assert problem == f"{name}:1: nested too deeply"
        assert time.perf_counter() - began < 5

    def test_depth_is_counted_by_level_and_not_by_number(self) -> None:
        assert data("[" * MAX_DEPTH + "]" * MAX_DEPTH)
        assert problems("\n" + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == [
            "x.yaml:2: nested too deeply"
        ]
        assert len(data("- [[[[1]]]]\n" * 1000)) == 1000
        assert len(data("".join(f"k{n}: {{a: {{b: 1}}}}\n" for n in range(1000)))) == 1000

    @pytest.mark.parametrize(
        "tag",
        [
            *("!env", "!!python/object/apply:os.system", "!!python/name:os.system", "!!binary"),
            *("!!timestamp", "!!set", "!!omap", "!<tag:example.org,2026:x>", "!include"),
        ],
    )
    def test_a_tag_is_refused_and_nothing_is_made_of_it(self, tag: str) -> None:
        assert problems(f"a: 1\nb: {tag} x\n") == [f"x.yaml:2: b: {TAG}"]
        assert problems(f"- {tag} [x]\n- {tag} {{a: b}}\n") == [
            f"x.yaml:1: [0]: {TAG}",
            f"x.yaml:2: [1]: {TAG}",
        ]

    @pytest.mark.parametrize("tag", ["!!str", "!!int", "!!float", "!!bool", "!!null", "!"])
    def test_a_tag_of_plain_yaml_changes_nothing(self, tag: str) -> None:
        assert data(f"a: {tag} 0123\n") == {"a": "0123"}

    def test_a_merge_key_is_a_key_like_any_other(self) -> None:
        assert data("a: &x {b: 1}\nc: {<<: *x, d: 2}\n")["c"] == {"<<": {"b": "1"}, "d": "2"}

    @pytest.mark.parametrize("key", ["? [a]\n", "? {a: b}\n", "? [[1]]\n"])
    def test_a_key_that_is_no_text_is_refused(self, key: str) -> None:
        assert problems(f"a: 1\n{key}: b\n") == ["x.yaml:2: a key must be text"]

    def test_duplicate_keys_are_told_wherever_they_are(self) -> None:
        assert problems("a: 1\nb:\n  - {c: 1, c: 2}\n'a': 2\na: 3\n") == [
            "x.yaml:3: b[0].c: duplicate key",
            "x.yaml:4: a: duplicate key",
            "x.yaml:5: a: duplicate key",
        ]

    @given(st.binary(max_size=200), NAMES)
    def test_any_bytes_are_data_or_an_error_of_ours(self, content: bytes, name: str) -> None:
        self.is_handled(content, name)

    @given(st.text(max_size=200), NAMES)
    def test_any_text_is_data_or_an_error_of_ours(self, content: str, name: str) -> None:
        self.is_handled(content.encode(), name)

    @given(st.text(st.sampled_from("ab1 \n\t-:?,[]{}#&*!|>'\"%@`\\/~<=u0d8."), max_size=40), NAMES)
    def test_anything_like_yaml_is_data_or_an_error_of_ours(self, content: str, name: str) -> None:
        self.is_handled(content.encode(), name)

    @staticmethod
    def is_handled(content: bytes, name: str) -> None:
        try:
            found = data(content, name)
        except ConfigError as error:
            reported = error.problems
        else:
            assert found is None or isinstance(found, str | list | dict)
            return
        assert reported
        assert all(problem.startswith(name) for problem in reported)


# PyYAML writes these as they are, and reads them as ends of lines
TEXTS = st.text(st.characters(exclude_characters="\x85\u2028\u2029", exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.none() | TEXTS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4),
    max_leaves=12,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=20), below, max_size=4),
    max_leaves=12,
)


def as_written(value: Any) -> Any:
    """What JSON gives, with booleans as they are written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return [as_written(item) for item in value]
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    return value


class TestRoundTrips:
    @given(PLAIN, st.booleans(), st.sampled_from([None, True, False]))
    def test_what_is_dumped_as_yaml_is_read_as_it_was(
        self, value: Any, unicode: bool, flow: bool | None
    ) -> None:
        written = yaml.safe_dump(value, allow_unicode=unicode, default_flow_style=flow)
        assert data(written) == value

    @given(JSON, st.booleans(), st.sampled_from([None, 0, 2, "\t"]))
    def test_json_is_read_as_json_has_it(
        self, value: Any, ascii_only: bool, indent: int | str | None
    ) -> None:
        written = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
        assert data(written, "x.json") == as_written(json.loads(written, parse_int=str, parse_float=str))


class TestJson:
    def test_tabs_are_white_space(self) -> None:
        assert data('{\n\t"a":\t[\t1,\t2\t]\n\t}\t', "x.json") == {"a": ["1", "2"]}

    def test_no_space_is_needed_anywhere(self) -> None:
        assert data('{"a":1,"b":[1,{"c":null}],"d":"e"}', "x.json") == {
            "a": "1",
            "b": ["1", {"c": None}],
            "d": "e",
        }

    def test_every_escape_is_understood(self) -> None:
        assert data(r'["\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC"]', "x.json") == ['"\\/\b\f\n\r\tAé€']

    def test_surrogate_pairs_are_one_character(self) -> None:
        assert data(r'["\ud83d\ude00", "\uD83D\uDE00x\uDBFF\uDFFF"]', "x.json") == ["😀", "😀x\U0010ffff"]

    def test_an_escaped_backslash_begins_no_surrogate(self) -> None:
        assert data(r'["\\ud83d\\ude00"]', "x.json") == [r"\ud83d\ude00"]

    @pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83dx\ude00"])
    def test_half_a_pair_is_refused(self, half: str) -> None:
        (problem,) = problems(f'[1,\n"{half}"]', "x.json")
        assert problem.startswith("x.json:2: ")

    @pytest.mark.parametrize(
        "odd", ["\u2028", "\u2029", "\x7f", "\x85", "\x9f", "\ufffe", "\uffff", "\u00a0"]
    )
    def test_characters_that_json_allows_as_they_are_stay_as_they_are(self, odd: str) -> None:
        assert data(f'["a{odd}b", "{odd}"]', "x.json") == [f"a{odd}b", odd]

    def test_they_do_not_count_as_lines(self) -> None:
        assert problems('["\u2028\u2029\x85",\n{"a": 1,\n "a": 2}]', "x.json") == [
            "x.json:3: [1].a: duplicate key"
        ]

    @pytest.mark.parametrize(
        ("content", "line"),
        [("[\n1,\n2\n", 3), ("[\n1,\n}", 3), ('{\n"a" 1,\n', 2), ('["a', 1), ("[1]\n[2]", 2)],
    )
    def test_what_is_broken_is_told_with_its_line(self, content: str, line: int) -> None:
        (problem,) = problems(content, "x.json")
        assert problem.startswith(f"x.json:{line}: ")


class TestErrors:
    def test_all_are_raised_at_once_in_the_order_of_lines(self) -> None:
        written = Document("x.yaml", b"a: 1\nb:\n  - 2\n  - c: 3\n")
        written.report(("b", 1, "c"), "third")
        written.report(("b", 0), "second")
        written.report((), "whole")
        written.report(("a",), "first")
        with pytest.raises(ConfigError) as raised:
            written.check()
        assert raised.value.problems == (
            "x.yaml:1: whole",
            "x.yaml:1: a: first",
            "x.yaml:3: b[0]: second",
            "x.yaml:4: b[1].c: third",
        )
        assert str(raised.value).splitlines() == list(raised.value.problems)

    def test_lines_are_put_in_order_as_numbers(self) -> None:
        written = Document("x.yaml", b"- 1\n" * 12)
        for at in (10, 1, 11, 8):
            written.report((at,), "x")
        with pytest.raises(ConfigError) as raised:
            written.check()
        assert [problem.split(":")[1] for problem in raised.value.problems] == ["2", "9", "11", "12"]

    def test_what_is_missing_is_told_where_it_should_stand(self) -> None:
        written = Document("x.yaml", b"a: 1\nb:\n  c: 1\n")
        written.report(("b", "d"), "missing")
        written.report(("b", "c", 5, "e"), "missing")
        written.report(("z",), "missing")
        with pytest.raises(ConfigError) as raised:
            written.check()
        assert raised.value.problems == (
            "x.yaml:1: z: missing",
            "x.yaml:2: b.d: missing",
            "x.yaml:3: b.c[5].e: missing",
        )

    def test_nothing_reported_is_nothing_raised(self) -> None:
        Document("x.yaml", b"a: 1\n").check()

    def test_short_values_are_shown_and_long_ones_are_not(self) -> None:
        assert describe("x" * MAX_SHOWN) == repr("x" * MAX_SHOWN)
        assert describe("x" * (MAX_SHOWN + 1)) == "a long text"
        assert [describe(value) for value in ({"a": "b"}, ["a"], None)] == ["a mapping", "a list", "nothing"]

    def test_long_names_are_not_shown_in_paths(self) -> None:
        long = "x" * (MAX_SHOWN + 1)
        short = "y" * MAX_SHOWN
        assert problems(f"{short}: 1\n{short}: 1\n") == [f"x.yaml:2: {short}: duplicate key"]
        assert problems(f"{long}: 1\n{long}: 1\n") == ["x.yaml:2: ...: duplicate key"]
        assert problems(f"{{key:{long}, key:{long}}}") == ["x.yaml:1: key:...: duplicate key"]
        assert problems(f"{{{long}:k, {long}:k}}") == ["x.yaml:1: ...: duplicate key"]

    def test_what_a_parser_quotes_is_not_shown_when_it_is_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The parser in Python quotes what it finds, the one in C does not; either may be in use."""
        key = "k" * 40

        def refuse(*_: object, **__: object) -> None:
            mark = yaml.Mark("x", 0, 0, 0, None, None)  # type: ignore[arg-type] # as without a buffer
            raise yaml.MarkedYAMLError(problem=f"but found undefined alias '{key}'", problem_mark=mark)

        monkeypatch.setattr(yaml, "compose", refuse)
        assert problems("a: 1\n") == ["x.yaml:1: found undefined alias ..."]


@dataclass(frozen=True)
class Inner:
    number: int
    word: str = "none"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    words: tuple[str, ...] | None = None
    word: str | None = field(default=None)


def number(value: Any) -> int:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    if value == "both":
        raise ValidationErrors([((), "said once"), (("deep", 0), "said twice")])
    raise ValueError(f"expected digits, got {describe(value)}")


SCHEMA = Schema({int: number})


def structured(content: str) -> Outer | None:
    written = Document("x.yaml", content.encode())
    found = SCHEMA.structure(written, Outer)
    written.check()
    return found


class TestSchema:
    def test_a_document_that_fits_becomes_what_the_schema_says(self) -> None:
        assert structured("inner: {number: 5}\nmany: [{number: 6, word: x}]\nwords: [a]\n") == Outer(
            Inner(5), (Inner(6, "x"),), ("a",)
        )

    def test_all_that_does_not_fit_is_told_at_once(self) -> None:
        with pytest.raises(ConfigError) as raised:
            structured(
                "many:\n  - {number: x}\n  - 7\n  - {numbr: 1}\n  - {number: both}\n"
                "words: [[], '']\nword: {}\n"
            )
        assert raised.value.problems == (
            "x.yaml:1: inner: required, but missing",
            "x.yaml:2: many[0].number: expected digits, got 'x'",
            "x.yaml:3: many[1]: expected a mapping, got text",
            "x.yaml:4: many[2].number: required, but missing",
            "x.yaml:4: many[2].numbr: unknown key; did you mean 'number'?",
            "x.yaml:5: many[3].number: said once",
            "x.yaml:5: many[3].number.deep[0]: said twice",
            "x.yaml:6: words[0]: expected text, got a list",
            "x.yaml:6: words[1]: expected text, got ''",
            "x.yaml:7: word: expected text, got a mapping",
        )

    def test_a_key_that_is_like_no_other_is_met_with_those_there_are(self) -> None:
        with pytest.raises(ConfigError) as raised:
            structured("inner: {number: 5}\nqqq: 1\n")
        assert raised.value.problems == ("x.yaml:2: qqq: unknown key; known: inner, many, words, word",)

    @pytest.mark.parametrize(("value", "shown"), [("", "''"), (None, "nothing"), ([], "a list")])
    def test_a_text_is_not_empty(self, value: Any, shown: str) -> None:
        with pytest.raises(ValueError, match=f"^expected text, got {shown}$"):
            text(value)
