"""From a PyTorch model to files that mobile runtimes run. Read convert.py first."""
