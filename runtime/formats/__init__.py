"""One module for each file format: load(path, threads, method) -> Runner, by its own runtime.

threads: 1 or more; method: the entry point of that name, the first where it is None. UserError if the runtime refuses
the file. A module imports its runtime, and of another system's, which cannot be had here, what evaluates its files;
nothing that converts models. PyTorch is imported where the runtime takes its tensors alone.
"""
