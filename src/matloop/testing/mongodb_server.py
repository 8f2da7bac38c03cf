"""The command of the test server: ``python -m matloop.testing.mongodb_server --port PORT``."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.journal import Journal, JournalDamagedError, Policy
from matloop.testing.mongodb.wire import Server


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is told to end; print one line when clients may connect."""
    parser = argparse.ArgumentParser(
        prog="python -m matloop.testing.mongodb_server",
        description="A MongoDB-protocol server for tests. It keeps all data in memory and asks no "
        "password: never a production database.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--journal", type=Path, help="file that outlives the server; none by default"
    )
    parser.add_argument(
        "--fsync",
        choices=get_args(Policy),
        default="interval",
        help="when the journal is forced to the disk: before each answer, every 0.1 s, or never; "
        "the death of the server alone loses nothing in any case",
    )
    options = parser.parse_args(arguments)
    try:
        journal = Journal(options.journal, options.fsync) if options.journal else None
        databases = Databases(journal)
        server = Server(("127.0.0.1", options.port), databases)
    except BlockingIOError:
        sys.exit(f"another server uses {options.journal}")
    except (JournalDamagedError, OSError) as error:
        sys.exit(str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    gc.freeze()  # documents hold no cycles, and looking for them stops every client
    gc.set_threshold(500_000, 50, 1000)
    print(f"ready on 127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201
    server.serve()
    server.server_close()
    databases.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
