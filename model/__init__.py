"""A model of the protocol of changes, snapshots and heartbeats, and how to check it with SPIN."""
