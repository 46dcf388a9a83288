"""What is computed on a prior, a task and a seed, each step once: a function of a `Subject`.

`registry.py` lists the steps by name. Sweeps and commands run them with options of their own;
`comparison.py` and `audits.py` are jobs made of them.
"""
