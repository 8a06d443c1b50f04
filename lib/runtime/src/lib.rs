//! Process plumbing: logging, health, metrics, lease, shutdown, sync loop.
