"""make with results and data that are there, missing, damaged or of another make: a clear error, and nothing lost."""

import json

import pytest

from lib import kconfig, runner
from lib.data import mnist
from lib.rundir import ROOT


def prepared(folder, **symbols) -> None:
    """A results directory in which nothing has run yet."""
    config = kconfig.load(ROOT / "defconfigs" / "lenet5-sgd")
    lines = [("LENET5_DATASET_MNIST", "n"), ("LENET5_DATASET_DIGITS", "y"), ("RESULTS", str(folder)), *symbols.items()]
    runner.prepare(kconfig.apply(config, [(n, v, "test") for n, v in lines]))


def test_results_that_are_there_are_refused(repo, tmp_path):
    prepared(tmp_path / "results")
    before = sorted((tmp_path / "results").rglob("*"))
    repo.failed(repo.make("run", f"RESULTS={tmp_path / 'results'}"), "is not empty", "make continue RESULTS=")
    assert sorted((tmp_path / "results").rglob("*")) == before


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ("Makefile/results", "cannot write results to"),
        ("Makefile", "is a file"),
        ("~no-such-user/results", "no such home directory"),
    ],
)
def test_results_that_cannot_be_written(repo, results, says):
    repo.failed(repo.make("run", f"RESULTS={results}"), says)


@pytest.mark.parametrize(
    ("target", "results", "says"),
    [
        *((t, None, "there are no results yet (test_matrix_results_*") for t in ("continue", "rerun-failed", "report")),
        ("update-graphs", None, "there are no results yet"),
        ("continue", "nowhere", "RESULTS=nowhere: there is no directory"),
        ("report", "lib", "is no results directory of this program: provenance.json is missing"),
    ],
)
def test_results_that_are_not_there(repo, target, results, says):
    repo.failed(repo.make(target, *([f"RESULTS={results}"] if results else [])), says)


@pytest.mark.parametrize(
    ("target", "schema"),
    [("continue", 0), ("rerun-failed", 0), ("report", 0), ("update-graphs", 0), ("report", 99), ("report", None)],
)
def test_results_of_another_schema(repo, tmp_path, target, schema):
    prepared(tmp_path / "results")
    path = tmp_path / "results" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    repo.failed(
        repo.make(target, f"RESULTS={path.parent}"), f"{path}: it has schema {schema}", "use the commit that wrote it"
    )


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_results_that_are_damaged(repo, tmp_path, content):
    prepared(tmp_path / "results")
    (tmp_path / "results" / "provenance.json").write_text(content)
    repo.failed(repo.make("continue", f"RESULTS={tmp_path / 'results'}"), "provenance.json")


def test_results_without_their_config(repo, tmp_path):
    prepared(tmp_path / "results")
    (tmp_path / "results" / "config").unlink()
    repo.failed(repo.make("report", f"RESULTS={tmp_path / 'results'}"), "cannot read", "results/config")


def test_a_run_of_another_schema(repo, tmp_path):
    prepared(tmp_path / "results")
    summary = tmp_path / "results" / "lenet5_sgd_none" / "summary.json"
    summary.write_text('{"schema": 0}')
    done = repo.make("report", f"RESULTS={tmp_path / 'results'}")
    assert done.returncode == 0, done.stderr
    assert "lenet5_sgd_none: damaged: summary.json: it has schema 0, and this version reads schema " in done.stdout


@pytest.mark.parametrize("target", ["continue", "rerun-failed"])
def test_going_on_takes_no_other_override(repo, tmp_path, target):
    prepared(tmp_path / "results")
    repo.failed(
        repo.make(target, f"RESULTS={tmp_path / 'results'}", "EPOCHS=3"), "EPOCHS: a results directory goes on with"
    )


@pytest.mark.slow
def test_missing_data_that_cannot_be_downloaded(repo):
    """The proxy is one that nobody answers at."""
    repo.make("defconfig-lenet5-sgd")
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9")
    done = repo.make("run", "DATA_DIR=nothing-here", **proxies)
    repo.failed(
        done, *mnist.MD5, str(repo.path / "nothing-here" / "MNIST" / "raw"), "make data", "DATA_DIR=", "`digits`"
    )
    assert done.stderr.count("`make data` downloads it") == 1
    assert not list(repo.path.glob("test_matrix_results_*"))


def test_data_that_is_cut_short(repo):
    folder = repo.path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in mnist.MD5:
        (folder / name).write_bytes(b"cut short")
    repo.make("defconfig-lenet5-sgd")
    first = next(iter(mnist.MD5))
    for target in ("run", "data"):
        repo.failed(
            repo.make(target), f"{folder / first} is damaged or cut short", f"expected {mnist.MD5[first]}", "`digits`"
        )
    assert not list(repo.path.glob("test_matrix_results_*"))


def test_embedded_data_needs_nothing(repo):
    done = repo.make("data")
    assert (done.returncode, done.stdout) == (0, "digits: embedded\n")


def test_data_of_a_run_does_not_depend_on_a_config_nearby(repo):
    repo.config.write_text("CONFIG_NONSENSE=1\n")
    done = repo.script("scripts/data.py", "--data-dir", str(repo.path), "digits")
    assert (done.returncode, done.stdout) == (0, "digits: embedded\n")
