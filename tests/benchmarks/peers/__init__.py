"""The contestants Holdfire's firing and intake are measured against, each built as well as its users build it.

`tuned_celery` and `pgqueuer_worker` fire postbacks, `delay_insert` takes events in; `drive` measures them on
one target (`target`) with one meter (`metering`). Run them side by side with
`python -m tests.benchmarks.peers.drive`.
"""
