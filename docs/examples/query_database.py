"""Read a campaign's results from MongoDB with pymongo, and with maggma's builders in mind."""

import os

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

# The same collections as maggma stores: documents carry `last_updated`, so builders can follow them
with MongoStore.from_uri(URI, "evaluations", DATABASE, key="key") as evaluations:
    print(evaluations.count({"evaluation.verdict": "pass"}))
