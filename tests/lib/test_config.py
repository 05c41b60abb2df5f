"""Config: what is written is what is read, and a value that means nothing is an error that says where."""

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib import call, kconfig
from lib.config import Config, InputError, Steps, choice, convert, format_line, number, parse_line, write_atomic

# Whatever str.splitlines splits on, and the pair that counts as one.
EVERY = "".join(map(chr, range(sys.maxunicode + 1)))
BREAKS = [line[-1] for line in EVERY.splitlines(keepends=True)[:-1]] + ["\r\n"]
HOSTILE = ["", " ", "y", "n", "0", '"', "\\", '\\"', "a\\", "$(shell touch x)", "`touch x`", "$HOME", "#", "a # b"]
HOSTILE += [
    "'",
    "CONFIG_RUN_ID=x",
    "# CONFIG_RUN_ID is not set",
    " both ends ",
    "\t",
    "%s",
    "\x00",
    "\ufeff",
    "Zürich 漢字 🙂",
]
line_text = st.text().filter(lambda s: len((s + ".").splitlines()) == 1)


def hostile(test):
    for text in HOSTILE:
        test = example(text=text)(test)
    return test


def of(**values: str) -> Config:
    return Config(values, dict.fromkeys(values, "string"))


@hostile
@given(text=line_text)
def test_round_trip_of_a_file(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "round-trip"
    values = {"A": text, "B": "y", "C": "n", "D": "7", "E": text}
    before = Config(values, {"A": "string", "B": "bool", "C": "bool", "D": "int", "E": "string"})
    before.write(path)
    after = Config.load(path)
    assert dict(after) == dict(before)
    assert [after.kind(n) for n in after] == [before.kind(n) for n in before]


@hostile
@given(text=line_text)
def test_round_trip_through_kconfig(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "round-trip-kconfig"
    config = kconfig.apply(None, [("MODEL_LENET5", "y", "test"), ("DATA_DIR", text, "test")])
    config.write(path)
    assert kconfig.load(path)["DATA_DIR"] == Config.load(path)["DATA_DIR"] == text
    assert dict(kconfig.load(path)) == dict(config)


@pytest.mark.parametrize("end", BREAKS, ids=ascii)
@pytest.mark.parametrize("form", ["{}CONFIG_RUN_ID=x", "a{}", "a{}b"])
def test_line_breaks_are_refused(tmp_path, end, form):
    value, path = form.format(end), tmp_path / "config"
    for attempt in (
        lambda: of(DATA_DIR=value).write(path),
        lambda: of(DATA_DIR="").replace({"DATA_DIR": value}),
        lambda: format_line("DATA_DIR", value, "string"),
        lambda: kconfig.apply(None, [("DATA_DIR", value, "test")]),
    ):
        with pytest.raises(InputError, match="CONFIG_DATA_DIR: a line break"):
            attempt()
    assert not path.exists()


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputError, match=r"CONFIG_DATA_DIR: 'data\\udcff' is not UTF-8"):
        of(DATA_DIR="").replace({"DATA_DIR": b"data\xff".decode(errors="surrogateescape")})


def test_replace_refuses_what_is_not_there():
    with pytest.raises(KeyError, match="NO_SUCH"):
        of(A="1").replace({"NO_SUCH": "1"})


def test_replace_leaves_the_original():
    before = of(A="1", B="2")
    assert (dict(before.replace({"A": "3"})), dict(before)) == ({"A": "3", "B": "2"}, {"A": "1", "B": "2"})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("CONFIG_A", "not a configuration line"),
        ("A=1", "not a configuration line"),
        ("CONFIG_A =1", "not a configuration line"),
        ("export CONFIG_A=1", "not a configuration line"),
        ('CONFIG_A="', "quotes"),
        ('CONFIG_A="a"b"', "quotes"),
        ('CONFIG_A="a\\"', "quotes"),
    ],
)
def test_a_line_that_is_none(line, what):
    with pytest.raises(InputError, match=f"here:3: .*{what}"):
        parse_line(line, "here:3")


@pytest.mark.parametrize("line", ["", "   ", "# a comment", "#", "# CONFIG_A is not set really"])
def test_lines_that_say_nothing(line):
    assert parse_line(line, "here:1")[0] is None


@pytest.mark.parametrize("content", [None, b"CONFIG_A=\xff\n"], ids=["absent", "not UTF-8"])
@pytest.mark.parametrize("load", [Config.load, kconfig.load])
def test_a_file_that_cannot_be_read(tmp_path, load, content):
    path = tmp_path / "config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"cannot read {path}: "):
        load(path)


@dataclasses.dataclass(frozen=True)
class Options:
    count: int = number(3, low=1, high=9)
    rate: float = number(0.5, above=0, below=1)
    maybe: float | None = number(None, low=0)
    flag: bool = False
    tri: bool | None = None
    name: str = "x"
    length: Steps = Steps("10%")
    shape: str = choice("round")


def test_typed_read():
    values = {"COUNT": "4", "RATE": "1e-3", "MAYBE": "", "FLAG": "y", "TRI": "false", "NAME": " a ", "LENGTH": "500"}
    values |= {"SHAPE_ROUND": "n", "SHAPE_FLAT": "y"}
    kinds = {n: "bool" if v in ("y", "n") else "string" for n, v in values.items()}
    read = Config(values, kinds).read(Options)
    assert read == Options(4, 1e-3, None, True, False, " a ", Steps("500"), "flat")
    assert isinstance(read.length, Steps)


def test_a_symbol_that_is_left_out_gives_the_default():
    assert of(COUNT="5").read(Options) == Options(count=5)


def test_prefix():
    assert of(LENET5_COUNT="5", COUNT="6").read(Options, prefix="lenet5_").count == 5


@pytest.mark.parametrize(
    ("symbol", "value", "says"),
    [
        ("COUNT", "abc", "whole number"),
        ("COUNT", "1.5", "whole number"),
        ("COUNT", "", "whole number"),
        ("COUNT", "0", ">= 1"),
        ("COUNT", "10", "<= 9"),
        ("RATE", "abc", "a number"),
        ("RATE", "", "a number"),
        ("RATE", "0", "> 0"),
        ("RATE", "1", "< 1"),
        ("RATE", "nan", "> 0"),
        ("MAYBE", "-1", ">= 0"),
        ("MAYBE", "inf", "finite"),
        ("MAYBE", "nan", "finite"),
        ("FLAG", "yes", "y, n, true or false"),
        ("FLAG", "", "y, n, true or false"),
        ("TRI", "1", "y, n, true or false"),
        ("LENGTH", "10 %", "count of steps"),
        ("LENGTH", "-1", "count of steps"),
        ("LENGTH", "101%", "at most 100%"),
    ],
)
def test_a_value_that_means_nothing(tmp_path, symbol, value, says):
    path = tmp_path / "config"
    path.write_text(f'# header\n\nCONFIG_NAME="a"\nCONFIG_{symbol}="{value}"\n')
    with pytest.raises(InputError) as e:
        Config.load(path).read(Options)
    assert str(e.value).startswith(f"{path}:4: CONFIG_{symbol}={value!r}: ")
    assert says in str(e.value)


def test_two_members_of_a_choice():
    config = Config({"SHAPE_ROUND": "y", "SHAPE_FLAT": "y"}, {"SHAPE_ROUND": "bool", "SHAPE_FLAT": "bool"})
    with pytest.raises(InputError, match=r"CONFIG_SHAPE_\*: only one of round, flat"):
        config.read(Options)


@given(st.integers(1, 9))
def test_numbers_within_their_bounds_are_taken(n):
    field = {f.name: f for f in dataclasses.fields(Options)}["count"]
    assert convert(str(n), field) == n


@pytest.mark.parametrize(
    ("text", "total", "scale", "steps"),
    [
        ("500", 1000, 1.0, 500),
        ("500", 1000, 0.1, 50),
        ("10%", 1000, 0.1, 100),
        ("2.5%", 1000, 1.0, 25),
        (" 7 ", 9, 1.0, 7),
        ("0", 9, 1.0, 0),
        ("100%", 9, 0.5, 9),
    ],
)
def test_steps(text, total, scale, steps):
    assert Steps(text).resolve(total, scale) == steps


def test_members_are_in_the_files_order_and_case():
    kinds = {"M_B": "bool", "M_A": "bool", "MX_C": "bool", "M_TEXT": "string", "M_C_D": "bool"}
    config = Config({"M_B": "n", "M_A": "y", "MX_C": "y", "M_TEXT": "y", "M_C_D": "y"}, kinds)
    assert config.members("M") == ["b", "a", "c_d"]
    assert config.on("M") == ["a", "c_d"]


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config"
    write_atomic(path, "old")
    monkeypatch.setattr(Path, "replace", lambda self, to: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_a_missing_symbol_is_named_and_has_a_default_like_any_mapping():
    config = Config({"A": "y"}, {"A": "bool"})
    with pytest.raises(InputError, match="^CONFIG_B is missing"):
        config["B"]
    assert (config.get("B", "n"), "B" in config) == ("n", False)


@pytest.mark.parametrize("line", ['CONFIG_X="{}', "CONFIG_X {}"])
def test_a_strange_line_is_shown_short_and_harmless(line):
    with pytest.raises(InputError) as found:
        parse_line(line.format("\x1b]0;owned\x07\u202e" + "x" * 3_000_000), "config:3")
    message = str(found.value)
    assert message.isprintable() and message.startswith("config:3") and len(message) < 400


def test_an_error_reaches_the_terminal_without_its_escape_sequences(capsys):
    def main():
        raise InputError("\x1b]0;owned\x07 file\nsecond line")

    with pytest.raises(SystemExit):
        call(main)
    assert capsys.readouterr().err == "error: ?]0;owned? file\nsecond line\n"
