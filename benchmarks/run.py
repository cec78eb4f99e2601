"""Measure: ours and the peers side by side, in rounds, and say what was promised and what was seen.

``make bench`` runs it. Results go to ``build/bench/DATE.json`` and, as Markdown, to ``build/bench/DATE.md``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import batch
import changes
import load
import models
import peers
import report
import results
import serving
import tree
from serving import Settings

BUILD = Path(__file__).resolve().parent.parent / "build" / "bench"
PARTS = ("import", "deploy", "change", "serve", "batch")


def main() -> None:
    asked = _arguments()
    names = peers.parse(asked.peers)
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        message = f"bench: PARTS knows no {unknown[0]!r}; use some of: {' '.join(PARTS)}"
        raise SystemExit(message)
    os.environ.update(peers.QUIET)  # the bare predict in this process runs as in every other
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("bench: broken off"))  # and end what was started
    tree.adopt_orphans()
    say(f"peers: {' '.join(names) or 'none'}; parts: {' '.join(asked.parts)}; {asked.rounds} rounds")
    for name in names:
        peers.install(name, say)
    found = results.Results(
        results.about(
            load=f"{load.generator(asked.generator)}, {asked.seconds:g} s for each cell",
            peers="; ".join(f"{name}: {pinned}" for name, pinned in peers.versions(names).items()),
        )
    )
    place = Path(asked.out or BUILD / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.json").absolute()
    for stale in place.parent.glob("data/**/prepared"):
        shutil.rmtree(stale)  # by an earlier version of what is measured
    for part in asked.parts:
        began = time.perf_counter()
        say(f"\n{part}")
        _measure(part, names, asked, place, found)
        say(f"  took {time.perf_counter() - began:.0f} s")
    text = report.markdown(found)
    place.with_suffix(".md").write_text(text)
    say(f"\n{text}\nwritten to {place} and {place.with_suffix('.md')}")


def _measure(part: str, names: list[str], asked: argparse.Namespace, place: Path, found: results.Results) -> None:
    folder = place.parent / "data"
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        folder=folder,
        rounds=asked.rounds,
        seconds=asked.seconds,
        levels=tuple(map(int, asked.levels)),
        models=tuple(asked.models),
        generator=asked.generator,
        say=say,
        save=lambda: found.save(place),
    )
    if part == "serve":
        serving.measure(peers.chosen(peers.SERVERS, names), settings, found)
    elif part == "batch":
        batch.measure(peers.chosen(peers.TOOLS, names), settings, asked.rows, found)
    else:
        {"import": changes.imports, "deploy": changes.deploys, "change": changes.changes}[part](settings, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    words = {"type": str.split}
    parser.add_argument("--parts", default=PARTS, help=f"some of: {' '.join(PARTS)}", **words)
    parser.add_argument("--peers", default="all", help=f"all, none, or some of: {' '.join(peers.KNOWN)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the table that is scored")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell")
    parser.add_argument("--levels", default=("1", "8", "64"), help="connections", **words)
    parser.add_argument("--models", default=models.NAMES, help=f"some of: {' '.join(models.NAMES)}", **words)
    parser.add_argument("--generator", default="", choices=["", "wrk", "python"], help="default: wrk where it is")
    parser.add_argument("--out", help="where the JSON goes")
    return parser.parse_args()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
