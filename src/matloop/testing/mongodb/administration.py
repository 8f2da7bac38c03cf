"""Commands about collections and indexes."""

from __future__ import annotations

from typing import Any

from mongomock_ng.filtering import filter_applies

from matloop.testing.mongodb.collection import Collection
from matloop.testing.mongodb.cursors import Cursors
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.requests import Handler, handlers, namespace_of, refuse

Json = dict[str, Any]


class Administration:
    """Making, listing, renaming and dropping databases, collections and indexes."""

    def __init__(self, databases: Databases, cursors: Cursors) -> None:
        self._databases = databases
        self._cursors = cursors

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each command."""
        return handlers(self)

    def _do_create(self, command: Json) -> Json:
        refuse(command, "capped", "timeseries", "viewOn", "validator", "collation")
        namespace = namespace_of(command, "create")
        if namespace in self._databases.collections:
            raise CommandError(48, f"Collection {namespace} already exists.")
        self._databases.create(namespace)
        return {}

    def _do_drop(self, command: Json) -> Json:
        namespace = namespace_of(command, "drop")
        self._databases.drop(namespace)
        return {"ns": namespace}

    def _do_dropDatabase(self, command: Json) -> Json:  # noqa: N802
        for namespace in self._namespaces(command["$db"]):
            self._databases.drop(namespace)
        return {"dropped": command["$db"]}

    def _do_renameCollection(self, command: Json) -> Json:  # noqa: N802
        old, new = command["renameCollection"], command["to"]
        if old not in self._databases.collections:
            raise CommandError(26, f"Source collection {old} does not exist")
        if new in self._databases.collections:
            if not command.get("dropTarget"):
                raise CommandError(48, "target namespace exists")
            self._databases.drop(new)
        self._databases.rename(old, new)
        return {}

    def _do_listCollections(self, command: Json) -> Json:  # noqa: N802
        database = command["$db"]
        found = [
            {
                "name": namespace.partition(".")[2],
                "type": "collection",
                "options": {},
                "info": {"readOnly": False},
                "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"},
            }
            for namespace in self._namespaces(database)
        ]
        criteria = command.get("filter") or {}
        found = [item for item in found if filter_applies(criteria, item)]
        return self._cursors.open(f"{database}.$cmd.listCollections", iter(found), len(found) + 1)

    def _do_listDatabases(self, command: Json) -> Json:  # noqa: N802
        sizes: dict[str, int] = {}
        for namespace, collection in self._databases.collections.items():
            name = namespace.partition(".")[0]
            sizes[name] = sizes.get(name, 0) + sum(len(stored.raw) for stored in collection)
        found = [
            {"name": name, "sizeOnDisk": size, "empty": not size}
            for name, size in sorted(sizes.items())
            if filter_applies(command.get("filter") or {}, {"name": name})
        ]
        return {"databases": found, "totalSize": sum(sizes.values())}

    def _do_createIndexes(self, command: Json) -> Json:  # noqa: N802
        namespace = namespace_of(command, "createIndexes")
        created = namespace not in self._databases.collections
        collection = self._databases.collection(namespace)
        before = len(collection.indexes) + 1
        for options in command["indexes"]:
            wanted = {"v": 2, **options}
            wanted.pop("background", None)
            if tuple(wanted["key"]) != ("_id",) and not _exists(collection, wanted):
                self._databases.build_index(namespace, wanted)
        after = len(self._databases.collection(namespace, create=True).indexes) + 1
        return {
            "numIndexesBefore": before,
            "numIndexesAfter": after,
            "createdCollectionAutomatically": created,
        }

    def _do_listIndexes(self, command: Json) -> Json:  # noqa: N802
        namespace = namespace_of(command, "listIndexes")
        if namespace not in self._databases.collections:
            raise CommandError(26, f"ns does not exist: {namespace}")
        collection = self._databases.collection(namespace)
        found = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}]
        found += [index.options for index in collection.indexes.values()]
        return self._cursors.open(namespace, iter(found), len(found) + 1)

    def _do_dropIndexes(self, command: Json) -> Json:  # noqa: N802
        namespace = namespace_of(command, "dropIndexes")
        if namespace not in self._databases.collections:
            raise CommandError(26, f"ns not found {namespace}")
        collection = self._databases.collection(namespace)
        before = len(collection.indexes) + 1
        asked = command["index"]
        for which in asked if isinstance(asked, list) else [asked]:
            names = [
                name
                for name, index in collection.indexes.items()
                if which in ("*", name) or which == index.options["key"]
            ]
            if not names and which != "*":
                raise CommandError(27, f"index not found with name [{which}]")
            for name in names:
                self._databases.drop_index(namespace, name)
        return {"nIndexesWas": before}

    def _do_collStats(self, command: Json) -> Json:  # noqa: N802
        collection = self._databases.collection(namespace_of(command, "collStats"))
        sizes = [len(stored.raw) for stored in collection]
        return {
            "ns": collection.namespace,
            "count": len(sizes),
            "size": sum(sizes),
            "storageSize": sum(sizes),
            "avgObjSize": sum(sizes) // max(1, len(sizes)),
            "nindexes": len(collection.indexes) + 1,
        }

    def _do_dbStats(self, command: Json) -> Json:  # noqa: N802
        names = self._namespaces(command["$db"])
        found = [self._databases.collections[name] for name in names]
        size = sum(len(stored.raw) for collection in found for stored in collection)
        return {
            "db": command["$db"],
            "collections": len(found),
            "objects": sum(map(len, found)),
            "dataSize": size,
            "storageSize": size,
        }

    def _namespaces(self, database: str) -> list[str]:
        return [name for name in self._databases.collections if name.startswith(f"{database}.")]


def _exists(collection: Collection, wanted: Json) -> bool:
    for index in collection.indexes.values():
        same_key = list(index.options["key"].items()) == list(wanted["key"].items())
        if index.options == wanted:
            return True
        if index.name == wanted["name"]:
            code = 85 if same_key else 86
            message = f"index {index.name} exists already with another key or other options"
            raise CommandError(code, message)
        if same_key:
            raise CommandError(85, f"Index already exists with a different name: {index.name}")
    return False
