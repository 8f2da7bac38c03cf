"""Where jobs keep their outputs: a jobflow JobStore in the ledger's database, free of secrets."""

from __future__ import annotations

from jobflow import JobStore

from matloop.ledger.opening import LedgerConfig
from matloop.ledger.server import Server
from matloop.ledger.server_store import ServerFileStore, ServerStore

OUTPUTS = "outputs"
BLOBS = "blobs"


def job_store(config: LedgerConfig) -> JobStore:
    """Return the store of the jobs of a ledger, as FireWorks writes it into every firework.

    Outputs go to the collection ``outputs``; what a job puts into its additional store ``data``
    goes to GridFS under ``blobs``, so that no document grows with a batch.

    Parameters
    ----------
    config
        Where the ledger is; it must be in MongoDB.
    """
    return server_job_store(config.server())


def server_job_store(server: Server) -> JobStore:
    """Return the same store, for a database that holds no ledger."""
    return JobStore(
        ServerStore(server, OUTPUTS, key="uuid"),
        additional_stores={"data": ServerFileStore(server, BLOBS)},
    )


def index_job_store(store: JobStore) -> None:
    """Create the indexes by which jobflow looks outputs and blobs up; once, before any job runs.

    Parameters
    ----------
    store
        What `job_store` returned; connected here if it is not.
    """
    store.connect()
    outputs = store.docs_store
    outputs.index(["uuid", "index"])
    for field in ("uuid", "metadata.campaign_id", "completed_at"):
        outputs.index([field])
    store.additional_stores["data"].ensure_index("blob_uuid")
    store.additional_stores["data"].ensure_index("job_uuid")
