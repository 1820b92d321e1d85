"""The big.LITTLE Vision Transformer and the dense one it is compared with. Read blvit.py first."""
