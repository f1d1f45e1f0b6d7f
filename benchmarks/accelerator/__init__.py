"""One run on an accelerator: jobs in order of value per minute, within a budget of minutes.

    python -m benchmarks accelerator --minutes 8 --out DIR --data cifar10_jpeg.npz.xz
    python -m benchmarks accelerator --minutes 8 --out DIR --done results/   (what is left)
    python -m benchmarks accelerator --rehearse --out DIR                    (tiny, on a CPU)

`jobs` lists them, `runner` goes through them, each in a `worker` process that a watchdog ends, and
`store` keeps what they found.
"""
