"""Models: what one is, how it is loaded, and how a batch is run so that one bad row costs one answer."""
