"""Where a file's time goes: by op and by layer, from each format's own runtime, in one form."""
