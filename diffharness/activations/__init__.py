"""nnsight's side: locating layers, replay, the on-disk store, corpora."""
