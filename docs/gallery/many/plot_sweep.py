"""
A sweep, on one machine or a cluster
====================================

A plan lists networks, tasks, images and seeds; a store keeps every run. The same plan runs in
processes on one machine, or with any executor, such as Dask's on a cluster: ``sweep.run(plan,
store, executor=...)``. Finished runs are not repeated.
"""

import tempfile

from dipkernels import sweep

plan = sweep.load(
    {
        "priors": [
            {"name": "deep-decoder", "options": {"width": 8}},
            {"name": "deep-decoder", "options": {"width": 32}},
        ],
        "images": ["camera", "coins"],
        "sizes": 16,
        "seeds": [0, 1],
        "measure": {"name": "fit", "iterations": 60},
    }
)
with tempfile.TemporaryDirectory() as store:
    print(sweep.run(plan, store))
    table = sweep.table(store)

table.groupby(["image", "prior.width"])["peak_psnr"].agg(["mean", "std"]).round(2)
