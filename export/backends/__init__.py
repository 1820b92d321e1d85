"""One module for each file format: FORMAT, SUFFIX, lower(graph, target) -> Artifact, load(path, threads) -> Runner. It
alone imports its framework, and no other backend.
"""
