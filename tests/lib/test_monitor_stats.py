"""monitor.jsonl: what is written is read, whatever a disk did, and what is foreign is refused with a reason."""

import math
import resource
import subprocess
import sys
import tempfile
from json import dumps
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import measure
from lib.config import InputError
from lib.gputop.recorded import Record, summary
from lib.monitor import stats
from lib.monitor.base import Device, Sample
from lib.monitor.lines import Described
from lib.records import Summary
from lib.schema import blank, field_names

FULL = Sample(
    99.94, 80000.04, 12345.6, 71, 350.27, 41, 1980, 2619, 123456789.04, 88.1, 76.2, 12345.67, 12345.67, 98765.4, 98765.4
)


def test_what_is_read_is_what_was_written(tmp_path):
    """A torn last line is passed over; the budget of a device and sample is 230 bytes."""
    path = tmp_path / "m.jsonl"
    with stats.Writer(path) as writer:
        writer.header([Device("nvidia", 0, "A100"), Device("cpu", 0)], pid=7)
        writer.sample(86399.1234, "checkpoint", [FULL, Sample(power=2.0)])
        writer.sample(86400, "checkpoint", [FULL, Sample()])
    assert max(map(len, path.read_text().splitlines()[1:])) < 230
    path.write_text(path.read_text()[:-5])
    header, [sample] = stats.read(path)
    assert header["devices"] == [{"vendor": "nvidia", "index": 0, "name": "A100"}, {"vendor": "cpu", "index": 0}]
    assert (header["pid"], header["lost"], header["damaged"]) == (7, 0, 1)
    assert sample["t"] == 86399.123
    assert sample["devices"] == [{k: pytest.approx(v, abs=0.06) for k, v in vars(FULL).items()}, {"power": 2}]
    assert stats.read(tmp_path / "none") == ({}, [])
    (tmp_path / "empty").touch()
    assert stats.read(tmp_path / "empty") == ({}, [])


def test_whole_lines_between_damaged_ones_are_used(tmp_path):
    path = tmp_path / "m.jsonl"
    with stats.Writer(path) as writer:
        writer.header([Device("cpu", 0)])
        for t in range(3):
            writer.sample(t, "train", [Sample(power=t)])
    head, *rows = path.read_bytes().splitlines()
    bad = [b"\xff\x00\x01", b"[1]", b'{"t": 1}', b'{"t": 1, "phase": "train", "devices": [["x"]]}', b'{"t": 1, "ph']
    bad += [b'{"t":1,"phase":"a","devices":[[1],[2]]}', b'{"t":null,"phase":"a","devices":[]}']
    path.write_bytes(b"\n".join([head, rows[0], *bad, rows[1], b"", rows[2]]))
    header, samples = stats.read(path)
    assert [s["devices"] for s in samples] == [[{"power": 0}], [{"power": 1}], [{"power": 2}]]
    assert header["damaged"] == len(bad)


@pytest.mark.parametrize(
    "text", ['{"schema": 1}\n', "hello\n", "[1, 2]", '{"gpus": []}', dumps({"schema": stats.SCHEMA}), "\x89PNG\r\n"]
)
def test_a_foreign_file_is_refused(tmp_path, text):
    (tmp_path / "m").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="m is no record of this version of the monitor"):
        stats.read(tmp_path / "m")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("more", 1),
        ("interval_s", {}),
        ("interval_s", "abc"),
        ("started", 1e300),
        ("fields", ["process_memory"] * 2),
        ("fields", ["mood"]),
        ("devices", [{"vendor": "cpu", "index": 0, "name": "x" * 5000}]),
        ("devices", [{"vendor": "cpu"}]),
        ("pid", 10**400),
    ],
)
def test_a_header_of_other_values_is_refused(tmp_path, field, value):
    head = {"schema": stats.SCHEMA, "fields": ["power"], "devices": [{"vendor": "cpu", "index": 0}]}
    (tmp_path / "m").write_text(dumps(head) + "\n")
    assert stats.read(tmp_path / "m")[0]["devices"] == head["devices"]
    (tmp_path / "m").write_text(dumps(head | {field: value}) + "\n")
    with pytest.raises(InputError, match=f"m is no record of this version of the monitor .*{field}"):
        stats.read(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [{"lost": -5}, {"lost": 10**400}, {"lost": True}, {"t": 1e308}, {"t": -1e300}, {"more": 1}, {"phase": "x" * 999},
     {"devices": [[10**400]]}, {"devices": [[1, 2]]}, {"devices": [[1], [2]]}, {"devices": 1}],
)  # fmt: skip
def test_a_sample_of_other_values_is_a_damaged_line(tmp_path, change):
    head = {"schema": stats.SCHEMA, "fields": ["power"], "devices": [{"vendor": "cpu", "index": 0}]}
    good = {"t": 1.5, "phase": "train", "lost": 2, "devices": [[7]]}
    (tmp_path / "m").write_text("\n".join(map(dumps, (head, good | change, good))) + "\n")
    header, samples = stats.read(tmp_path / "m")
    assert (header["damaged"], header["lost"]) == (1, 2)
    assert samples == [{"t": 1.5, "phase": "train", "devices": [{"power": 7}]}]


def test_lines_have_the_fields_of_devices():
    assert field_names(Described) == field_names(Device)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: it is a directory"):
        stats.read(tmp_path)


def test_a_record_is_not_written_over(tmp_path):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(FileExistsError):
        stats.Writer(tmp_path / "m", new=True)
    assert (tmp_path / "m").read_text() == "mine"


def test_a_full_disk_takes_samples_but_never_half_of_one(tmp_path):
    """A limit on the size of files stands for the disk: the kernel takes what fits and refuses the rest."""
    code = f"""
import resource, signal, sys
from lib.monitor import stats
from lib.monitor.base import Device, Sample
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
with stats.Writer(sys.argv[1]) as w:
    w.header([Device("cpu", 0)])
    for t in range(40):
        if t == 10: limit(w.path.stat().st_size + 50)   # room for one line and a half
        if t == 30: limit({resource.RLIM_INFINITY})
        w.sample(t, "train", [Sample(power=t)])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, samples = stats.read(tmp_path / "m")
    kept = [int(s["t"]) for s in samples]
    assert kept == [*range(kept.index(30)), *range(30, 40)]
    assert 10 <= kept.index(30) < 13
    assert header["lost"] == 40 - len(kept)
    assert header["damaged"] == 0
    first, last = done.stderr.splitlines()
    assert "cannot be written, samples are lost" in first
    assert last.endswith(f"{header['lost']} samples were lost")


def test_a_disk_that_is_full_from_the_start_has_its_header_later(tmp_path):
    code = f"""
import resource, sys
from lib.monitor import stats
from lib.monitor.base import Device, Sample
resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
with stats.Writer(sys.argv[1]) as w:
    w.header([Device("cpu", 0)])
    w.sample(0, "load", [Sample()])
    w.appeared(0.5, Device("amd", 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY},) * 2)
    w.sample(1, "train", [Sample(), Sample(power=1)])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True, capture_output=True)
    header, [sample] = stats.read(tmp_path / "m")
    assert [d["vendor"] for d in header["devices"]] == ["cpu", "amd"]
    assert (header["lost"], sample["devices"]) == (1, [{}, {"power": 1}])


def test_a_log_on_the_same_full_disk(tmp_path):
    """What cannot be said either does not end the sampler; and a disk that stays full has a record that ends early."""
    code = """
import resource, sys
from lib.monitor import stats
from lib.monitor.base import Device, Sample
with stats.Writer(sys.argv[1]) as w:
    w.header([Device("cpu", 0)])
    w.sample(0, "train", [Sample(power=1)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (w.path.stat().st_size, resource.RLIM_INFINITY))
    for t in range(1, 9): w.sample(t, "train", [Sample(power=1)])
    w.sample(9, "end", [Sample(power=1)])
"""
    with (tmp_path / "log").open("w") as log:
        log.write("x" * 5000)  # beyond the limit already
        log.flush()
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], stderr=log)
    assert done.returncode == 0
    header, samples = stats.read(tmp_path / "m")
    assert len(samples) == 1
    assert measure.problem(blank(Summary, {"status": "done"}), header, samples) == "it ends at 0 s, before the run did"


def test_what_is_no_number_is_unknown():
    assert stats.values(Sample(float("nan"), float("inf"), 3.0))[:3] == [None, None, 3]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("t", "phase", "lost", "devices", "appeared", "schema", "fields")
ROW = st.dictionaries(st.sampled_from(KEYS), JUNK | st.just("train") | st.just([[1]]) | st.just({"vendor": "x"}))


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW | JUNK, max_size=6), st.booleans())
def test_no_file_is_read_with_anything_but_an_input_error(rows, whole):
    head = {"schema": stats.SCHEMA, "fields": ["power"], "devices": [{"vendor": "cpu", "index": 0}]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_text("\n".join(map(dumps, ([head] if whole else []) + rows)))
        try:
            header, samples = stats.read(path)
            record = Record.of(path)
        except InputError:
            return
        assert all(math.isfinite(v) for s in samples for d in s["devices"] for v in d.values())
        assert list(summary(record))


def test_a_path_that_is_too_long():
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        Record.of("x" * 300)
