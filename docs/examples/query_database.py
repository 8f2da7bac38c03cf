"""Read a campaign's results from MongoDB with pymongo, and with maggma's builders in mind."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
from gridfs import GridFSBucket
from maggma.stores import MongoStore
from pymongo import MongoClient

URI = os.environ["MATLOOP_MONGODB_URI"]
DATABASE = os.environ.get("MATLOOP_DATABASE", "matloop")

database = MongoClient(URI)[DATABASE]

# How many candidates ended how, at each stage
funnel = database.decisions.aggregate(
    [
        {"$match": {"campaign_id": "mgo"}},
        {"$group": {"_id": {"stage": "$stage", "outcome": "$outcome"}, "count": {"$sum": 1}}},
    ]
)
for line in sorted(funnel, key=lambda item: sorted(item["_id"].items())):
    print(line["_id"]["stage"], line["_id"]["outcome"], line["count"])

# The results behind one decision, and what they cost
decision = database.decisions.find_one({"campaign_id": "mgo", "outcome": "passed"})
for result in database.evaluations.find({"key": {"$in": decision["evaluations"]}}):
    print(decision["candidate_id"], result["evaluator"], result["evaluation"]["cost"]["seconds"])

# Crystals, without matloop: the row of a Parquet file that a document names
held = database.candidates.find_one({"campaign_id": "mgo"})["candidate"]["structure"]
if "crystals" in held:  # of a few crystals, each is in its document as a pymatgen dictionary
    with GridFSBucket(database, "artifact_files").open_download_stream_by_name(
        held["crystals"]
    ) as stream:
        table = pq.read_table(pa.BufferReader(stream.read()))
    row = table.slice(held["row"], 1).to_pylist()[0]
    print(row["lattice"], row["numbers"], row["positions"])

# The same collections as maggma stores: documents carry `last_updated`, so builders can follow them
with MongoStore.from_uri(URI, "evaluations", DATABASE, key="key") as evaluations:
    print(evaluations.count({"evaluation.verdict": "pass"}))
