"""gputop: what every device of every vendor does, live or recorded. NVIDIA, AMD and Intel GPUs, and the host."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib.config import InputError
    from lib.gputop import show
    from lib.gputop.watch import Watch
    from lib.monitor import stats
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))

FIRST = 0.25  # seconds between the two readings of --once: what is counted a second needs two


def seconds(most: float):
    def parsed(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
        if not 0.05 <= found <= most:
            raise argparse.ArgumentTypeError(f"{text} seconds: give 0.05 to {most:.0f}")
        return found

    return parsed


def png(text: str) -> Path:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r}: pictures are PNG, so give a name that ends in .png")
    return Path(text)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gputop", description=__doc__, allow_abbrev=False)
    parser.add_argument("--interval", type=seconds(3600), metavar="S", help="seconds between readings (1)")
    parser.add_argument("--stats", type=Path, metavar="FILE", help="record every reading in a new file, too")
    parser.add_argument(
        "--duration", type=seconds(1e8), metavar="S", help="with --stats: record so long, without the view"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="print everything as it is now, and end")
    what.add_argument("--summary", type=Path, metavar="FILE", help="mean, least and most of a recorded file")
    what.add_argument("--gen-graph", type=Path, metavar="FILE", help="the same, and a picture beside the file")
    what.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two recorded files: table and picture")
    parser.add_argument("--json", action="store_true", help="the same as --once, for programs")
    parser.add_argument(
        "--command-lines", action="store_true", help="with --once or --json: whole command lines, not names alone"
    )
    parser.add_argument("--device", metavar="ID", help='of a recorded file ("nvidia 0"); else its first GPU')
    parser.add_argument("--output", type=png, metavar="PNG", help="where the picture goes")
    args = parser.parse_args(argv)
    files = args.summary or args.gen_graph or args.compare
    if args.json and files:
        parser.error("--json prints everything as it is now: it does not go with recorded files")
    args.once = args.once or args.json
    if args.command_lines and not args.once:
        parser.error("--command-lines goes with --once or --json: the live view shows them")
    if args.stats and (files or args.once):
        parser.error("--stats records what is seen over time: leave out the other actions, or --stats")
    if args.interval and (files or args.once):
        parser.error("--interval is of the live view and of --stats: it changes nothing here")
    args.interval = args.interval or 1.0
    if args.duration and not args.stats:
        parser.error("--duration goes with --stats")
    if args.device and not (args.gen_graph or args.compare):
        parser.error("--device goes with --gen-graph or --compare")
    if args.output and not (args.gen_graph or args.compare):
        parser.error("--output goes with --gen-graph or --compare")
    return args


def main() -> int:
    args = parse()
    if args.summary:
        return summary(args.summary)
    if args.gen_graph:
        return graph(args.gen_graph, args.device, args.output)
    if args.compare:
        return compare(*args.compare, args.device, args.output)
    if args.once:
        return once(args.json, args.command_lines)
    if args.duration or (args.stats and not sys.stdout.isatty()):
        return record(args.stats, args.interval, args.duration)
    return live(args.stats, args.interval)


def once(as_json: bool, command_lines: bool) -> int:
    watch = Watch()
    watch.tick()
    for d in watch.readings.devices:
        watch.readings.processes(d)
    time.sleep(FIRST)
    watch.tick()
    if as_json:
        print(json.dumps(show.as_json(watch, command_lines)))
    else:
        print("\n".join(show.once(watch, command_lines)))
    return 0


def writer(path: Path) -> stats.Writer:
    """Of a new file. Raises InputError where it is there, or cannot be made."""
    try:
        return stats.Writer(path, new=True)
    except FileExistsError:
        raise InputError(f"{path} is there already: name a new file (to read this one: --summary {path})") from None
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror}") from None


class Recording:
    """Readings of a Watch, written down as a run's are."""

    def __init__(self, path: Path, watch: Watch, interval: float):
        self.writer, self.watch = writer(path), watch
        self.devices, self.start = list(watch.readings.devices), watch.clock()
        self.writer.header(self.devices, interval_s=interval, started=time.time())

    def __call__(self, samples: list) -> None:
        now = self.watch.clock() - self.start
        for device in self.watch.readings.devices[len(self.devices) :]:
            self.devices.append(device)
            self.writer.appeared(now, device)
        self.writer.sample(now, "", samples)


def ended(*_):
    raise KeyboardInterrupt


def record(path: Path, interval: float, duration: float | None) -> int:
    """Until the time is over, or an interrupt."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job ignores SIGINT by default
        signal.signal(number, ended)
    watch = Watch()
    keep = Recording(path, watch, interval)
    print(f"recording to {path} every {interval:g} s" + (f" for {duration:g} s" if duration else ": Ctrl-C ends it"))
    due = watch.clock()
    with keep.writer:
        try:
            while duration is None or watch.clock() - keep.start <= duration:
                keep(watch.tick())
                due = max(due + interval, watch.clock())
                time.sleep(max(0.0, due - watch.clock()))
        except KeyboardInterrupt:
            print()
    print(f"to see it: gputop --summary {path}, or --gen-graph {path}")
    return 0


def live(path: Path | None, interval: float) -> int:
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        raise InputError("the live view needs a terminal: give --once or --json, or --stats FILE to record")
    from lib.gputop.tui import Gputop

    watch = Watch()
    if path is None:
        return shown(Gputop(watch, interval))
    keep = Recording(path, watch, interval)
    with keep.writer:
        code = shown(Gputop(watch, interval, keep))
    print(f"recorded: {path}")
    return code


def shown(app) -> int:
    app.run()
    return app.return_code or 0


def summary(path: Path) -> int:
    from lib.gputop import recorded

    print("\n".join(recorded.summary(recorded.Record.of(path))))
    return 0


def graph(path: Path, device: str | None, output: Path | None) -> int:
    from lib.figure import monitor
    from lib.gputop import recorded

    found = recorded.Record.of(path)
    chosen = found.choose(device)
    print("\n".join(recorded.summary(found)))
    picture(monitor.recorded(found, chosen), output or found.path.with_name(f"{found.path.stem}_plot.png"))
    return 0


def compare(a: Path, b: Path, device: str | None, output: Path | None) -> int:
    from lib.figure import monitor
    from lib.gputop import recorded

    one, other = recorded.Record.of(a), recorded.Record.of(b)
    print("\n".join(recorded.compare(one, other, device)))
    picture(monitor.compared(one, other, device), output or Path("gputop_compare.png"))
    return 0


def picture(fig, path: Path) -> None:
    from lib.figure.folder import save_picture

    try:
        save_picture(fig, path)
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror}: name another with --output") from None
    print(f"\ngraph: {path}")


if __name__ == "__main__":
    lib.call(main)
