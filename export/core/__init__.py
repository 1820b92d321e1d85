"""From a captured ATen graph to the programs of a .bve: read, rewritten by passes, scheduled, packed."""
