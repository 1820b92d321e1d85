"""One module for each file format: FORMAT, SUFFIX, lower(graph, target) -> Artifact and load(path, threads) -> Run. It
alone imports its framework, and no other backend.
"""
