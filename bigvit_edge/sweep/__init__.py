"""Models x formats x precisions x devices, exported and measured job by job, in a folder that outlives any kill."""
