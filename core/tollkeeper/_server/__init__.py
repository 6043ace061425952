"""Private to the core: from sockets to the pipeline, and from the pipeline to upstreams."""
