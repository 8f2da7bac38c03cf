"""Write database.md from the code: `python docs/generate_database.py`.

With ``--check`` nothing is written, and the exit code says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pymongo import common

from matloop import registry
from matloop.documents.artifact import Artifact
from matloop.documents.base import Document
from matloop.documents.campaign import CampaignRecord, CandidateRecord, IterationState
from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.operation import Attempt, Closing, Control, Receipt, Reservation
from matloop.documents.theory import LevelOfTheory
from matloop.ledger.crystals import FEWEST, KIND, MOST
from matloop.ledger.gridfs import BUCKET
from matloop.ledger.job_store import BLOBS, OUTPUTS
from matloop.ledger.leases import COLLECTION as LEASES
from matloop.ledger.store_ledger import COLLECTIONS, READ_BY
from matloop.structures.columns import LAYOUT

PAGE = Path(__file__).parent / "database.md"

RECORDS: dict[str, tuple[type[Document], str, str, str]] = {
    "campaigns": (
        CampaignRecord,
        "a campaign as declared",
        "`run` or `submit`, once",
        "2 to 10 kB",
    ),
    "states": (
        IterationState,
        "the start of an iteration",
        "`advance` when the iteration before it closes; the first writer wins",
        "1 to 5 kB",
    ),
    "candidates": (
        CandidateRecord,
        "a candidate as proposed",
        "`propose`, before anything is evaluated",
        "0.5 kB, its crystal in a file",
    ),
    "evaluations": (
        EvaluationRecord,
        "one method's result on one structure, shared by all campaigns",
        "a worker, at the end of each chunk",
        "1 kB, its crystal in a file",
    ),
    "decisions": (
        Decision,
        "what became of a candidate at one stage of one iteration",
        "`decide`, when the stage closes",
        "0.5 to 1 kB",
    ),
    "artifacts": (
        Artifact,
        "the description of a file; its bytes are in GridFS",
        "whoever makes the file: references, learners, and whoever writes crystals",
        "0.2 kB",
    ),
    "attempts": (
        Attempt,
        "a chunk that a process has begun",
        "a worker, before it evaluates",
        "75 bytes per key, at most 0.8 MB",
    ),
    "closings": (
        Closing,
        "the end of a stage in one iteration, or of proposing (no stage)",
        "whoever finds it complete, at its quorum or past its deadline; the first writer wins",
        "0.3 kB; who is late is listed in an artifact",
    ),
    "reservations": (
        Reservation,
        "the cost set aside for one calculation",
        "whoever submits the calculation, before it does",
        "0.4 kB",
    ),
    "receipts": (
        Receipt,
        "what one run of a job took from the machine",
        "a worker at its end; `heal` for one that died",
        "0.4 kB",
    ),
    "controls": (
        Control,
        "an order to a campaign",
        "`pause`, `resume`, `stop`",
        "0.2 kB",
    ),
}
PARTS: dict[str, type[BaseModel]] = {
    "candidate": Candidate,
    "origin": Origin,
    "evaluation": Evaluation,
    "quantity": Quantity,
    "cost": Cost,
    "level of theory": LevelOfTheory,
}
COMMON = {
    "campaign_id": "Name of the campaign.",
    "iteration": "Turn of the loop, from 0.",
    "stage": "Stage of the campaign.",
    "index": "Place among the proposals of its iteration, from 0.",
    "candidate": "The candidate as proposed; see [`candidate`](#candidate).",
    "schema_version": "Version of this layout; a reader refuses one it does not know.",
    "candidate_id": "Name of the candidate.",
    "outcome": "What became of it.",
    "reason": "Why, in one clause.",
    "evidence": "The numbers the choice rests on.",
    "selector": "Plugin that decided.",
    "evaluations": "Keys of the evaluations it rests on, in the order they were asked.",
}
INTRODUCTION = f"""\
# The database

A campaign's whole state is in one database: kill any process, and another goes on from there. On a
laptop the database is one SQLite file, on a cluster it is MongoDB; collections and documents are
the same. This page is their schema. Its tables are generated from the code.

Every collection but `{LEASES}` is **append-only**: a document is inserted if its key is not there
yet, under a unique index, and never changed. The first writer wins, so that any write may be
repeated: after a lost connection, by two processes at once, by two campaigns that find the same
crystal at the same instant. No document grows with the size of a batch; what does is in GridFS.

## Point at a MongoDB server

The connection string is a secret. It stands in the environment variable `MATLOOP_MONGODB_URI`, or
in a file of your own that nobody else can read (`chmod 600`); a file that others can read is
refused. Job documents, logs and reports name the variable or the file, never what is in it.

```bash
umask 077
echo 'mongodb://user:password@db.example.org:27017/?authSource=admin&tls=true' > ~/.matloop-uri
```

The user needs the role `readWrite` on the database. Indexes are created when a ledger is opened.
Writes wait for the majority of the replica set and its journal (`w: majority, j: true`). When the
server is away, an operation is repeated with growing pauses for up to `patience_seconds` (300), and
fails with one line afterwards.

| | |
|---|---|
| supported | what the driver supports: pymongo 4.16 speaks to MongoDB \
{common.MIN_SUPPORTED_SERVER_VERSION} and newer |
| tested in this repository | the test server described [below](#the-test-server); the same tests \
run against a server of yours with `MATLOOP_TEST_MONGODB_URI=... pytest -m mongo` |
| deployment | a replica set of three; a single server works, and has nowhere to fail over to |
| features used | CRUD, unique indexes, `find_one_and_update`, GridFS; no transactions, no change \
streams, no JavaScript |

Time is the server's wherever machines must agree on it (locks). The clocks of the members of a
replica set must agree to a few seconds.
"""
AFTER = f"""\
## Locks

`{LEASES}` is the one collection whose documents change. A document is a lock: `_id` is its name
(a campaign, or a name such as `tick`), `owner` says who holds it (`host`, `pid`, `since`), `token`
is his proof, and `ends` when it runs out, by the server's clock. Its holder renews it every
15 s for 60 s, and deletes it at the end; after the death of its holder it is free within 60 s.

## Files

The bytes of artifacts (crystals, reference phases, surrogates, models) are in GridFS:
`{BUCKET}.files` and `{BUCKET}.chunks`. A file's name is the sha256 of its bytes, and unique.
GridFS writes the entry in `.files` last: an upload that was killed is never read. Workers keep
copies in the folder `artifacts` of the ledger's `directory`, checked against the hash each time.

## Crystals

Of crystals that are written together, {FEWEST} or more, a document holds no dictionary but
`{{"{KIND}": sha256, "row": number}}`: the file of that name holds them all, at most {MOST} of them.
It is there before any document that names it. Fewer stay in their documents, as pymatgen
dictionaries.

A file is [Parquet](https://parquet.apache.org/) with zstd, one row per crystal, which any reader
of Parquet opens; the key `matloop.crystals` of its metadata is the version of the layout, now
{LAYOUT}.

| column | type | meaning |
|---|---|---|
| `lattice` | list of 9 doubles | the rows of the lattice matrix (Å) |
| `numbers` | list of integers | the atomic number of each site |
| `positions` | list of doubles | the fractional coordinates, site by site |
| `other` | text or null | the pymatgen dictionary as JSON where a crystal is more than \
elements on sites, such as one with oxidation states; the columns before it are empty then |

Every number has the bits it had in memory. `matloop.structures.columns.unpack` returns pymatgen
structures.

## Outputs of jobs

Jobs return references, not data; what they return is in a jobflow `JobStore`:

| collection | contents | indexes |
|---|---|---|
| `{OUTPUTS}` | jobflow's output documents | `uuid` + `index`, `uuid`, `metadata.campaign_id`, \
`completed_at` |
| `{BLOBS}.files`, `{BLOBS}.chunks` | what jobs store under `data`, as GridFS | \
`metadata.blob_uuid`, `metadata.job_uuid` |

FireWorks keeps its own collections (`fireworks`, `launches`, `workflows`, `fw_id_assigner`), with
the indexes that `lpad reset` and `lpad admin tuneup` create.

## Ask the database

Documents are plain JSON: crystals are [rows of files](#crystals), times are text in ISO 8601 (UTC).
Each document also has `last_updated`, a date, which [maggma](https://materialsproject.github.io/maggma/)
builders follow; decisions have `order`, which counts them within an iteration.

```python
--8<-- "docs/examples/query_database.py"
```

Reading disturbs nothing. Never change or delete documents by hand while a campaign runs; to remove
a finished campaign, delete its documents from every collection that has a `campaign_id`, and leave
`evaluations` alone: other campaigns may rest on them.

## The test server

The tests do not need MongoDB. They start a small server that speaks its protocol on a local socket:

```bash
python -m matloop.testing.mongodb_server --port 27027 --journal /tmp/journal
```

It is **never a production database**: one process that keeps everything in memory, without
passwords, replication or encryption. It keeps what it acknowledged in a journal and survives
`kill -9`; it has real unique indexes, and answers queries from hash indexes. Where it differs:

| | MongoDB | test server |
|---|---|---|
| indexes | B-trees, used for ranges too | hash maps for equality, `$in` and order; ranges are \
scanned |
| operators | all | those of mongomock-ng; text search, `$out`, `$merge`, collation, capped and \
time-series collections, tailable cursors and views are refused |
| JavaScript (`$where`) | if configured | refused |
| transactions | on replica sets | refused, as by any single server |
| authentication, TLS | yes | none: it listens on 127.0.0.1 only |
| durability | journal, replication | journal; `--fsync each` forces every answer to the disk |
"""


def page() -> str:
    """Return the page as Markdown."""
    missing = COLLECTIONS.keys() ^ RECORDS.keys()
    if missing:
        raise SystemExit(f"docs/generate_database.py: what about {', '.join(sorted(missing))}?")
    parts = [INTRODUCTION, "## Collections\n"]
    rows = []
    for name, (_, holds, when, size) in RECORDS.items():
        others = [
            " + ".join(f"`{field}`" for field in index) for at, index in READ_BY if at == name
        ]
        unique = " + ".join(f"`{field}`" for field in COLLECTIONS[name])
        rows.append((f"[`{name}`](#{name})", holds, unique, "; ".join(others), when, size))
    head = ("collection", "a document is", "unique key", "further indexes", "written by", "size")
    parts.append(_table(head, rows))
    for name, (model, holds, *_) in RECORDS.items():
        parts += [f"### {name}\n", f"Each document is {holds}.\n", _fields(model)]
    parts.append("## Parts of documents\n")
    for name, model in PARTS.items():
        summary = (model.__doc__ or "").strip().splitlines()[0]
        parts += [f"### {name}\n", f"{summary}\n", _fields(model)]
    return "\n".join([*parts, AFTER])


def _fields(model: type[BaseModel]) -> str:
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        docs.update(registry.attribute_docs(base.__doc__ or ""))
    hints = get_type_hints(model, include_extras=True)
    rows = []
    for name, info in model.model_fields.items():
        if info.exclude:  # not recorded
            continue
        meaning = docs.get(name) or COMMON.get(name)
        if meaning is None:
            raise SystemExit(f"docs/generate_database.py: what does {model.__name__}.{name} mean?")
        value = str(info.default) if name == "schema_version" else ""
        rows.append(
            (f"`{name}`", _type(hints[name]), f"{meaning} Now {value}." if value else meaning)
        )
    return _table(("field", "type", "meaning"), rows)


def _type(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        texts = dict.fromkeys(_type(part) for part in arguments if part is not NoneType)
        return " or ".join(texts) + (" or null" if NoneType in arguments else "")
    if origin in (tuple, list):
        return f"array of {_type(arguments[0])}"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    for name, model in PARTS.items():
        if hint is model:
            return f"[{name}](#{name.replace(' ', '-')})"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "object"
    names = {"int": "integer", "float": "number", "str": "text", "bool": "boolean"}
    names |= {"datetime": "text (ISO 8601)", "Structure": "crystal"}
    return names.get(getattr(hint, "__name__", ""), "any")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (cell.replace("``", "`").replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    if "--check" not in arguments:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write("out of date: database.md; run docs/generate_database.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
